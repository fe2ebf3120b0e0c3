// Package mesh puts the process into a service mesh: it imports a data plane
// instead of standing behind one. A control plane that speaks xDS (Istio's
// istiod, or the one of package controlplane) decides discovery, routing, load
// balancing, retries, limits and mutual TLS for what goes through a [Mesh].
//
//	m, err := mesh.New(ctx) // configured by GRPC_XDS_BOOTSTRAP
//
//	client := m.HTTPClient()
//	conn, err := grpc.NewClient("mesh:///payment.shop.svc.cluster.local:9090", m.DialOptions()...)
//
//	ln, err := m.Listen(ctx, "tcp", ":8080")
//	go http.Serve(ln, m.Handler(mux))
//
//	srv := grpc.NewServer(m.ServerOptions()...)
//	go srv.Serve(ln)
//
// # The way of a call
//
// "Above" is nearer the application. From above to below, an outbound call
// passes:
//
//  1. observation: above everything, so that it sees the outcome that the
//     caller sees;
//  2. the configuration is pinned: above the route, so that every later layer
//     sees one version of it;
//  3. the route is matched: above the filters, because their configuration is
//     per route;
//  4. fault injection: above retry, so that a fault counts once per call;
//  5. the overall timeout: above retry, so that it bounds all attempts and
//     their back-off;
//  6. retry: above the limits, so that each attempt needs its own permit;
//  7. limits and the error-rate breaker: above the balancer, so that a refused
//     attempt does not disturb its counters;
//  8. the balancer picks the endpoint;
//  9. the per-try timeout, and the attempt is observed;
//  10. the connection: mutual TLS and the pool.
//
// An inbound call passes: the first bytes (TLS or not), mutual TLS and the
// peer's identity, the filter chain, observation, the filters, the handler.
//
// # What it is not
//
// The mesh protects what goes through it. An application that opens a second
// listener, or dials by itself, is outside: no process can protect itself from
// its own code.
package mesh
