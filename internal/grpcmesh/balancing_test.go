package grpcmesh_test

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	orcav3 "github.com/cncf/xds/go/xds/data/orca/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/racing"
)

// balanced starts n backends and a cluster of them that balances as config says.
func balanced(f *fixture, n int, config balancer.Config) ([]*backend, discovery.ClusterResult) {
	backends := make([]*backend, n)
	addresses := make([]string, n)
	for i := range backends {
		backends[i], addresses[i] = &backend{name: fmt.Sprint("b", i)}, fmt.Sprintf("10.0.1.%d:9090", i+1)
		f.serve(addresses[i], backends[i])
	}
	c := cluster("main", addresses...)
	c.Cluster.Balancer = config
	return backends, c
}

func emptyCalls(t *testing.T, client grpc_testing.TestServiceClient, n int, pause time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for range n {
		if _, err := client.EmptyCall(ctx, &grpc_testing.Empty{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pause)
	}
}

func TestS14_RoundRobin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		backends, c := balanced(f, 2, balancer.Config{})
		f.configure(forward("main"), c)
		client := f.client()
		for i := range int64(100) {
			emptyCalls(t, client, 1, 0)
			if n := backends[0].calls.Load(); max(2*n-i-1, i+1-2*n) > 1 {
				t.Fatalf("the first of two got %d of %d calls, want them in turns", n, i+1)
			}
		}
	})
}

// One of five backends takes ten times as long. With calls every 10 ms, a backend
// that is avoided while it is busy gets at most a few.
func TestS16_LeastRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		backends, c := balanced(f, 5, balancer.Config{Policy: balancer.LeastRequest})
		for i, b := range backends {
			took := 40 * time.Millisecond
			if i == 0 {
				took *= 10
			}
			b.before = func(context.Context, int64) error { time.Sleep(took); return nil }
		}
		f.configure(forward("main"), c)
		client := f.client()
		const calls = 1_000
		done := make(chan error, calls)
		for range calls {
			go func() {
				_, err := client.EmptyCall(t.Context(), &grpc_testing.Empty{})
				done <- err
			}()
			time.Sleep(10 * time.Millisecond)
		}
		for range calls {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		n := backends[0].calls.Load()
		t.Logf("the slow backend got %d of %d calls", n, calls)
		if n >= calls*8/100 {
			t.Errorf("the slow backend got %d of %d calls, want less than 8 %%", n, calls)
		}
	})
}

// Ten backends; one leaves and comes back. Each has one point on the ring, so that
// nothing but its own keys moves.
func TestS17_S18_KeysStay(t *testing.T) {
	t.Parallel()
	for _, config := range []balancer.Config{{Policy: balancer.RingHash, MinRingSize: 9}, {Policy: balancer.Maglev}} {
		t.Run(fmt.Sprint(config.Policy), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				backends, c := balanced(f, 10, config)
				route := forward("main")
				route.Forward.Hash = []discovery.HashPolicy{{Header: "x-user"}}
				f.configure(route, c)
				client := f.client()
				keys := 10_000
				if racing.Enabled { // which is ten times slower
					keys = 1000
				}
				var last atomic.Int64 // who served
				for i, b := range backends {
					b.before = func(context.Context, int64) error { last.Store(int64(i)); return nil }
				}
				where := func() []int64 {
					m := make([]int64, keys)
					for i := range m {
						ctx := metadata.AppendToOutgoingContext(t.Context(), "x-user", strconv.Itoa(i))
						if _, err := client.EmptyCall(ctx, &grpc_testing.Empty{}); err != nil {
							t.Fatal(err)
						}
						m[i] = last.Load()
					}
					return m
				}
				first := where()
				if config.Policy == balancer.Maglev {
					// S18: 5 % of its share, and what so many keys scatter (four deviations).
					share := float64(keys) / 10
					for i, b := range backends {
						if got := float64(b.calls.Load()); math.Abs(got-share) > share*0.05+4*math.Sqrt(share*0.9) {
							t.Errorf("backend %d has %v of %d keys", i, got, keys)
						}
					}
				}
				without := c
				without.Endpoints = &discovery.Assignment{Name: "main", Localities: []discovery.LocalityEndpoints{
					{Weight: 1, Endpoints: c.Endpoints.Localities[0].Endpoints[1:]},
				}}
				f.configure(route, without)
				synctest.Wait()
				moved, gone := 0, 0
				for i, j := range where() {
					switch {
					case first[i] == 0:
						gone++
					case j != first[i]:
						moved++
					}
				}
				t.Logf("of %d keys, %d had to move and %d others did", keys, gone, moved)
				if limit := map[balancer.Policy]int{balancer.RingHash: (keys - gone) / 200, balancer.Maglev: gone}[config.Policy]; moved > limit {
					t.Errorf("%d keys moved without need, want at most %d", moved, limit)
				}
				f.configure(route, c)
				synctest.Wait()
				for i, j := range where() {
					if j != first[i] {
						t.Fatalf("key %d is at %d after the return, was at %d", i, j, first[i])
					}
				}
			})
		})
	}
}

