package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// twoTongues is a payment that answers HTTP and gRPC at one address, and is checked
// there.
type twoTongues struct {
	grpc_testing.UnimplementedTestServiceServer
	calls, checks atomic.Int64
	broken, hangs atomic.Bool
}

func (p *twoTongues) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	p.calls.Add(1)
	if p.hangs.Load() {
		<-ctx.Done()
	}
	if p.broken.Load() {
		return nil, status.Error(codes.Internal, "out of order")
	}
	return &grpc_testing.SimpleResponse{}, nil
}

// twoTongued serves the address of a number.
func (g *ground) twoTongued(number int) *twoTongues {
	g.t.Helper()
	p, calls := new(twoTongues), grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(calls, p)
	listener, err := g.network.Listen(hostOf(number) + ":" + groundHTTP)
	if err != nil {
		g.t.Fatal(err)
	}
	server := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/healthz":
			p.checks.Add(1)
		case r.Header.Get("Content-Type") == "application/grpc":
			calls.ServeHTTP(w, r)
		default:
			p.calls.Add(1)
			if p.hangs.Load() {
				<-r.Context().Done()
			}
			if p.broken.Load() {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}
	})}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	g.t.Cleanup(func() {
		_ = server.Close()
		serving.Wait()
		calls.Stop()
		time.Sleep(time.Second) // net/http's server lingers on connections
	})
	return p
}

// tongues are calls of a new client over HTTP, and of a new channel over gRPC, to the same
// payments.
func (g *ground) tongues() []func(context.Context) error {
	g.t.Helper()
	client := g.mesh.HTTPClient()
	conn, err := grpc.NewClient("mesh:///"+groundHost+":"+groundHTTP, g.mesh.DialOptions()...)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close() })
	stub := grpc_testing.NewTestServiceClient(conn)
	return []func(context.Context) error{
		func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+groundHost+":"+groundHTTP+"/", http.NoBody)
			if err != nil {
				return err
			}
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			if resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %d", resp.StatusCode)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			return errors.Join(err, resp.Body.Close())
		},
		func(ctx context.Context) error {
			_, err := stub.UnaryCall(ctx, &grpc_testing.SimpleRequest{})
			return err
		},
	}
}

// http2Cluster is a cluster whose endpoints speak HTTP/2, with these fields.
func http2Cluster(fields string) *clusterv3.Cluster {
	return balancedCluster(groundHTTP, `"typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
		"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicitHttpConfig": {"http2ProtocolOptions": {}}}}, `+fields)
}

// TestAnEndpointIsOneForAllClientsAndProtocols: its checks, its ejection and
// the limits of its cluster are not those of a client, a connection or a protocol.
func TestAnEndpointIsOneForAllClientsAndProtocols(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &ground{t: t, network: newGroundNetwork()}
		g.plane = adstest.Serve(t, adstest.Config{Network: g.network})
		one, two := g.twoTongued(1), g.twoTongued(2)
		g.plane.Set(groundListener(groundHTTP), groundRoutes(groundHTTP, groundHTTP), assignment(groundHTTP, groundHTTP, 1, 1, 2),
			http2Cluster(`"lbPolicy": "ROUND_ROBIN",
				"healthChecks": [{"timeout": "1s", "interval": "1s", "noTrafficInterval": "1s", "unhealthyThreshold": 1, "healthyThreshold": 1,
					"httpHealthCheck": {"path": "/healthz", "codecClientType": "HTTP2"}}],
				"outlierDetection": {"interval": "1s", "baseEjectionTime": "10s", "maxEjectionPercent": 50, "consecutive5xx": 3, "successfulActiveHealthCheckUnejectHost": false},
				"circuitBreakers": {"thresholds": [{"maxRequests": 10}]}`))
		g.join(&bootstrap.Config{Servers: []bootstrap.Server{g.server("xds.test")}, Node: bootstrap.Node{ID: "customer-1"}})
		callers := append(g.tongues(), g.tongues()...)
		each := func(rounds int) (atOne, failed int64) {
			one.calls.Store(0)
			for range rounds {
				for _, call := range callers {
					if call(t.Context()) != nil {
						failed++
					}
				}
			}
			return one.calls.Load(), failed
		}
		if n, failed := each(10); n != 20 || failed != 0 {
			t.Errorf("%d of 40 calls came to the first payment, %d failed", n, failed)
		}

		time.Sleep(500 * time.Millisecond) // between two checks
		one.checks.Store(0)
		two.checks.Store(0)
		time.Sleep(10 * time.Second)
		if a, b := one.checks.Load(), two.checks.Load(); a != 10 || b != 10 {
			t.Errorf("%d and %d checks in ten seconds", a, b)
		}

		// Three failures in a row, whoever made the calls.
		one.broken.Store(true)
		if n, failed := each(5); n != 3 || failed != 3 {
			t.Errorf("%d calls came to the broken payment, %d failed, want 3", n, failed)
		}
		one.broken.Store(false)
		time.Sleep(12 * time.Second)
		if n, failed := each(5); n != 10 || failed != 0 {
			t.Errorf("%d of 20 calls came to the payment that is back, %d failed", n, failed)
		}

		// Ten calls at a time, whoever makes them.
		one.hangs.Store(true)
		two.hangs.Store(true)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var refused atomic.Int64
		for i := range 20 {
			wg.Go(func() {
				err := callers[i%len(callers)](ctx)
				if e, ok := errors.AsType[*mesh.Error](err); ok && e.Kind == outcome.Overflow {
					refused.Add(1)
				}
			})
			synctest.Wait()
		}
		if n := refused.Load(); n != 10 {
			t.Errorf("%d of 20 calls were refused, want 10", n)
		}
		cancel()
		wg.Wait()
	})
}

