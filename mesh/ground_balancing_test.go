package mesh_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/mesh"
)

// balancingGround is a mesh that balances as clusters say, which have these fields
// beside those of every cluster.
func balancingGround(t *testing.T, fields string, payments int, options ...mesh.Option) *ground {
	t.Helper()
	g := &ground{t: t, network: newGroundNetwork()}
	g.plane = adstest.Serve(t, adstest.Config{Network: g.network})
	numbers := make([]int, payments)
	for i := range numbers {
		numbers[i] = i + 1
	}
	all := groundEndpoints(numbers...)
	for _, port := range []string{groundHTTP, groundGRPC} {
		all = append(all, groundListener(port), groundRoutes(port, port), balancedCluster(port, fields))
	}
	g.plane.Set(all...)
	g.join(&bootstrap.Config{Servers: []bootstrap.Server{g.server("xds.test")}, Node: bootstrap.Node{ID: "customer-1"}}, options...)
	return g
}

func balancedCluster(name, fields string) *clusterv3.Cluster {
	c := groundCluster(name)
	proto.Merge(c, parsed(&clusterv3.Cluster{}, "{%s}", fields))
	return c
}

// counted is a payment that counts and does what the test says.
type counted struct {
	grpc_testing.UnimplementedTestServiceServer
	id     string
	delay  atomic.Int64 // of an answer
	broken atomic.Bool
	http   atomic.Int64
	grpc   atomic.Int64
	// places bounds how many answers are worked on at a time; nil does not. It is set
	// before the first call.
	places chan struct{}
}

// wait takes the time of an answer, unless nobody waits for it any more.
func (c *counted) wait(ctx context.Context) {
	if c.places != nil {
		select {
		case c.places <- struct{}{}:
			defer func() { <-c.places }()
		case <-ctx.Done():
			return
		}
	}
	select {
	case <-time.After(time.Duration(c.delay.Load())):
	case <-ctx.Done():
	}
}

func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.http.Add(1)
	c.wait(r.Context())
	if c.broken.Load() {
		w.WriteHeader(http.StatusInternalServerError)
	}
	_, _ = io.WriteString(w, c.id)
}

func (c *counted) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	c.grpc.Add(1)
	c.wait(ctx)
	if err := ctx.Err(); err != nil { // too late, even if the client does not know it yet
		return nil, status.FromContextError(err).Err()
	}
	if c.broken.Load() {
		return nil, status.Error(codes.Internal, "out of order")
	}
	return &grpc_testing.SimpleResponse{ServerId: c.id}, nil
}

// counting serves 10.0.0.1 and so on over both protocols. register adds to the gRPC
// servers; nil adds nothing.
func (g *ground) counting(n int, register func(number int, s *grpc.Server)) []*counted {
	g.t.Helper()
	payments := make([]*counted, n)
	for i := range payments {
		c := &counted{id: fmt.Sprint(i + 1)}
		payments[i] = c
		web, err := g.network.Listen(hostOf(i+1) + ":" + groundHTTP)
		if err != nil {
			g.t.Fatal(err)
		}
		rpc, err := g.network.Listen(hostOf(i+1) + ":" + groundGRPC)
		if err != nil {
			g.t.Fatal(err)
		}
		httpServer, grpcServer := &http.Server{Handler: c, Protocols: new(http.Protocols)}, grpc.NewServer()
		httpServer.Protocols.SetHTTP1(true)
		httpServer.Protocols.SetUnencryptedHTTP2(true)
		grpc_testing.RegisterTestServiceServer(grpcServer, c)
		if register != nil {
			register(i+1, grpcServer)
		}
		var serving sync.WaitGroup
		serving.Go(func() { _ = httpServer.Serve(web) })
		serving.Go(func() { _ = grpcServer.Serve(rpc) })
		g.t.Cleanup(func() {
			_ = httpServer.Close()
			grpcServer.Stop()
			serving.Wait()
		})
	}
	return payments
}

