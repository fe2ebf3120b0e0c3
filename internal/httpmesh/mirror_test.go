package httpmesh

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// mirrored has all requests copied to a second cluster, "shadow".
func mirrored(edit ...func(*discovery.Mirror)) func(*discovery.Target) {
	return func(t *discovery.Target) {
		m := discovery.Mirror{Cluster: "shadow", PerMillion: 1_000_000}
		for _, e := range edit {
			e(&m)
		}
		top(t).Forward.Mirrors = append(top(t).Forward.Mirrors, m)
		primary := t.Clusters["v1"].Cluster
		t.Clusters["shadow"] = discovery.ClusterResult{
			Cluster: &discovery.Cluster{
				Name: "shadow", Protocol: primary.Protocol, Limits: [2]breaker.Limits{breaker.DefaultLimits, breaker.DefaultLimits},
			},
			Endpoints: &discovery.Assignment{Localities: []balancer.LocalityEndpoints{{
				Weight: 1, Endpoints: []balancer.Endpoint{{Address: otherAddress, Health: balancer.Healthy}},
			}}},
		}
	}
}

// received is a request as a server got it.
type received struct {
	method, host, uri, body string
	header, trailer         http.Header
}

// arrivals records requests.
type arrivals struct {
	mu   sync.Mutex
	seen []received // guarded by mu
}

func (a *arrivals) record(r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = append(a.seen, received{r.Method, r.Host, r.URL.RequestURI(), string(body), r.Header.Clone(), r.Trailer.Clone()})
}

func (a *arrivals) all() []received {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen
}

// mirrorEvents are the events of copies.
type mirrorEvents struct {
	mu     sync.Mutex
	events []observe.MirrorEvent // guarded by mu
}

func (e *mirrorEvents) all() []observe.MirrorEvent {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.events
}

func (w *world) mirrorEvents() *mirrorEvents {
	e := new(mirrorEvents)
	w.hooks.Mirrored = func(event observe.MirrorEvent) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.events = append(e.events, event)
	}
	return e
}

func TestBU8_RequestsAreCopied(t *testing.T) {
	t.Parallel()
	bodies := []struct {
		name string
		body func() io.Reader
		want string
	}{
		{name: "no body", body: func() io.Reader { return nil }},
		{name: "a body that can be had again", body: func() io.Reader { return strings.NewReader("card=7") }, want: "card=7"},
		{name: "a body that can be read once", body: func() io.Reader { return onlyReader{strings.NewReader("card=7")} }, want: "card=7"},
		{name: "as large as is kept", body: func() io.Reader { return onlyReader{bytes.NewReader(make([]byte, replayLimit))} }, want: string(make([]byte, replayLimit))},
	}
	for _, tt := range bodies {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				w := newWorld(t, newTarget(protocol, mirrored(), func(target *discovery.Target) {
					top(target).Forward.PrefixRewrite = "/v2/"
					top(target).Headers.RequestAdd = []discovery.HeaderValue{{Name: "x-route", Value: "top"}}
				}), func(rw http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
				events := w.mirrorEvents()
				var shadow arrivals
				w.serve(otherAddress, func(rw http.ResponseWriter, r *http.Request) {
					shadow.record(r)
					rw.WriteHeader(http.StatusTeapot)
					_, _ = rw.Write(make([]byte, 100_000))
				})
				req := newRequest(t.Context(), t, http.MethodPost, paymentURL+"?a=b%2Fc", tt.body())
				req.Header.Set("X-User", "ada")
				resp := w.do(req)
				req.Header.Set("X-User", "the caller's again")
				readAll(t, resp)
				if resp.StatusCode != http.StatusOK {
					t.Errorf("status %d: it is the copy's", resp.StatusCode)
				}
				all := events.all()
				if len(all) != 1 || all[0].Dropped != "" || all[0].Outcome.Status != http.StatusTeapot ||
					all[0].Cluster != "shadow" || all[0].Endpoint != otherAddress || all[0].Route != "top" {
					t.Fatalf("events %+v", all)
				}
				seen := shadow.all()
				if len(seen) != 1 {
					t.Fatalf("%d copies arrived", len(seen))
				}
				got := seen[0]
				if got.method != http.MethodPost || got.host != "payment.shop-shadow" || got.uri != "/v2//charge?a=b%2Fc" && got.uri != "/v2/charge?a=b%2Fc" {
					t.Errorf("a copy of %s %s%s", got.method, got.host, got.uri)
				}
				if sum([]byte(got.body)) != sum([]byte(tt.want)) {
					t.Errorf("a body of %d bytes, want %d", len(got.body), len(tt.want))
				}
				if got.header.Get("X-User") != "ada" || got.header.Get("X-Route") != "top" || got.header.Get("X-Envoy-Original-Path") == "" {
					t.Errorf("headers %v", got.header)
				}
				w.mu.Lock()
				defer w.mu.Unlock()
				if len(w.calls) != 1 || len(w.attempts) != 1 {
					t.Errorf("%d calls and %d attempts: a copy is none", len(w.calls), len(w.attempts))
				}
			})
		})
	}
}