// TestS27_ChangesOfTheConfigurationLoseNoPermit: calls of both protocols succeed, fail,
// are canceled, retried, hedged and refused while limits, breakers, detection, checks and
// endpoints come and go. Afterwards as many calls are admitted as the limit says.
func TestS27_ChangesOfTheConfigurationLoseNoPermit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit, callers, each = 7, 20, 60
		g := &ground{t: t, network: newGroundNetwork()}
		g.plane = adstest.Serve(t, adstest.Config{Network: g.network})
		payments := []*twoTongues{g.twoTongued(1), g.twoTongued(2), g.twoTongued(3)}
		thresholds := func(requests, retries int) string {
			return fmt.Sprintf(`"circuitBreakers": {"thresholds": [{"maxRequests": %d, "maxRetries": %d, "trackRemaining": true}]}`, requests, retries)
		}
		const (
			breakerOf = `, "metadata": {"filterMetadata": {"inboard.breaker": {"failureRatio": 0.5, "minimumRequests": 5, "openTime": "0.010s", "scope": "both"}}}`
			checks    = `, "healthChecks": [{"timeout": "1s", "interval": "0.005s", "unhealthyThreshold": 1, "healthyThreshold": 1, "httpHealthCheck": {"path": "/healthz", "codecClientType": "HTTP2"}}]`
			detection = `, "outlierDetection": {"interval": "0.010s", "baseEjectionTime": "0.020s", "maxEjectionPercent": 60, "consecutive5xx": 2}`
		)
		clusters := []string{
			thresholds(1000, 100) + breakerOf + checks, thresholds(4, 1) + detection, thresholds(100, 0),
			thresholds(12, 3) + checks + detection, thresholds(100, 100) + breakerOf, thresholds(0, 0),
		}
		endpoints := [][]int{{1}, {2, 3}, {1, 2, 3}, {3}, {1, 2}}
		routes := groundRoutes(groundHTTP, groundHTTP)
		proto.Merge(routes.GetVirtualHosts()[0].GetRoutes()[0].GetRoute(), parsed(&routev3.RouteAction{}, `{
			"retryPolicy": {"retryOn": "5xx,internal,unavailable,reset", "numRetries": 2, "perTryTimeout": "0.030s", "retryBackOff": {"baseInterval": "0.001s"}},
			"hedgePolicy": {"hedgeOnPerTryTimeout": true}}`))
		set := func(cluster string, numbers ...int) {
			g.plane.Set(groundListener(groundHTTP), routes, assignment(groundHTTP, groundHTTP, 1, numbers...), http2Cluster(cluster))
		}
		set(clusters[0], 1, 2, 3)
		var capacity atomic.Pointer[observe.Capacity]
		g.join(&bootstrap.Config{Servers: []bootstrap.Server{g.server("xds.test")}, Node: bootstrap.Node{ID: "customer-1"}},
			mesh.WithHooks(&observe.Hooks{CapacityTracked: func(c *observe.Capacity) {
				if c.Priority == "default" {
					capacity.Store(c)
				}
			}}))
		calls := append(g.tongues(), g.tongues()...)
		var storm sync.WaitGroup
		var answered, ended atomic.Int64
		for i := range callers {
			storm.Go(func() {
				for j := range each {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+(i*j)%80)*time.Millisecond)
					if calls[i%len(calls)](ctx) == nil {
						answered.Add(1)
					}
					ended.Add(1)
					cancel()
					time.Sleep(10 * time.Millisecond) // those that are refused would be through at once
				}
			})
		}
		for n := 0; ended.Load() < callers*each; n++ {
			set(clusters[n%len(clusters)], endpoints[n%len(endpoints)]...)
			payments[n%3].broken.Store(n%2 == 0)
			payments[(n+1)%3].hangs.Store(n%4 == 0)
			time.Sleep(50 * time.Millisecond)
		}
		storm.Wait()
		t.Logf("%d of %d calls were answered", answered.Load(), ended.Load())
		if n := answered.Load(); n < callers*each/10 {
			t.Errorf("%d calls were answered: too few to tell", n)
		}
		for _, p := range payments {
			p.broken.Store(false)
			p.hangs.Store(true)
			p.calls.Store(0)
		}
		set(thresholds(limit, 3), 1, 2, 3)
		time.Sleep(time.Minute) // the client of the control plane slows many changes down
		left := capacity.Load().Remaining()
		if left.Connections, left.Pending = 0, 0; left != (observe.Remaining{Requests: limit, Retries: 3}) {
			t.Errorf("%+v are left", left)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var refused atomic.Int64
		var flood sync.WaitGroup
		for i := range 2 * limit {
			flood.Go(func() {
				err := calls[i%len(calls)](ctx)
				if e, ok := errors.AsType[*mesh.Error](err); ok && e.Kind == outcome.Overflow {
					refused.Add(1)
				}
			})
			synctest.Wait()
		}
		if n := refused.Load(); n != limit {
			t.Errorf("%d of %d calls were refused, want %d", n, 2*limit, limit)
		}
		cancel()
		flood.Wait()
	})
}