// both makes n calls over each protocol and returns which payments answered.
func (g *ground) both(n int) (http, grpc map[string]int) {
	g.t.Helper()
	http, grpc = make(map[string]int), make(map[string]int)
	for range n {
		for protocol, call := range map[string]func(context.Context) (string, error){"HTTP": g.callHTTP, "gRPC": g.callGRPC} {
			payment, err := call(g.t.Context())
			if err != nil {
				g.t.Fatalf("%s: %v", protocol, err)
			}
			if protocol == "HTTP" {
				http[payment]++
			} else {
				grpc[payment]++
			}
		}
	}
	return http, grpc
}

func keys(m map[string]int) []string { return slices.Sorted(maps.Keys(m)) }

func TestBL7_AClientHasAPartOfTheEndpoints(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fields  string
		options []mesh.Option
		want    int
	}{
		"by metadata": {fields: `"metadata": {"filterMetadata": {"inboard.subsetting": {"size": 2}}}`, want: 2},
		"by policy": {fields: `"loadBalancingPolicy": {"policies": [{"typedExtensionConfig": {"name": "s", "typedConfig": {
			"@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.random_subsetting.v3.RandomSubsetting", "subsetSize": 3,
			"childPolicy": {"policies": [{"typedExtensionConfig": {"name": "r", "typedConfig": {
				"@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin"}}}]}}}}]}`, want: 3},
		"as a numbered client": {
			fields:  `"metadata": {"filterMetadata": {"inboard.subsetting": {"size": 2}}}`,
			options: []mesh.Option{mesh.Balancing{ClientNumber: new(uint32(1))}}, want: 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := balancingGround(t, tt.fields, 8, tt.options...)
				g.counting(8, nil)
				http, grpc := g.both(40)
				if len(http) != tt.want || len(grpc) != tt.want {
					t.Errorf("calls over HTTP went to %v, over gRPC to %v, want %d of each", keys(http), keys(grpc), tt.want)
				}
			})
		})
	}
}

func TestPeakEWMALeavesTheSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := balancingGround(t, `"metadata": {"filterMetadata": {"inboard.balancer": {"policy": "inboard.peak_ewma"}}}`, 4)
		payments := g.counting(4, nil)
		for _, p := range payments {
			p.delay.Store(int64(10 * time.Millisecond))
		}
		payments[2].delay.Store(int64(time.Second))
		g.both(20) // they are learnt
		for _, p := range payments {
			p.http.Store(0)
			p.grpc.Store(0)
		}
		g.both(100)
		// Two are drawn for each call, and a slow one loses; an even share is 25.
		if http, grpc := payments[2].http.Load(), payments[2].grpc.Load(); http > 5 || grpc > 5 {
			t.Errorf("the slow payment got %d and %d of 100 calls", http, grpc)
		}
	})
}

// last is a policy of an application.
type last struct{ n int }

func (l last) Pick(balancer.PickInfo) int { return l.n - 1 }

func TestBL11_PoliciesOfTheApplicationByName(t *testing.T) {
	t.Parallel()
	own := mesh.Balancing{Policies: map[string]func([]*balancer.Host, map[string]any) balancer.Picker{
		"acme.last": func(hosts []*balancer.Host, config map[string]any) balancer.Picker {
			if config["skip"] == 1.0 {
				return last{len(hosts) - 1}
			}
			return last{len(hosts)}
		},
	}}
	for name, tt := range map[string]struct{ fields, want string }{
		"by metadata": {`"metadata": {"filterMetadata": {"inboard.balancer": {"policy": "acme.last"}}}`, "5"},
		"by type": {`"loadBalancingPolicy": {"policies": [{"typedExtensionConfig": {"name": "p", "typedConfig": {"@type": "type.googleapis.com/xds.type.v3.TypedStruct",
			"typeUrl": "type.googleapis.com/acme.last", "value": {"skip": 1}}}}]}`, "4"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := balancingGround(t, tt.fields, 5, own)
				g.counting(5, nil)
				http, grpc := g.both(10)
				if http[tt.want] != 10 || grpc[tt.want] != 10 {
					t.Errorf("calls over HTTP went to %v, over gRPC to %v, want all to %s", http, grpc, tt.want)
				}
			})
		})
	}
}

