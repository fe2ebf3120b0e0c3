package mesh_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/inboardmesh/inboard/mesh"
)

// Requests to a server need the word of an authorizer that nobody has started. The
// process stays ready, and says here what it lacks.
func ExampleMesh_Services() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	shop, err := startShop()
	check(err)
	defer shop.close()
	config, err := shop.bootstrap("payment")
	check(err)
	m, err := mesh.New(ctx, mesh.WithBootstrap(config))
	check(err)
	defer closeMesh(m)
	inner, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	check(err)
	shop.apply(`
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - {name: authorizer, envoyExtAuthzHttp: {service: authorizer.ops.svc.cluster.local, port: 80, timeout: 1s}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: authorizer, namespace: ops}
spec:
  hosts: [authorizer.ops.svc.cluster.local]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1, ports: {http: 1}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop}
spec: {action: CUSTOM, provider: {name: authorizer}, rules: [{}]}
`)
	ln, err := m.Serve(ctx, inner)
	check(err)
	server := m.Server(http.NotFoundHandler())
	go func() { _ = server.Serve(ln) }() // until Shutdown
	defer func() { check(server.Shutdown(ctx)) }()

	resp, err := http.Get("http://" + inner.Addr().String())
	check(err)
	check(resp.Body.Close())
	fmt.Println("status", resp.StatusCode)
	for _, s := range m.Services() {
		fmt.Println(s.Kind, "of", s.Cluster, "failing:", s.Failing, "harmless:", s.Harmless, "reason:", s.Reason)
	}
	fmt.Println("ready:", m.Ready() == nil)

	// Output:
	// status 403
	// authorization of outbound|80||authorizer.ops.svc.cluster.local failing: true harmless: false reason: unreachable
	// ready: true
}