// The third backend is new. In each second of ten it gets more, from a tenth of a
// usual share on.
func TestS20_SlowStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		backends, c := balanced(f, 3, balancer.Config{SlowStart: balancer.SlowStart{Window: 10 * time.Second, MinWeightPercent: 10}})
		two := c
		two.Endpoints = &discovery.Assignment{Name: "main", Localities: []discovery.LocalityEndpoints{
			{Weight: 1, Endpoints: c.Endpoints.Localities[0].Endpoints[:2]},
		}}
		f.configure(forward("main"), two)
		client := f.client()
		emptyCalls(t, client, 10, 6*time.Second)
		f.configure(forward("main"), c)
		synctest.Wait()
		const second = 1000
		for i := range 10 {
			before := backends[2].calls.Load()
			emptyCalls(t, client, second, time.Second/second)
			got := float64(backends[2].calls.Load()-before) / second
			// The factor at the middle of the second, or 0.1 in the first one.
			factor := math.Max(0.1, (float64(i)+0.5)/10)
			want := factor / (2 + factor)
			if tolerance := 5 * math.Sqrt(want*(1-want)/second); math.Abs(got-want) > tolerance {
				t.Errorf("second %d: share %.3f, want %.3f within %.3f", i, got, want, tolerance)
			}
		}
	})
}

// Three backends report utilizations of 0.2, 0.4 and 0.8 in their trailers.
func TestS21_ClientSideWeights(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		backends, c := balanced(f, 3, balancer.Config{
			Policy: balancer.ClientWeighted, ClientWeighted: balancer.ClientWeightedConfig{ErrorPenalty: 1},
		})
		for i, utilization := range []float64{0.2, 0.4, 0.8} {
			report, err := proto.Marshal(&orcav3.OrcaLoadReport{RpsFractional: 100, CpuUtilization: utilization})
			if err != nil {
				t.Fatal(err)
			}
			backends[i].before = func(ctx context.Context, _ int64) error {
				return grpc.SetTrailer(ctx, metadata.Pairs("endpoint-load-metrics-bin", string(report)))
			}
		}
		f.configure(forward("main"), c)
		client := f.client()
		counts := func() (got [3]int64) {
			for i, b := range backends {
				got[i] = b.calls.Load()
			}
			return got
		}
		emptyCalls(t, client, 90, 100*time.Millisecond)
		if got := counts(); got[0] != 30 || got[1] != 30 {
			t.Errorf("in the blackout: %v, want equal shares", got)
		}
		emptyCalls(t, client, 30, 100*time.Millisecond)
		before := counts()
		emptyCalls(t, client, 700, 10*time.Millisecond)
		for i, want := range []float64{400, 200, 100} {
			if got := float64(counts()[i] - before[i]); math.Abs(got-want) > want/10 {
				t.Errorf("backend %d got %v of 700 calls, want %v ± 10 %%", i, got, want)
			}
		}
	})
}