// The first of two clusters serves as long as it has enough that is healthy, then
// the second does.
func TestAggregatesFailOverToTheNextCluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &ground{t: t, network: newGroundNetwork()}
		g.plane = adstest.Serve(t, adstest.Config{Network: g.network})
		g.counting(4, nil)
		configure := func(health string) {
			var all []proto.Message
			for _, port := range []string{groundHTTP, groundGRPC} {
				near := assignment("near"+port, port, 1, 1, 2)
				for _, e := range near.GetEndpoints()[0].GetLbEndpoints() {
					proto.Merge(e, parsed(&endpointv3.LbEndpoint{}, `{"healthStatus": %q}`, health))
				}
				aggregate := parsed(&clusterv3.Cluster{}, `{"name": %q, "lbPolicy": "CLUSTER_PROVIDED", "clusterType": {"name": "envoy.clusters.aggregate", "typedConfig": {
					"@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig", "clusters": [%q, %q]}}}`, port, "near"+port, "far"+port)
				all = append(all, groundListener(port), groundRoutes(port, port), aggregate, groundCluster("near"+port), groundCluster("far"+port),
					near, assignment("far"+port, port, 1, 3, 4))
			}
			g.plane.Set(all...)
			synctest.Wait()
		}
		configure("HEALTHY")
		g.join(&bootstrap.Config{Servers: []bootstrap.Server{g.server("xds.test")}, Node: bootstrap.Node{ID: "customer-1"}})
		for _, step := range []struct{ health, want string }{{"HEALTHY", "[1 2]"}, {"UNHEALTHY", "[3 4]"}, {"HEALTHY", "[1 2]"}} {
			configure(step.health)
			http, grpc := g.both(20)
			if fmt.Sprint(keys(http)) != step.want || fmt.Sprint(keys(grpc)) != step.want {
				t.Errorf("near is %s: calls over HTTP went to %v, over gRPC to %v, want %s", step.health, keys(http), keys(grpc), step.want)
			}
		}
	})
}

// TestBL8_ReportsOutOfBand: endpoints tell their load on a stream, and not with their
// answers; that is the weight of calls over gRPC.
func TestBL8_ReportsOutOfBand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := balancingGround(t, `"loadBalancingPolicy": {"policies": [{"typedExtensionConfig": {"name": "w", "typedConfig": {
			"@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
			"enableOobLoadReport": true, "oobReportingPeriod": "1s"}}}]}`, 3)
		payments := g.counting(3, func(number int, s *grpc.Server) {
			metrics := orca.NewServerMetricsRecorder()
			metrics.SetQPS(100)
			metrics.SetApplicationUtilization([]float64{0.2, 0.4, 0.8}[number-1])
			if err := orca.Register(s, orca.ServiceOptions{ServerMetricsProvider: metrics, MinReportingInterval: time.Second}); err != nil {
				t.Fatal(err)
			}
		})
		share := func(n int) (shares [3]int64) {
			for _, p := range payments {
				p.grpc.Store(0)
			}
			for range n {
				if _, err := g.callGRPC(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			for i, p := range payments {
				shares[i] = p.grpc.Load()
			}
			return shares
		}
		if got := share(30); got != [3]int64{10, 10, 10} {
			t.Errorf("before the reports count, calls went %v, want evenly", got)
		}
		time.Sleep(15 * time.Second) // the blackout is 10 s
		// 4:2:1, S21's tolerance of a tenth.
		if got := share(700); got[0] < 360 || got[0] > 440 || got[1] < 180 || got[1] > 220 || got[2] < 90 || got[2] > 110 {
			t.Errorf("with reports, calls went %v, want 400, 200 and 100", got)
		}
	})
}

