package httpmesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/racing"
	"github.com/inboardmesh/inboard/retry"
)

// whatever is a world in which everything goes wrong that may, by chance.
type whatever struct {
	*world
	rand   func(n int) int
	bodies sync.Map // *tracked
	ended  atomic.Int64
}

// errWhatever is what a reader fails of.
var errWhatever = errors.New("whatever")

// serve answers in one of many ways.
func (w *whatever) answer(rw http.ResponseWriter, r *http.Request) {
	pause := func(most time.Duration) {
		select {
		case <-time.After(time.Duration(w.rand(int(most)))):
		case <-r.Context().Done():
		}
	}
	control := http.NewResponseController(rw)
	if w.rand(4) > 0 {
		_, _ = io.CopyN(io.Discard, r.Body, int64(w.rand(5000)))
	}
	if w.rand(4) == 0 {
		rw.WriteHeader(http.StatusEarlyHints)
		pause(20 * time.Millisecond)
	}
	pause(80 * time.Millisecond)
	switch w.rand(9) {
	case 0:
		panic(http.ErrAbortHandler)
	case 1:
		rw.WriteHeader(http.StatusUnauthorized)
	case 2, 3:
		rw.WriteHeader(http.StatusServiceUnavailable)
	case 4:
		_, _ = io.Copy(rw, r.Body)
	case 5: // a body that breaks off
		_, _ = rw.Write(make([]byte, 100))
		_ = control.Flush()
		pause(20 * time.Millisecond)
		panic(http.ErrAbortHandler)
	case 6: // a body that comes slowly, and trailers
		rw.Header().Set("Trailer", "X-Sum")
		for range 5 {
			_, _ = rw.Write(make([]byte, 1000))
			_ = control.Flush()
			pause(10 * time.Millisecond)
		}
		rw.Header().Set("X-Sum", "1")
	case 7: // net/http's server learns that nobody waits only when it has the body
		_, _ = io.Copy(io.Discard, r.Body)
		pause(time.Minute)
	case 8:
		rw.Header().Set("Connection", "close")
	}
}

// request is one of many.
func (w *whatever) request(ctx context.Context, t *testing.T) *http.Request {
	t.Helper()
	method := []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodHead}[w.rand(4)]
	content := make([]byte, w.rand(3)*w.rand(80_000))
	reader := func() io.Reader {
		switch r := io.Reader(bytes.NewReader(content)); w.rand(4) {
		case 0:
			return r
		case 1:
			return &pieces{Reader: r, most: len(content)/3 + 1, pause: 10 * time.Millisecond}
		case 2:
			return io.MultiReader(io.LimitReader(r, int64(len(content)/2)), &pieces{Reader: r, most: len(content) + 1, pause: 30 * time.Millisecond})
		default:
			return io.MultiReader(io.LimitReader(r, int64(len(content)/2)), failingReader{})
		}
	}
	if w.rand(3) == 0 {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error {
			if w.rand(5) == 0 {
				return errWhatever
			}
			return nil
		}})
	}
	if w.rand(3) == 0 {
		return newRequest(ctx, t, method, paymentURL, nil)
	}
	open := func() io.ReadCloser {
		body := &tracked{Reader: reader()}
		w.bodies.Store(body, true)
		return body
	}
	req := newRequest(ctx, t, method, paymentURL, open())
	req.Header.Set("Idempotency-Key", "7")
	if w.rand(2) == 0 {
		req.ContentLength = int64(len(content))
	}
	switch w.rand(4) {
	case 0:
	case 1:
		req.GetBody = func() (io.ReadCloser, error) {
			if w.rand(3) == 0 {
				panic(errWhatever)
			}
			return open(), nil
		}
	default:
		req.GetBody = func() (io.ReadCloser, error) {
			if w.rand(10) == 0 {
				return nil, errWhatever
			}
			return open(), nil
		}
	}
	if w.rand(4) == 0 {
		req.Trailer = http.Header{"X-Sum": nil}
	}
	return req
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errWhatever }

