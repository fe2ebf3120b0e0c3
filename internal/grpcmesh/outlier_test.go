package grpcmesh_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

// replicas are five backends of which the first fails on demand.
type replicas struct {
	backends []*backend
	failing  atomic.Bool
}

func newReplicas(f *fixture) (*replicas, []string) {
	r := new(replicas)
	var addresses []string
	for i := range 5 {
		b := &backend{name: fmt.Sprint("b", i)}
		if i == 0 {
			b.before = func(context.Context, int64) error {
				if r.failing.Load() {
					return status.Error(codes.Unavailable, "out of order")
				}
				return nil
			}
		}
		address := fmt.Sprintf("10.0.0.%d:9090", i+1)
		f.serve(address, b)
		r.backends = append(r.backends, b)
		addresses = append(addresses, address)
	}
	return r, addresses
}

func detecting(config balancer.OutlierConfig, addresses ...string) discovery.ClusterResult {
	c := cluster("main", addresses...)
	c.Cluster.Outlier = &config
	return c
}

// load makes 100 calls in a second, evenly, for some time. It returns how many
// failed.
func load(client grpc_testing.TestServiceClient, d time.Duration) (failed int) {
	return loadEvery(client, d, 10*time.Millisecond)
}

func loadEvery(client grpc_testing.TestServiceClient, d, pause time.Duration) (failed int) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(pause) {
		if _, err := client.EmptyCall(context.Background(), &grpc_testing.Empty{}); err != nil {
			failed++
		}
	}
	return failed
}

func TestBO10_AFailingReplicaGetsNothingUntilItRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		r, addresses := newReplicas(f)
		config := balancer.OutlierConfig{
			Interval: 2 * time.Second, BaseEjectionTime: 3 * time.Second, MaxEjectionTime: 3 * time.Second, MaxEjectionPercent: 10,
			FailurePercentage: balancer.FailurePercentage{Threshold: 85, MinimumHosts: 5, RequestVolume: 20, Enforcing: 100},
		}
		f.configure(forward("main"), detecting(config, addresses...))
		client := f.client()
		if failed := load(client, 4*time.Second); failed != 0 {
			t.Fatalf("%d calls failed while all were well", failed)
		}
		r.failing.Store(true)
		load(client, 4*time.Second) // a whole interval of failures, and a sweep
		before := r.backends[0].calls.Load()
		if failed := load(client, time.Second); failed != 0 {
			t.Errorf("%d calls failed after the ejection", failed)
		}
		if got := r.backends[0].calls.Load() - before; got != 0 {
			t.Errorf("the ejected replica got %d calls", got)
		}
		r.failing.Store(false)
		load(client, 5*time.Second)
		before = r.backends[0].calls.Load()
		if failed := load(client, 5*time.Second); failed != 0 {
			t.Errorf("%d calls failed after the recovery", failed)
		}
		if got := r.backends[0].calls.Load() - before; got < 90 || got > 110 {
			t.Errorf("the recovered replica got %d of 500 calls, want a fifth", got)
		}
	})
}

func TestG8_EachEjectionCostsAFewFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const callers = 8
		f := newFixture(t)
		r, addresses := newReplicas(f)
		config := balancer.DefaultOutlierConfig()
		config.SuccessRate.Enforcing = 0
		config.Interval, config.BaseEjectionTime = 2*time.Second, 5*time.Second
		var mu sync.Mutex
		var log []time.Duration // when the failing replica got calls
		start := time.Now()
		fail := r.backends[0].before
		r.backends[0].before = func(ctx context.Context, n int64) error {
			mu.Lock()
			defer mu.Unlock()
			log = append(log, time.Since(start))
			return fail(ctx, n)
		}
		r.failing.Store(true)
		f.configure(forward("main"), detecting(config, addresses...))
		client := f.client()
		together(callers, func(int) { loadEvery(client, 2*time.Minute, 100*time.Millisecond) })

		// Bursts of calls with ejections in between.
		burst, began, last := 0, time.Duration(0), time.Duration(0)
		var gaps []time.Duration
		for i, at := range log {
			if i > 0 && at-last > time.Second {
				gaps = append(gaps, at-last)
				burst, began = 0, at
			}
			burst++
			last = at
			if burst > 5+callers {
				t.Fatalf("burst at %v: more than %d failures", began, 5+callers)
			}
		}
		if len(gaps) < 3 {
			t.Fatalf("ejected %d times in 2 minutes", len(gaps))
		}
		want := time.Duration(0)
		for i, gap := range gaps {
			want = min(want+config.BaseEjectionTime, config.MaxEjectionTime)
			if gap < want-time.Second || gap > want+config.Interval+time.Second {
				t.Errorf("ejection %d lasted %v, want %v and up to an interval of %v", i+1, gap, want, config.Interval)
			}
		}
	})
}

