package grpcmesh_test

import (
	"bytes"
	"context"
	"math"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

// hop is what a server of a chain has seen of its caller's time.
type hop struct{ left, canceled time.Duration }

// chain is three servers, each of which calls the next; the last one hangs.
func chainOfThree(t *testing.T, timeout time.Duration, call func(ctx context.Context, first grpc_testing.TestServiceClient) error) (hops [3]hop, err error) {
	t.Helper()
	f := newFixture(t)
	names := []string{"a.shop:9090", "b.shop:9090", "c.shop:9090"}
	addresses := []string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"}
	var mu sync.Mutex
	begin := time.Now()
	for i, name := range names {
		r := forward("main")
		r.Forward.Timeout = timeout
		f.source.setTarget(name, &discovery.Target{
			Name: name, Listener: &discovery.APIListener{Name: name},
			Routes: &discovery.RouteTable{Name: name, VirtualHosts: []*discovery.VirtualHost{
				{Name: name, Domains: []string{"*"}, Routes: []*discovery.Route{r}},
			}},
			Clusters: clustersByName([]discovery.ClusterResult{cluster("main", addresses[i])}),
		})
		next := func(ctx context.Context) error { return hang(ctx, 1) }
		if i+1 < len(names) {
			client := grpc_testing.NewTestServiceClient(f.channelTo("mesh:///" + names[i+1]))
			next = func(ctx context.Context) error { return callUnary(ctx, client) }
		}
		f.serve(addresses[i], &backend{before: func(ctx context.Context, _ int64) error {
			deadline, ok := ctx.Deadline()
			if !ok {
				t.Errorf("hop %d has no deadline", i+1)
			}
			mu.Lock()
			hops[i].left = deadline.Sub(begin)
			mu.Unlock()
			err := next(ctx)
			<-ctx.Done()
			mu.Lock()
			hops[i].canceled = time.Since(begin)
			mu.Unlock()
			return err
		}})
	}
	err = call(t.Context(), grpc_testing.NewTestServiceClient(f.channelTo("mesh:///"+names[0])))
	synctest.Wait()
	time.Sleep(50 * time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	return hops, err
}

// The caller's deadline is that of every hop, to 10 ms, and no hop has more time
// than its caller; a cancellation is everywhere at once.
func TestG18_DeadlinesAndCancellationsOverThreeHops(t *testing.T) {
	t.Parallel()
	const second = time.Second
	tests := map[string]struct {
		route time.Duration
		bound func(context.Context) (context.Context, context.CancelFunc)
		code  codes.Code
	}{
		"the application's deadline": {30 * second, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, second)
		}, codes.DeadlineExceeded},
		"the first route's timeout": {second, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 30*second)
		}, codes.DeadlineExceeded},
		"a cancellation": {30 * second, func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(second, cancel)
			return ctx, cancel
		}, codes.Canceled},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				hops, err := chainOfThree(t, tt.route, func(ctx context.Context, first grpc_testing.TestServiceClient) error {
					ctx, cancel := tt.bound(ctx)
					defer cancel()
					err := callUnary(ctx, first)
					if took := time.Since(begin); took < second || took > second+10*time.Millisecond {
						t.Errorf("the call took %v", took)
					}
					return err
				})
				if status.Code(err) != tt.code {
					t.Errorf("got %v, want %v", err, tt.code)
				}
				limit := min(tt.route, 30*second)
				if name == "the application's deadline" {
					limit = second
				}
				for i, h := range hops {
					if h.left > limit+10*time.Millisecond || h.left < limit-10*time.Millisecond {
						t.Errorf("hop %d has %v, want %v", i+1, h.left, limit)
					}
					if h.canceled < second-10*time.Millisecond || h.canceled > second+10*time.Millisecond {
						t.Errorf("hop %d learned of the end after %v", i+1, h.canceled)
					}
				}
			})
		})
	}
}