// TestS29_AMirrorIsNobodysBusiness makes calls whose copies go to a cluster that
// is dead, slow or broken: they take exactly as long, and end as well, as without.
func TestS29_AMirrorIsNobodysBusiness(t *testing.T) {
	t.Parallel()
	shadows := []struct {
		name  string
		serve http.HandlerFunc // nil is nobody
		edit  func(*discovery.Target)
		want  outcome.Kind
	}{
		{name: "dead", want: outcome.ConnectFailure},
		{name: "gone", edit: func(t *discovery.Target) { t.Clusters["shadow"].Endpoints.Localities = nil }, want: outcome.NoEndpoint},
		{name: "slow", serve: func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(time.Hour):
			case <-r.Context().Done():
			}
		}, want: outcome.Timeout},
		{name: "slow to answer whole", serve: func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			select {
			case <-time.After(time.Hour):
			case <-r.Context().Done():
			}
		}, want: outcome.Timeout},
		{name: "broken", serve: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }},
		{name: "panicking", serve: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, want: outcome.Reset},
	}
	for _, tt := range shadows {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				const takes = 20 * time.Millisecond
				edit := tt.edit
				if edit == nil {
					edit = func(*discovery.Target) {}
				}
				w := newWorld(t, newTarget(protocol, mirrored(), edit), func(rw http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					time.Sleep(takes)
				})
				events := w.mirrorEvents()
				if tt.serve != nil {
					w.serve(otherAddress, tt.serve)
				}
				const n = 20
				for range n {
					start := time.Now()
					resp := w.do(newRequest(t.Context(), t, http.MethodPost, paymentURL, strings.NewReader("card=7")))
					readAll(t, resp)
					if took := time.Since(start); took != takes || resp.StatusCode != http.StatusOK {
						t.Errorf("status %d after %v, want 200 after %v", resp.StatusCode, took, takes)
					}
				}
				// What is still under way ends by itself.
				time.Sleep(mirrorBound)
				all := events.all()
				if len(all) != n {
					t.Fatalf("%d copies have ended, want %d", len(all), n)
				}
				for _, e := range all {
					if e.Outcome.Kind != tt.want || e.End.Sub(e.Start) > mirrorBound {
						t.Errorf("a copy: %v after %v, want %v", e.Outcome, e.End.Sub(e.Start), tt.want)
					}
				}
				w.idle()
			})
		})
	}
}

// mirrorBound is how long a copy may go on when its route has no timeout.
const mirrorBound = 15 * time.Second