func TestBO2_AnEndpointThatCannotBeConnectedToIsEjected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		config := balancer.DefaultOutlierConfig()
		config.SplitLocalOrigin, config.ConsecutiveLocal.Threshold = true, 2
		f.serve("10.0.0.1:9090", &backend{})
		// Nobody listens at the second.
		f.configure(forward("main"), detecting(config, "10.0.0.1:9090", "10.0.0.2:9090"))
		client := f.client()
		if failed := load(client, 5*time.Second); failed != 0 {
			t.Errorf("%d calls failed although one endpoint serves", failed)
		}
		if got := f.ejected(); len(got) != 1 || got[0] != "10.0.0.2:9090" {
			t.Errorf("ejected: %q, want the endpoint that cannot be connected to", got)
		}
	})
}

// gRPC gives up a silent endpoint after a minute, long after the cluster's connect
// timeout. That is not another failure.
func TestBO2_AConnectionThatCannotBeMadeCountsOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address != "10.0.0.2:9090" {
				return f.network.DialContext(ctx, network, address)
			}
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		f.serve("10.0.0.1:9090", &backend{})
		config := balancer.DefaultOutlierConfig()
		config.SplitLocalOrigin, config.ConsecutiveLocal.Threshold = true, 2
		config.Interval = time.Hour
		silent := detecting(config, "10.0.0.1:9090", "10.0.0.2:9090")
		silent.Cluster.ConnectTimeout = time.Second
		f.configure(forward("main"), silent)
		client := f.client()
		if failed := loadEvery(client, time.Minute+100*time.Millisecond, 100*time.Millisecond); failed != 0 {
			t.Errorf("%d calls failed although one endpoint serves", failed)
		}
		if got := f.ejected(); got != nil {
			t.Errorf("ejected %q after one connection that could not be made", got)
		}
		load(client, 5*time.Second)
		if got := f.ejected(); len(got) != 1 || got[0] != "10.0.0.2:9090" {
			t.Errorf("ejected: %q, want the endpoint that is silent", got)
		}
	})
}

func TestCanceledCallsAreNobodysFault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		config := balancer.DefaultOutlierConfig()
		config.Consecutive5xx.Threshold = 1
		for _, address := range []string{"10.0.0.1:9090", "10.0.0.2:9090"} {
			f.serve(address, &backend{before: func(ctx context.Context, _ int64) error {
				<-ctx.Done()
				return ctx.Err()
			}})
		}
		f.configure(forward("main"), detecting(config, "10.0.0.1:9090", "10.0.0.2:9090"))
		client := f.client()
		together(10, func(int) {
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(time.Second, cancel)
			if _, err := client.EmptyCall(ctx, &grpc_testing.Empty{}); status.Code(err) != codes.Canceled {
				t.Errorf("call: %v", err)
			}
			stream, err := client.FullDuplexCall(ctx)
			if err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != codes.Canceled && !errors.Is(err, context.Canceled) {
				t.Errorf("stream: %v", err)
			}
		})
		if got := f.ejected(); got != nil {
			t.Errorf("ejected: %q", got)
		}
	})
}

func TestMessagesThatCannotBeSentAreNobodysFault(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		request *grpc_testing.SimpleRequest
		code    codes.Code
		text    string
	}{
		{
			"no UTF-8", &grpc_testing.SimpleRequest{ResponseStatus: &grpc_testing.EchoStatus{Message: "\xff"}},
			codes.Internal, "error while marshaling",
		},
		{
			"too large", &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: make([]byte, 2000)}},
			codes.ResourceExhausted, "larger than max",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				config := balancer.DefaultOutlierConfig()
				config.Consecutive5xx.Threshold, config.MaxEjectionPercent = 1, 100
				b := &backend{}
				f.serve("10.0.0.1:9090", b)
				f.configure(forward("main"), detecting(config, "10.0.0.1:9090"))
				client := f.client(grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(1000)))
				_, err := client.UnaryCall(withTimeout(t), tt.request)
				if status.Code(err) != tt.code || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("call: %v, want %v with %q", err, tt.code, tt.text)
				}
				if got := f.ejected(); got != nil {
					t.Errorf("ejected: %q", got)
				}
				// The same words of a server are its own.
				b.before = func(context.Context, int64) error {
					return status.Error(codes.Internal, "grpc: error while marshaling: a reply")
				}
				if _, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{}); status.Code(err) != codes.Internal {
					t.Errorf("call: %v", err)
				}
				if got := f.ejected(); len(got) != 1 {
					t.Errorf("ejected: %q, want the endpoint", got)
				}
			})
		})
	}
}

// ejected returns the endpoints of the target that are ejected.
func (f *fixture) ejected() []string {
	var addresses []string
	config, _ := f.outbound.Target(target).Watch()
	for _, cluster := range config.Clusters {
		for endpoint := range cluster.Endpoints {
			if _, ok := endpoint.Host().Ejected(); ok {
				addresses = append(addresses, endpoint.Address())
			}
		}
	}
	return addresses
}
