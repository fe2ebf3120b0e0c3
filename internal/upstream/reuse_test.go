package upstream

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
)

// A connection of HTTP/1.1 is for one call at a time, from its request to the end of
// its response, and never again if that was not read to its end.
func TestBN2_AConnectionIsForOneCallAtATime(t *testing.T) {
	t.Parallel()
	const large = 1 << 20
	for _, tt := range []struct {
		name string
		body int   // of the first response
		read int64 // of it, before it is closed
		want string
	}{
		{"a response that was read", large, large, "1"},
		{"a response without a body", 0, 0, "1"},
		{"a response of which nothing was read", large, 0, "2"},
		{"a response of which a part was read", large, 10, "2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPost {
						_, _ = io.WriteString(rw, strings.Repeat("x", tt.body))
						return
					}
					answer(rw, r)
				})
				_, e := w.one(nil)
				resp, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodPost, nil), discovery.PriorityDefault)
				if failure != nil {
					t.Fatal(failure.Err)
				}
				if n, err := io.CopyN(io.Discard, resp.Body, tt.read); err != nil {
					t.Fatalf("read %d: %v", n, err)
				}
				if tt.read == large {
					if _, err := resp.Body.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
						t.Fatal(err)
					}
				} else if tt.body > 0 {
					// While it is being read it is nobody else's.
					if conn, _ := get(t, e); conn != "2" {
						t.Errorf("a call in the midst of it went over connection %s", conn)
					}
				}
				_ = resp.Body.Close()
				synctest.Wait()
				if conn, _ := get(t, e); conn != tt.want {
					t.Errorf("the next call went over connection %s, want %s", conn, tt.want)
				}
			})
		})
	}
}

// What a stream of HTTP/2 that is given up had been sent does not count against the
// others of its connection for ever (Linkerd: http2_failures_dont_leak_connection_window).
func TestBN3_V48_StreamsThatAreGivenUpLeakNoWindow(t *testing.T) {
	t.Parallel()
	const piece, rounds = 48 << 10, 200 // nine times the window of the connection
	for _, tt := range []struct {
		name   string
		giveUp func(cancel context.CancelFunc, resp *http.Response)
	}{
		{"by their context", func(cancel context.CancelFunc, _ *http.Response) { cancel() }},
		{"by closing their response", func(_ context.CancelFunc, resp *http.Response) { _ = resp.Body.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.manager.options.Transport = &http.Transport{HTTP2: &http.HTTP2Config{MaxReceiveBufferPerConnection: 1 << 20}}
				w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPost {
						_, _ = io.WriteString(rw, strings.Repeat("x", piece))
						_ = http.NewResponseController(rw).Flush()
						<-r.Context().Done()
						return
					}
					answer(rw, r)
				})
				c, e := w.one(speakHTTP2)
				for range rounds {
					ctx, cancel := context.WithCancel(t.Context())
					resp, failure := e.RoundTrip(newRequest(ctx, t, http.MethodPost, nil), discovery.PriorityDefault)
					if failure != nil {
						t.Fatal(failure.Err)
					}
					synctest.Wait() // all of it has come, and waits to be read
					tt.giveUp(cancel, resp)
					synctest.Wait()
					_ = resp.Body.Close()
					cancel()
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if last := start(ctx, t, e); last.wait(t) != "1" {
					t.Errorf("the last call: %+v", last)
				}
				w.expectConnections(1, 0)
				expectIdle(t, c, 1)
			})
		})
	}
}

// Two clusters that have an endpoint at one address may trust different peers there.
func TestBN4_ConnectionsAreTheirClustersOwn(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*discovery.Cluster){"HTTP/1.1": nil, "HTTP/2.0": speakHTTP2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve(paymentAddress, answer)
				results := result(edit, paymentAddress)
				for _, r := range maps.Clone(results) {
					other := *r.Cluster
					other.Name = "other"
					r.Cluster = &other
					results["other"] = r
				}
				held := w.manager.Hold(results)
				for cluster := range held {
					first, _ := get(t, endpoint(t, held[cluster], paymentAddress))
					second, _ := get(t, endpoint(t, held[cluster], paymentAddress))
					if first != second {
						t.Errorf("%s went over connections %s and %s", cluster, first, second)
					}
				}
				w.expectConnections(2, 0)
			})
		})
	}
}