func TestBU8_ACopyTakesNoLongerThanItsRouteLets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newTarget(mirrored(), limited(2*time.Second)), func(http.ResponseWriter, *http.Request) {})
		events := w.mirrorEvents()
		var told string
		w.serve(otherAddress, func(_ http.ResponseWriter, r *http.Request) {
			told = r.Header.Get(DefaultDeadlineHeader)
			<-r.Context().Done()
		})
		readAll(t, w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil)))
		time.Sleep(2 * time.Second)
		all := events.all()
		if len(all) != 1 || all[0].End.Sub(all[0].Start) != 2*time.Second {
			t.Errorf("events %+v", all)
		}
		if told != "2000" {
			t.Errorf("it is told that %q ms are left", told)
		}
	})
}

func TestBU8_WhatCannotBeCopiedIsDropped(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		edit   func(*discovery.Target)
		change func(*http.Request)
		body   func() io.Reader
		early  bool // the payment answers without reading the body
		want   string
	}{
		{name: "a body that is larger than what is kept", body: func() io.Reader { return bytes.NewReader(make([]byte, replayLimit+1)) }, want: "too-large"},
		{name: "a larger body of which that is not known", body: func() io.Reader { return onlyReader{bytes.NewReader(make([]byte, replayLimit+1))} }, want: "too-large"},
		{name: "an upgrade", change: func(r *http.Request) { r.Header.Set("Upgrade", "x"); r.Header.Set("Connection", "Upgrade") }, want: "unsendable"},
		{name: "a body that is never sent whole", body: func() io.Reader { return &endless{closed: make(chan struct{})} }, early: true, want: "incomplete"},
		{
			name: "no such cluster",
			edit: func(t *discovery.Target) { top(t).Forward.Mirrors[0].Cluster = "other" }, want: "no-cluster",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				edit := tt.edit
				if edit == nil {
					edit = func(*discovery.Target) {}
				}
				protocol := over(discovery.HTTP1)
				if tt.early {
					protocol = over(discovery.HTTP2) // net/http's server of HTTP/1.1 reads a body before it answers
				}
				w := newWorld(t, newTarget(protocol, mirrored(), edit), func(rw http.ResponseWriter, r *http.Request) {
					if !tt.early {
						_, _ = io.Copy(io.Discard, r.Body)
					}
				})
				events := w.mirrorEvents()
				var shadow arrivals
				w.serve(otherAddress, func(_ http.ResponseWriter, r *http.Request) { shadow.record(r) })
				var body io.Reader
				if tt.body != nil {
					body = tt.body()
				}
				req := newRequest(t.Context(), t, http.MethodPost, paymentURL, body)
				if tt.change != nil {
					tt.change(req)
				}
				resp := w.do(req)
				_ = resp.Body.Close()
				time.Sleep(time.Second)
				if all := events.all(); len(all) != 1 || all[0].Dropped != tt.want {
					t.Errorf("events %+v, want one that says %q", all, tt.want)
				}
				if n := len(shadow.all()); n != 0 {
					t.Errorf("%d copies arrived", n)
				}
				w.idle()
			})
		})
	}
}

// A body that is not as long as the request says fails the request, and no copy says
// that it is whole.
func TestBU8_ABodyOfAnotherLengthIsNotCopied(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{"shorter": "12345", "none": "", "longer": "123456789012345"} {
		t.Run(name, func(t *testing.T) {
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				w := newWorld(t, newTarget(protocol, mirrored()), func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
				events := w.mirrorEvents()
				var shadow arrivals
				w.serve(otherAddress, func(_ http.ResponseWriter, r *http.Request) { shadow.record(r) })
				req := newRequest(t.Context(), t, http.MethodPost, paymentURL, onlyReader{strings.NewReader(body)})
				req.ContentLength = 10
				if resp, err := w.transport.RoundTrip(req); err == nil {
					_ = resp.Body.Close()
				}
				time.Sleep(time.Second)
				for _, copied := range shadow.all() {
					if copied.body != body[:min(10, len(body))] || len(copied.body) < 10 {
						t.Errorf("a copy has the body %q", copied.body)
					}
				}
				if all := events.all(); len(all) != 1 {
					t.Errorf("events %+v, want one", all)
				}
				w.idle()
			})
		})
	}
}