// call makes a call and does something with what it gets.
func (w *whatever) call(t *testing.T) {
	t.Helper()
	defer w.ended.Add(1)
	defer func() {
		if r := recover(); r != nil && r != any(errWhatever) {
			panic(r)
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if w.rand(3) == 0 {
		defer time.AfterFunc(time.Duration(w.rand(int(150*time.Millisecond))), cancel).Stop()
	}
	resp, err := w.transport.RoundTrip(w.request(ctx, t))
	if (resp == nil) != (err != nil) {
		t.Errorf("got %v and %v", resp, err)
	}
	if resp == nil {
		return
	}
	switch w.rand(4) {
	case 0:
	case 1:
		_, _ = io.CopyN(io.Discard, resp.Body, int64(w.rand(200)))
	case 2:
		closing := time.AfterFunc(time.Duration(w.rand(int(50*time.Millisecond))), func() { _ = resp.Body.Close() })
		_, _ = io.Copy(io.Discard, resp.Body)
		closing.Stop()
	default:
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	_ = resp.Body.Close()
}

// Whatever goes wrong, with retries, hedges, mirrors and limits on time, at the caller,
// at the servers or on the network: calls end, their bodies are closed, and nothing
// stays counted or goes on.
func TestNothingIsLeftOfACallWhateverGoesWrong(t *testing.T) {
	t.Parallel()
	rounds := 3
	if racing.Enabled {
		rounds = 1
	}
	for name, hedge := range map[string]*retry.Hedge{"no hedges": nil, "hedges": {Delay: 15 * time.Millisecond}, "hedges on the per-try timeout": {OnPerTryTimeout: true}} {
		for round := range rounds {
			t.Run(fmt.Sprintf("%s, %d", name, round), func(t *testing.T) {
				t.Parallel()
				onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
					w := &whatever{}
					var mu sync.Mutex
					seed := rand.Uint64()
					source := rand.New(rand.NewPCG(seed, 0))
					t.Logf("seed %d", seed)
					w.rand = func(n int) int {
						mu.Lock()
						defer mu.Unlock()
						return source.IntN(max(n, 1))
					}
					w.world = newWorld(t, newTarget(protocol, limited(200*time.Millisecond), secondCluster(0), retrying(retry.Policy{
						MaxRetries: 3, On: retry.On5xx | retry.OnReset, PerTryTimeout: 60 * time.Millisecond, AvoidPreviousHosts: true,
					}), func(target *discovery.Target) {
						top(target).Forward.Hedge = hedge
						top(target).Forward.Mirrors = []discovery.Mirror{{Cluster: "v2", PerMillion: 500_000}}
						v1 := target.Clusters["v1"]
						v1.Cluster.RetryBudget[0] = &retry.Budget{Percent: 50, MinConcurrency: 3}
						v1.Cluster.RetryThrottle = &retry.ThrottleSettings{MaxTokens: 1000, TokenRatio: 1}
						for _, address := range []string{"10.0.0.3:80", "10.0.0.4:80"} { // nobody is at the last
							v1.Endpoints.Localities[0].Endpoints = append(v1.Endpoints.Localities[0].Endpoints, balancer.Endpoint{Address: address, Health: balancer.Healthy})
						}
					}), w.answer)
					w.serve("10.0.0.3:80", w.answer)
					w.serve(otherAddress, w.answer)
					w.dialed = func(conn net.Conn) net.Conn {
						if w.rand(5) > 0 {
							return conn
						}
						cut := &cutConn{Conn: conn}
						cut.left.Store(int64(w.rand(20_000)))
						return cut
					}
					const callers, each = 20, 8
					var wg sync.WaitGroup
					for range callers {
						wg.Go(func() {
							for range each {
								w.call(t)
							}
						})
					}
					wg.Wait()
					time.Sleep(time.Hour) // what nobody waits for ends by itself
					w.idle()
					w.mu.Lock()
					if len(w.calls) != callers*each {
						t.Errorf("%d calls ended, of %d", len(w.calls), callers*each)
					}
					w.mu.Unlock()
					w.bodies.Range(func(body, _ any) bool {
						if body.(*tracked).closed.Load() == 0 {
							t.Error("a body was not closed")
						}
						return true
					})
				})
			})
		}
	}
}
