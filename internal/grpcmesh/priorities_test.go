package grpcmesh_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
)

// How the primaries are reached.
const (
	up int32 = iota
	refusing
	silent
)

// primaries is two primaries, of which the first is reached as state says, and one
// secondary, chosen as gRPC does.
type primaries struct {
	state     atomic.Int32
	calls     *clients
	servers   []*both
	secondary *both
}

func newPrimaries(t *testing.T) *primaries {
	t.Helper()
	f, p := newFixture(t), &primaries{}
	first, second := block(1, 2), block(2, 1)
	for _, address := range first {
		p.servers = append(p.servers, f.serveBoth(address))
	}
	p.secondary = f.serveBoth(second[0])
	f.dial = func(ctx context.Context, kind, address string) (net.Conn, error) {
		if slices.Contains(first, address) {
			switch p.state.Load() {
			case refusing:
				return nil, errors.New("connection refused")
			case silent:
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}
		return f.network.DialContext(ctx, kind, address)
	}
	c := placed(balancer.Config{PanicThreshold: 50, Failover: &balancer.Failover{}},
		located(0, 1, "a", 1, first...), located(1, 1, "b", 1, second...)) // one of two is healthy
	c.Cluster.ConnectTimeout = 30 * time.Second
	f.configure(connecting(), c)
	p.calls = f.clients()
	return p
}

// share makes calls over each protocol, and says how many the secondary got and how
// long the slowest took.
func (p *primaries) share(t *testing.T, n int) (http, grpc int64, slowest time.Duration) {
	t.Helper()
	http, grpc = p.secondary.plain.Load(), p.secondary.calls.Load()
	for range n {
		for protocol, call := range map[string]func(context.Context) error{"HTTP": p.calls.callHTTP, "gRPC": p.calls.callGRPC} {
			begin := time.Now()
			if err := call(t.Context()); err != nil {
				t.Errorf("%s: %v", protocol, err)
			}
			slowest = max(slowest, time.Since(begin))
		}
	}
	return p.secondary.plain.Load() - http, p.secondary.calls.Load() - grpc, slowest
}

// TestBP5_FailoverAsInGRPC: no call spills over although half of the primaries are
// unhealthy; when what is left refuses, all calls go to the secondary, and come back
// with the first connection, for which no call waits.
func TestBP5_FailoverAsInGRPC(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPrimaries(t)
		p.state.Store(refusing)
		if http, grpc, slowest := p.share(t, 50); http != 50 || grpc != 50 || slowest > 2*time.Second {
			t.Errorf("the secondary got %d and %d of 50 calls, the slowest after %v", http, grpc, slowest)
		}
		time.Sleep(time.Minute) // every back-off is over, and connects fail
		if http, grpc, slowest := p.share(t, 50); http != 50 || grpc != 50 || slowest > 0 {
			t.Errorf("later, the secondary got %d and %d of 50 calls, the slowest after %v", http, grpc, slowest)
		}
		p.state.Store(up)
		time.Sleep(15 * time.Second) // the longest back-off
		if http, grpc, slowest := p.share(t, 50); http != 0 || grpc != 0 || slowest > 0 {
			t.Errorf("with connections again, the secondary got %d and %d of 50 calls, the slowest after %v", http, grpc, slowest)
		}
		if n := p.servers[1].plain.Load() + p.servers[1].calls.Load(); n != 0 {
			t.Errorf("the unhealthy primary got %d calls", n)
		}
	})
}

// TestBP5_SilentPrimariesCostTenSeconds: the connect timeout of 30 s is not waited
// for.
func TestBP5_SilentPrimariesCostTenSeconds(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"HTTP", "gRPC"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newPrimaries(t)
				p.state.Store(silent)
				call := p.calls.callHTTP
				if protocol == "gRPC" {
					call = p.calls.callGRPC
				}
				begin := time.Now()
				if err := call(t.Context()); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begin); took < 10*time.Second || took > 10*time.Second+10*time.Millisecond {
					t.Errorf("the first call took %v, want 10 s", took)
				}
				for range 5 {
					begin := time.Now()
					if err := call(t.Context()); err != nil {
						t.Fatal(err)
					}
					if took := time.Since(begin); took != 0 {
						t.Errorf("a call after that took %v", took)
					}
					time.Sleep(7 * time.Second) // connecting goes on meanwhile
				}
				p.state.Store(up)
				time.Sleep(25 * time.Second)
				before := p.servers[0].plain.Load() + p.servers[0].calls.Load()
				if err := call(t.Context()); err != nil {
					t.Fatal(err)
				}
				if p.servers[0].plain.Load()+p.servers[0].calls.Load() != before+1 {
					t.Error("the primary is back and gets no calls")
				}
			})
		})
	}
}