// endless is a body that hangs after its first byte, until it is closed.
type endless struct {
	begun  bool
	closed chan struct{}
}

func (e *endless) Read(p []byte) (int, error) {
	if !e.begun {
		e.begun = true
		return copy(p, "c"), nil
	}
	<-e.closed
	return 0, io.ErrClosedPipe
}

func (e *endless) Close() error {
	close(e.closed)
	return nil
}

func TestBU8_ARetriedRequestIsCopiedOnce(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		tries := 0
		w := newWorld(t, newTarget(protocol, mirrored(), retrying(retry.Policy{MaxRetries: 2, On: retry.On5xx})),
			func(rw http.ResponseWriter, r *http.Request) {
				if tries++; tries < 3 {
					rw.WriteHeader(http.StatusServiceUnavailable) // before it has read the body
					return
				}
				_, _ = io.Copy(rw, r.Body)
			})
		events := w.mirrorEvents()
		var shadow arrivals
		w.serve(otherAddress, func(_ http.ResponseWriter, r *http.Request) { shadow.record(r) })
		if got := readAll(t, w.do(newRequest(t.Context(), t, http.MethodPost, paymentURL, strings.NewReader("card=7")))); got != "card=7" {
			t.Errorf("body %q", got)
		}
		if all := events.all(); len(all) != 1 || all[0].Dropped != "" {
			t.Errorf("events %+v", all)
		}
		if seen := shadow.all(); len(seen) != 1 || seen[0].body != "card=7" {
			t.Errorf("arrivals %+v", seen)
		}
	})
}

func TestBU8_TrailersAreCopied(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		w := newWorld(t, newTarget(protocol, mirrored()), func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
		events := w.mirrorEvents()
		var shadow arrivals
		w.serve(otherAddress, func(_ http.ResponseWriter, r *http.Request) { shadow.record(r) })
		req := newRequest(t.Context(), t, http.MethodPost, paymentURL, onlyReader{strings.NewReader("card=7")})
		req.Trailer = http.Header{"X-Sum": {"42"}}
		readAll(t, w.do(req))
		events.all()
		if seen := shadow.all(); len(seen) != 1 || seen[0].trailer.Get("X-Sum") != "42" {
			t.Errorf("arrivals %+v", seen)
		}
	})
}

// TestBU8_V48_CopiesAreBounded fills all places of copies with ones that hang, and
// ends them with the mesh.
func TestBU8_V48_CopiesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newTarget(mirrored(), over(discovery.HTTP2), func(target *discovery.Target) {
			target.Clusters["shadow"].Cluster.Protocol = discovery.HTTP2
		}), func(http.ResponseWriter, *http.Request) {})
		events := w.mirrorEvents()
		w.serve(otherAddress, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		const places, n = 256, 300
		for range n {
			readAll(t, w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil)))
		}
		dropped := 0
		for _, e := range events.all() {
			if e.Dropped == "in-flight" {
				dropped++
			}
		}
		if dropped != n-places {
			t.Errorf("%d of %d are dropped, want %d", dropped, n, n-places)
		}
		start := time.Now()
		w.outbound.Close()
		if took := time.Since(start); took > time.Second {
			t.Errorf("the mesh closes after %v", took)
		}
		if all := events.all(); len(all) != n {
			t.Errorf("%d copies have ended when the mesh is closed, want %d", len(all), n)
		}
	})
}

func TestBU8_TheCallersCancellationEndsNoWholeCopy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hangs := func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(time.Second):
			case <-r.Context().Done():
			}
		}
		w := newWorld(t, newTarget(mirrored()), hangs)
		events := w.mirrorEvents()
		w.serve(otherAddress, hangs)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		resp, err := w.transport.RoundTrip(newRequest(ctx, t, http.MethodGet, paymentURL, nil))
		failed(t, resp, err, outcome.Canceled)
		time.Sleep(time.Second)
		if all := events.all(); len(all) != 1 || all[0].Outcome.Kind != outcome.Response {
			t.Errorf("events %+v", all)
		}
	})
}