// TestBL9_AnEjectionThatEndsStartsNothing: in Envoy's source only joining and the
// success of an active health check set the time that slow start counts from
// (lastHcPassTime), and the end of an ejection does not.
func TestBL9_AnEjectionThatEndsStartsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := balancingGround(t, `"lbPolicy": "ROUND_ROBIN", "roundRobinLbConfig": {"slowStartConfig": {"slowStartWindow": "60s"}},
			"outlierDetection": {"interval": "1s", "baseEjectionTime": "10s", "maxEjectionPercent": 100, "consecutive5xx": 3}`, 2)
		payments := g.counting(2, nil)
		g.both(2)
		time.Sleep(2 * time.Minute) // nobody is new any more
		payments[0].broken.Store(true)
		for range 10 {
			_, _ = g.callHTTP(t.Context())
			_, _ = g.callGRPC(t.Context())
		}
		payments[0].broken.Store(false)
		http, grpc := g.both(10)
		if http["1"]+grpc["1"] != 0 {
			t.Errorf("the payment that was broken is not ejected: %v, %v", http, grpc)
		}
		time.Sleep(12 * time.Second)
		if http, grpc = g.both(20); http["1"] != 10 || grpc["1"] != 10 {
			t.Errorf("after the ejection calls went %v and %v, want evenly at once", http, grpc)
		}
	})
}

// TestBO9_ARemovedPolicyReturnsAllOverHTTPAndGRPC: who was ejected serves again at once
// when detection is taken out of the configuration, and stays ejected for as long as
// before when it changes.
func TestBO9_ARemovedPolicyReturnsAllOverHTTPAndGRPC(t *testing.T) {
	t.Parallel()
	const policy = `"lbPolicy": "ROUND_ROBIN", "outlierDetection": {"interval": "%s", "baseEjectionTime": "%s", "maxEjectionPercent": 50, "consecutive5xx": %d}`
	for name, tt := range map[string]struct {
		then string
		want time.Duration // until it is back
	}{
		"it is removed":           {`"lbPolicy": "ROUND_ROBIN"`, 0},
		"it ejects nobody":        {fmt.Sprintf(strings.ReplaceAll(policy, "50,", "0,"), "1s", "60s", 3), 0},
		"another threshold":       {fmt.Sprintf(policy, "1s", "60s", 100), 60 * time.Second},
		"another interval":        {fmt.Sprintf(policy, "20s", "60s", 3), 60 * time.Second},
		"a shorter ejection time": {fmt.Sprintf(policy, "1s", "10s", 3), 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := balancingGround(t, fmt.Sprintf(policy, "1s", "60s", 3), 2)
				payments := g.counting(2, nil)
				g.both(2)
				payments[0].broken.Store(true)
				for range 6 {
					_, _ = g.callHTTP(t.Context())
					_, _ = g.callGRPC(t.Context())
				}
				payments[0].broken.Store(false)
				begin := time.Now()
				if http, grpc := g.both(4); http["1"]+grpc["1"] != 0 {
					t.Errorf("it is not ejected: %v, %v", http, grpc)
				}
				for _, port := range []string{groundHTTP, groundGRPC} {
					g.plane.Set(balancedCluster(port, tt.then))
				}
				synctest.Wait()
				back := map[string]time.Duration{}
				for len(back) < 2 && time.Since(begin) < 2*time.Minute {
					http, grpc := g.both(2)
					for protocol, served := range map[string]map[string]int{"HTTP": http, "gRPC": grpc} {
						if _, ok := back[protocol]; !ok && served["1"] > 0 {
							back[protocol] = time.Since(begin)
						}
					}
					time.Sleep(500 * time.Millisecond)
				}
				for _, protocol := range []string{"HTTP", "gRPC"} {
					if took, ok := back[protocol]; !ok || took < tt.want || took > tt.want+2*time.Second {
						t.Errorf("%s: back after %v, want %v", protocol, back, tt.want)
					}
				}
			})
		})
	}
}
