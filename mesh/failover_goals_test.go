package mesh_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/mesh"
)

// failoverCalls is how many calls the goals are measured with. The time is fake, so that
// it costs what the calls cost.
var failoverCalls = flag.Int("failover.calls", 400, "calls of each protocol in the tests of the goals G5 to G8")

// failover is payments in two priorities, of which the network lets pass what it is told.
type failover struct {
	*ground
	payments []*counted

	mu     sync.Mutex
	refuse map[string]bool // guarded by mu; hosts that refuse
	silent map[string]bool // guarded by mu; hosts that do not answer
	conns  []*memnet.Mutable
}

// newFailover has three primaries and two secondaries; fields are the clusters' own.
func newFailover(t *testing.T, fields string) *failover {
	t.Helper()
	g := &failover{ground: &ground{t: t, network: newGroundNetwork()}, refuse: make(map[string]bool), silent: make(map[string]bool)}
	g.plane = adstest.Serve(t, adstest.Config{Network: g.network})
	g.payments = g.counting(5, nil)
	g.configure(fields, "HEALTHY")
	g.join(&bootstrap.Config{Servers: []bootstrap.Server{g.server("xds.test")}, Node: bootstrap.Node{ID: "customer-1"}}, mesh.Network{Dial: g.dial})
	return g
}

func (g *failover) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(address)
	g.mu.Lock()
	refused, silent := g.refuse[host], g.silent[host]
	g.mu.Unlock()
	switch {
	case refused:
		return nil, errors.New("connection refused")
	case silent:
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	conn, err := g.network.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	m := memnet.NewMutable(conn)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns = append(g.conns, m)
	return m, nil
}

// configure sets the clusters and the health of the primaries. Routes retry what was
// not sent.
func (g *failover) configure(fields, health string) {
	var all []proto.Message
	for _, port := range []string{groundHTTP, groundGRPC} {
		routes := groundRoutes(port, port)
		routes.GetVirtualHosts()[0].GetRoutes()[0].GetRoute().RetryPolicy = parsed(&routev3.RetryPolicy{},
			`{"retryOn": "connect-failure,refused-stream", "numRetries": 4, "retryBackOff": {"baseInterval": "0.005s"}}`)
		endpoints := assignment(port, port, 1, 1, 2, 3)
		for _, e := range endpoints.GetEndpoints()[0].GetLbEndpoints() {
			proto.Merge(e, parsed(&endpointv3.LbEndpoint{}, `{"healthStatus": %q}`, health))
		}
		second := assignment(port, port, 1, 4, 5).GetEndpoints()[0]
		second.Priority = 1
		endpoints.Endpoints = append(endpoints.Endpoints, second)
		all = append(all, groundListener(port), routes, balancedCluster(port, fields), endpoints)
	}
	g.plane.Set(all...)
	synctest.Wait()
}

// measure makes calls over both protocols, 10 ms apart, and returns how long each
// took, in order. None may fail.
func (g *failover) measure(n int) []time.Duration {
	g.t.Helper()
	var took []time.Duration
	for range n {
		for protocol, call := range map[string]func(context.Context) (string, error){"HTTP": g.callHTTP, "gRPC": g.callGRPC} {
			begin := time.Now()
			if _, err := call(g.t.Context()); err != nil {
				g.t.Errorf("%s: %v", protocol, err)
			}
			took = append(took, time.Since(begin))
		}
		time.Sleep(10 * time.Millisecond)
	}
	slices.Sort(took)
	return took
}

func percentile(sorted []time.Duration, percent int) time.Duration {
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)]
}

// shares is how many calls each payment got since it was asked last.
func (g *failover) shares() []int64 {
	shares := make([]int64, len(g.payments))
	for i, p := range g.payments {
		shares[i] = p.http.Swap(0) + p.grpc.Swap(0)
	}
	return shares
}

func TestG5_AnEndpointThatRefusesCostsNoCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newFailover(t, `"lbPolicy": "ROUND_ROBIN"`)
		g.refuse[hostOf(2)] = true
		took := g.measure(*failoverCalls)
		if p99 := percentile(took, 99); p99 > 100*time.Millisecond {
			t.Errorf("p99 %v, want less than 100 ms", p99)
		}
		t.Logf("%d calls: p99 %v, slowest %v", len(took), percentile(took, 99), took[len(took)-1])
		if shares := g.shares(); shares[3]+shares[4] != 0 {
			t.Errorf("calls by payment: %v, although two primaries are there", shares)
		}
	})
}

func TestG6_TheNextPriorityTakesOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newFailover(t, `"lbPolicy": "ROUND_ROBIN"`)
		g.measure(20)
		g.configure(`"lbPolicy": "ROUND_ROBIN"`, "UNHEALTHY")
		g.shares()
		begin := time.Now()
		took := g.measure(*failoverCalls)
		if shares := g.shares(); shares[0]+shares[1]+shares[2] != 0 || took[len(took)-1] > time.Second {
			t.Errorf("after the change calls by payment: %v, the slowest took %v", shares, took[len(took)-1])
		}
		t.Logf("%d calls in %v after the change", len(took), time.Since(begin))

		g.configure(`"lbPolicy": "ROUND_ROBIN"`, "HEALTHY")
		g.mu.Lock()
		for i := range 3 {
			g.refuse[hostOf(i+1)] = true
		}
		for _, c := range g.conns {
			_ = c.Close()
		}
		g.mu.Unlock()
		synctest.Wait()
		g.shares()
		took = g.measure(*failoverCalls)
		if shares := g.shares(); shares[0]+shares[1]+shares[2] != 0 || took[len(took)-1] > 2*time.Second {
			t.Errorf("when all primaries refuse, calls by payment: %v, the slowest took %v", shares, took[len(took)-1])
		}
	})
}

