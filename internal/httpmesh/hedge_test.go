package httpmesh

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

// hedged makes the route one that hedges after 50 ms, over two endpoints.
func hedged(t *discovery.Target) {
	f := top(t).Forward
	f.Timeout = 10 * time.Second
	f.Hedge = &retry.Hedge{Delay: 50 * time.Millisecond}
	f.Retry = &retry.Policy{MaxRetries: 2, On: retry.On5xx}
}

func TestOnlyWhatMayBeRepeatedIsHedged(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, method string
		header       http.Header
		body         func() io.Reader // nil is none; each protocol has its own
		want         int64
	}{
		{"GET", http.MethodGet, nil, nil, 2},
		{"HEAD", http.MethodHead, nil, nil, 2},
		{"POST", http.MethodPost, nil, nil, 1},
		{"PUT", http.MethodPut, nil, nil, 1},
		{"POST with a key", http.MethodPost, http.Header{"Idempotency-Key": {"7"}}, func() io.Reader { return strings.NewReader("42") }, 2},
		{"a body that cannot be had twice", http.MethodPost, http.Header{"Idempotency-Key": {"7"}}, func() io.Reader { return io.MultiReader(strings.NewReader("42")) }, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				var w *world
				w = newWorld(t, newTarget(protocol, hedged), func(rw http.ResponseWriter, r *http.Request) {
					if w.served.Load() == 1 {
						select {
						case <-time.After(200 * time.Millisecond):
						case <-r.Context().Done():
						}
					}
					rw.WriteHeader(http.StatusAccepted)
				})
				var body io.Reader
				if tt.body != nil {
					body = tt.body()
				}
				req := newRequest(t.Context(), t, tt.method, paymentURL, body)
				maps.Copy(req.Header, tt.header)
				begin := time.Now()
				resp := w.do(req)
				_ = readAll(t, resp)
				want := 200 * time.Millisecond
				if tt.want > 1 {
					want = 50 * time.Millisecond
				}
				if took := time.Since(begin); resp.StatusCode != http.StatusAccepted || w.served.Load() != tt.want || took != want {
					t.Errorf("status %d after %v and %d requests, want %v and %d", resp.StatusCode, took, w.served.Load(), want, tt.want)
				}
				w.idle()
			})
		})
	}
}

// The winner's body is read to its end although the others were given up.
func TestTheWinnersBodyIsWhole(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		content := bytes.Repeat([]byte("0123456789"), 50_000)
		slow := func(rw http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(5 * time.Second):
			case <-r.Context().Done():
			}
			_, _ = rw.Write([]byte("slow"))
		}
		fast := func(rw http.ResponseWriter, _ *http.Request) {
			for chunk := range bytes.Lines(bytes.ReplaceAll(content, []byte("9"), []byte("\n"))) {
				_, _ = rw.Write(bytes.ReplaceAll(chunk, []byte("\n"), []byte("9")))
			}
		}
		w := newWorld(t, newTarget(protocol, hedged, func(target *discovery.Target) {
			c := target.Clusters["v1"]
			c.Endpoints.Localities[0].Endpoints = append(c.Endpoints.Localities[0].Endpoints,
				balancer.Endpoint{Address: "10.0.0.2:80", Health: balancer.Healthy})
		}), slow)
		w.serve("10.0.0.2:80", fast)
		for range 4 {
			if got := readAll(t, w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))); sum([]byte(got)) != sum(content) {
				t.Errorf("got %d bytes, which are not the upstream's", len(got))
			}
		}
		w.idle()
	})
}

// A body that each attempt has a copy of is the client's in each, complete.
func TestBR14_HedgedBodiesAreTheClients(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, replayLimit + 1, 5 * replayLimit} {
		onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
			var got complete
			var w *world
			w = newWorld(t, newTarget(protocol, hedged), func(_ http.ResponseWriter, r *http.Request) {
				n := w.served.Load()
				got.read(r)
				if n < 3 {
					time.Sleep(300 * time.Millisecond)
				}
			})
			content := bytes.Repeat([]byte("x"), size)
			req := newRequest(t.Context(), t, http.MethodPost, paymentURL, bytes.NewReader(content)) // has GetBody
			req.Header.Set("Idempotency-Key", "7")
			_ = readAll(t, w.do(req))
			w.idle()
			if len(got.hashes) != 3 {
				t.Errorf("%d bytes: %d complete bodies", size, len(got.hashes))
			}
			for _, hash := range got.hashes {
				if hash != sum(content) {
					t.Errorf("%d bytes: a body is not the client's", size)
				}
			}
		})
	}
}