// As in the PSM interop test "timeout": the route's 3 s and a server that takes
// 4 s; an application that gives less time wins.
func TestBT9_TheShorterOfTheRoutesAndTheApplicationsTimeout(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		for name, want := range map[string]time.Duration{"the route's": 3 * time.Second, "the application's": time.Second} {
			t.Run(kind.name+", "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					var ended time.Duration
					begin := time.Now()
					f.serve("10.0.0.1:80", &backend{before: func(ctx context.Context, _ int64) error {
						select {
						case <-time.After(4 * time.Second):
							return nil
						case <-ctx.Done():
							ended = time.Since(begin)
							return ctx.Err()
						}
					}})
					r := forward("main")
					r.Forward.MaxStreamDuration = new(3 * time.Second)
					f.configure(r, cluster("main", "10.0.0.1:80"))
					ctx := t.Context()
					if name == "the application's" {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, time.Second)
						defer cancel()
					}
					err := kind.call(ctx, f.client())
					if took := time.Since(begin); status.Code(err) != codes.DeadlineExceeded || took != want {
						t.Errorf("%v after %v, want %v", err, took, want)
					}
					synctest.Wait()
					// BT10: the stream is reset, so that the server stops.
					if ended < want-10*time.Millisecond || ended > want+10*time.Millisecond {
						t.Errorf("the server learned of it after %v", ended)
					}
					f.checkNothingCounted()
				})
			})
		}
	}
}

// BT8: what is no timeout is refused before the application, and never taken for
// one without an end.
func TestBT8_ATimeoutThatIsNoneIsRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		value string
		left  time.Duration // 0 is refused
	}{
		{"1S", time.Second},
		{"250m", 250 * time.Millisecond},
		{"99999999n", 99999999 * time.Nanosecond},
		{"99999999H", math.MaxInt64}, // more than a duration has room for
		{"100000000n", 0},            // nine digits
		{"", 0},
		{"-1S", 0},
		{"1x", 0},
		{"S", 0},
		{"1", 0},
		{" 1S", 0},
		{"1.5S", 0},
	}
	for _, tt := range tests {
		t.Run(tt.value, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				var left time.Duration
				b := &backend{before: func(ctx context.Context, _ int64) error {
					deadline, _ := ctx.Deadline()
					left = time.Until(deadline)
					return nil
				}}
				f.serve("10.0.0.1:80", b)
				protocols := new(http.Protocols)
				protocols.SetUnencryptedHTTP2(true)
				client := &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
					return f.network.DialContext(ctx, network, "10.0.0.1:80")
				}}
				defer client.CloseIdleConnections()
				req, err := http.NewRequestWithContext(withTimeout(t), http.MethodPost, "http://10.0.0.1/grpc.testing.TestService/EmptyCall", bytes.NewReader(make([]byte, 5)))
				if err != nil {
					t.Fatal(err)
				}
				req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Grpc-Timeout": {tt.value}}
				resp, err := client.RoundTrip(req)
				if err == nil {
					_ = resp.Body.Close()
				}
				synctest.Wait()
				if tt.left == 0 {
					if b.calls.Load() != 0 {
						t.Errorf("the application was called, with %v", left)
					}
					return
				}
				if b.calls.Load() != 1 || left > tt.left || left < tt.left-10*time.Millisecond {
					t.Errorf("%d calls with %v left, want %v", b.calls.Load(), left, tt.left)
				}
			})
		})
	}
}

// BR18: what a route does to a request it does to each attempt, once.
func TestBR18_EachAttemptHasTheRoutesHeadersOnce(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				var mu sync.Mutex
				var seen [][]string
				f.serve("10.0.0.1:80", &backend{before: func(ctx context.Context, n int64) error {
					mu.Lock()
					seen = append(seen, slices.Concat(incoming(ctx, "x-route"), incoming(ctx, ":authority"), incoming(ctx, "grpc-previous-rpc-attempts")))
					mu.Unlock()
					return failFirst(2, codes.Unavailable)(ctx, n)
				}})
				r := retrying(2, retry.OnGRPCUnavailable)
				r.Forward.HostRewrite = "v2.shop"
				r.Headers.RequestAdd = []discovery.HeaderValue{{Name: "x-route", Value: "1"}}
				f.configure(r, cluster("main", "10.0.0.1:80"))
				if err := kind.call(withTimeout(t), f.client()); err != nil {
					t.Fatal(err)
				}
				want := [][]string{{"1", "v2.shop"}, {"1", "v2.shop", "1"}, {"1", "v2.shop", "2"}}
				if !slices.EqualFunc(seen, want, slices.Equal[[]string]) {
					t.Errorf("the attempts had %q, want %q", seen, want)
				}
			})
		})
	}
}