func TestG7_ASilentEndpointIsFoundByTheConnectTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newFailover(t, `"lbPolicy": "ROUND_ROBIN"`) // the connect timeout is 1 s
		g.silent[hostOf(2)] = true
		begin := time.Now()
		took := g.measure(*failoverCalls)
		slow := 0
		for _, d := range took {
			if d > 1100*time.Millisecond {
				t.Errorf("a call took %v, want at most the connect timeout and a retry", d)
			}
			if d > 100*time.Millisecond {
				slow++
			}
		}
		// It is tried again after a back-off that grows to 10 s, by one call of each
		// protocol; all others are served at once.
		if most := 2 * (6 + int(time.Since(begin)/(5*time.Second))); slow > most {
			t.Errorf("%d of %d calls waited for the silent endpoint, want at most %d", slow, len(took), most)
		}
		t.Logf("%d of %d calls waited for the silent endpoint", slow, len(took))
	})
}

// A connection whose peer vanishes under calls is found by the keep-alive of HTTP/2.
func TestG7_ASilentConnectionIsFoundByKeepAlive(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"HTTP/2", "gRPC"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := newFailover(t, `"typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
					"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
					"explicitHttpConfig": {"http2ProtocolOptions": {"connectionKeepalive": {"interval": "20s", "timeout": "5s"}}}}}`)
				call := g.callGRPC
				if protocol == "HTTP/2" {
					call = g.callHTTP
				}
				for _, p := range g.payments {
					p.delay.Store(int64(time.Hour))
				}
				ended := make(chan error, 1)
				go func() {
					_, err := call(t.Context())
					ended <- err
				}()
				synctest.Wait()
				time.Sleep(10 * time.Second)
				begin := time.Now()
				g.mu.Lock()
				for _, c := range g.conns {
					c.Silence()
				}
				g.mu.Unlock()
				err := <-ended
				if took := time.Since(begin); took > 30*time.Second {
					t.Errorf("found after %v, want at most 30 s", took)
				}
				if err == nil || !strings.Contains(err.Error(), "PING") {
					t.Errorf("the call ended with %v", err)
				}
			})
		})
	}
}

func TestG8_AnEjectionCostsTheThresholdAndEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newFailover(t, `"lbPolicy": "ROUND_ROBIN", "outlierDetection": {"interval": "1s", "baseEjectionTime": "10s", "maxEjectionPercent": 50, "consecutive5xx": 5}`)
		g.measure(10)
		g.shares()
		broken := g.payments[1]
		broken.broken.Store(true)
		failures := map[string]int{}
		calls := min(*failoverCalls, 5000) // 5 s: the first ejection lasts 10 s
		for range calls {
			for protocol, call := range map[string]func(context.Context) (string, error){"HTTP": g.callHTTP, "gRPC": g.callGRPC} {
				if _, err := call(t.Context()); err != nil {
					failures[protocol]++
				}
			}
			time.Sleep(time.Millisecond)
		}
		// One cluster for each protocol: 5 failures in each, and none in flight.
		if want := "map[HTTP:5 gRPC:5]"; fmt.Sprint(failures) != want {
			t.Errorf("failures %v, want %s", failures, want)
		}
		broken.broken.Store(false)
		g.shares()
		begin := time.Now()
		for g.shares()[1] == 0 {
			g.measure(3)
		}
		// The ejection began while the calls above were made.
		since := time.Since(begin) + time.Duration(calls)*time.Millisecond
		if since < 9*time.Second || since > 12*time.Second+time.Duration(calls)*time.Millisecond {
			t.Errorf("back after %v, want 10 s and up to two sweeps", since)
		}
	})
}

// TestG10_OverloadCostsNoGoodputOverHTTPAndGRPC: a payment that does ten calls at a
// time, each in 100 ms, is offered three times what it can do.
func TestG10_OverloadCostsNoGoodputOverHTTPAndGRPC(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"HTTP", "gRPC"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const workers, offered, work = 10, 300, 100 * time.Millisecond
				g := balancingGround(t, fmt.Sprintf(`"circuitBreakers": {"thresholds": [{"maxRequests": %d, "maxConnections": %d, "maxPendingRequests": %[1]d}]}`, workers, workers), 1)
				payment := g.counting(1, nil)[0]
				payment.places = make(chan struct{}, workers)
				payment.delay.Store(int64(work))
				call := g.callHTTP
				if protocol == "gRPC" {
					call = g.callGRPC
				}
				if _, err := call(t.Context()); err != nil { // the configuration is there
					t.Fatal(err)
				}
				seconds := max(*failoverCalls/100, 1)
				var wg sync.WaitGroup
				var good, slow atomic.Int64
				for range seconds * offered {
					wg.Go(func() {
						begin := time.Now()
						// What is answered later than after twice the work has waited for a place.
						if _, err := call(t.Context()); err == nil {
							if time.Since(begin) <= 2*work {
								good.Add(1)
							}
						} else if time.Since(begin) > 10*time.Millisecond {
							slow.Add(1)
						}
					})
					time.Sleep(time.Second / offered)
				}
				wg.Wait()
				if got := good.Load(); got < int64(seconds)*100*8/10 {
					t.Errorf("%d calls in %d s were answered, want 80 %% of %d or more", got, seconds, seconds*100)
				}
				if got := slow.Load(); got != 0 {
					t.Errorf("%d refusals took longer than 10 ms", got)
				}
			})
		})
	}
}
