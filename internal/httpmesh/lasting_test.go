package httpmesh

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// A response that its caller neither reads to its end nor closes holds permits and a
// connection. They are given back when its time is over, as by net/http.
func TestAResponseThatNobodyClosesEndsWithItsCall(t *testing.T) {
	t.Parallel()
	type bounds struct {
		ctx    context.Context
		cancel context.CancelFunc
	}
	within := func(ctx context.Context, limit time.Duration) bounds {
		ctx, cancel := context.WithTimeout(ctx, limit)
		return bounds{ctx, cancel}
	}
	const limit = time.Second
	for _, tt := range []struct {
		name  string
		route time.Duration
		bound func(ctx context.Context) bounds
		// cancels is whether the caller cancels the context as soon as it has the
		// response.
		cancels bool
		kind    outcome.Kind
	}{
		{"the caller cancels at once", 0, func(ctx context.Context) bounds { return within(ctx, time.Hour) }, true, outcome.Canceled},
		{"the caller's deadline", 0, func(ctx context.Context) bounds { return within(ctx, limit) }, false, outcome.Timeout},
		{"the route's timeout", limit, func(ctx context.Context) bounds { return within(ctx, time.Hour) }, false, outcome.Timeout},
		{"the route's timeout, and no context that ends", limit, func(context.Context) bounds {
			return bounds{context.Background(), func() {}}
		}, false, outcome.Timeout},
		{"the call's own timeout", 0, func(ctx context.Context) bounds {
			return within(pipeline.WithOptions(ctx, pipeline.CallOptions{Timeout: limit}), time.Hour)
		}, false, outcome.Timeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				target := newTarget(protocol, limited(tt.route))
				target.Clusters["v1"].Cluster.Limits[0].MaxRequests = 1
				w := newWorld(t, target, func(rw http.ResponseWriter, r *http.Request) {
					_, _ = io.WriteString(rw, "a part")
					_ = http.NewResponseController(rw).Flush()
					if r.URL.Path != "/short" {
						<-r.Context().Done()
					}
				})
				b := tt.bound(t.Context())
				defer b.cancel()
				resp := w.do(newRequest(b.ctx, t, http.MethodGet, paymentURL, http.NoBody))
				if tt.cancels {
					b.cancel()
				} else {
					time.Sleep(limit - time.Millisecond)
					synctest.Wait()
					if n := w.ended(); n != 0 {
						t.Error("the call ended before its time")
					}
				}
				time.Sleep(limit)
				synctest.Wait()
				w.idle()
				if o := w.lastCall().Outcome; o.Kind != tt.kind {
					t.Errorf("it ended as %v (%v), want %v", o.Kind, o.Err, tt.kind)
				}
				if got := readAll(t, w.do(newRequest(t.Context(), t, http.MethodGet, "http://payment.shop/short", http.NoBody))); got != "a part" {
					t.Errorf("the next call got %q", got)
				}
				_, err := io.ReadAll(resp.Body)
				if want := map[outcome.Kind]error{outcome.Canceled: context.Canceled, outcome.Timeout: context.DeadlineExceeded}[tt.kind]; !errors.Is(err, want) {
					t.Errorf("who reads it still is told %v, want %v", err, want)
				}
				_ = resp.Body.Close()
				if n := w.ended(); n != 2 {
					t.Errorf("%d calls were told the end of, want 2", n)
				}
			})
		})
	}
}

// ended is how many calls were told the end of.
func (w *world) ended() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.calls)
}

func TestAResponseThatNobodyClosesEndsWithTheMesh(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]time.Duration{"at once": 0, "when it is watched": time.Second} {
		t.Run(name, func(t *testing.T) { endsWithTheMesh(t, after) })
	}
}

func endsWithTheMesh(t *testing.T, after time.Duration) {
	t.Helper()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		w := newWorld(t, newTarget(protocol), func(rw http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(rw).Flush()
			<-r.Context().Done()
		})
		ended := make(chan observe.Call, 2)
		w.hooks.CallEnded = func(_ context.Context, c *observe.Call) { ended <- *c }
		resp := w.do(newRequest(context.Background(), t, http.MethodGet, paymentURL, http.NoBody))
		reading := make(chan error, 1)
		go func() {
			_, err := io.ReadAll(resp.Body)
			reading <- err
		}()
		unread := w.do(newRequest(context.Background(), t, http.MethodGet, paymentURL, http.NoBody))
		time.Sleep(after)
		w.outbound.Close()
		for range 2 {
			select {
			case c := <-ended:
				if c.Outcome.Kind != outcome.Closed {
					t.Errorf("a call ended as %v (%v)", c.Outcome.Kind, c.Outcome.Err)
				}
			default:
				t.Error("a call has not ended with the mesh")
			}
		}
		if err := <-reading; !errors.Is(err, net.ErrClosed) {
			t.Errorf("who reads is told %v", err)
		}
		if _, err := unread.Body.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("who reads later is told %v", err)
		}
		if _, err := w.transport.RoundTrip(newRequest(context.Background(), t, http.MethodGet, paymentURL, http.NoBody)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a later call: %v", err)
		}
	})
}
