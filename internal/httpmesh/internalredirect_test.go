package httpmesh

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/outcome"
)

const otherAddress = "10.0.0.2:80"

// redirected adds a route "next" to a second cluster, a direct response, and a
// policy to the first route.
func redirected(policy discovery.InternalRedirect) func(*discovery.Target) {
	return func(t *discovery.Target) {
		first := top(t)
		if policy.Statuses == nil {
			policy.Statuses = []int{http.StatusFound}
		}
		first.Forward.InternalRedirect = &policy
		prefix := func(value string) discovery.RouteMatch {
			return discovery.RouteMatch{Path: discovery.PathMatch{Value: value}}
		}
		next := &discovery.Route{Name: "next", Match: prefix("/next"), Forward: &discovery.Forward{
			Clusters:         []discovery.WeightedCluster{{Name: "v2", Weight: 1}},
			InternalRedirect: &policy,
		}}
		direct := &discovery.Route{Name: "direct", Match: prefix("/direct"), Direct: &discovery.DirectResponse{Status: 418, Body: []byte("tea")}}
		first.Match = prefix("/charge")
		t.Routes.VirtualHosts[0].Domains = []string{"payment.shop"}
		t.Routes.VirtualHosts[0].Routes = []*discovery.Route{next, direct, first}
		t.Clusters["v2"] = discovery.ClusterResult{
			Cluster: &discovery.Cluster{Name: "v2", Limits: [2]breaker.Limits{breaker.DefaultLimits, breaker.DefaultLimits}},
			Endpoints: &discovery.Assignment{Localities: []balancer.LocalityEndpoints{{
				Weight: 1, Endpoints: []balancer.Endpoint{{Address: otherAddress, Health: balancer.Healthy}},
			}}},
		}
	}
}

// echo answers with what arrived.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	_, _ = fmt.Fprintf(w, "%s %s%s %q from %q", r.Method, r.Host, r.URL.RequestURI(), body, r.Header.Get(originalURL))
}

func TestBU7_InternalRedirects(t *testing.T) {
	t.Parallel()
	const next = "http://payment.shop/next?a=b"
	kept := func() io.Reader { return onlyReader{strings.NewReader("card=7")} }
	again := func() io.Reader { return strings.NewReader("card=7") } // has GetBody
	large := func() io.Reader { return onlyReader{bytes.NewReader(make([]byte, replayLimit+1))} }
	both := discovery.InternalRedirect{MaxRedirects: 1, Statuses: []int{302, 303, 307}}
	tests := []struct {
		name     string
		policy   discovery.InternalRedirect
		status   int // 302 if 0
		location string
		method   string // GET if ""
		body     func() io.Reader
		want     string // of the second upstream; "" if the redirect is the caller's
	}{
		{name: "a redirect is followed", policy: both, location: next, want: `GET payment.shop/next?a=b "" from "http://payment.shop/charge?q=1"`},
		{name: "a fragment is not sent", policy: both, location: next + "#x", want: `GET payment.shop/next?a=b "" from "http://payment.shop/charge?q=1"`},
		{name: "another status is the caller's", policy: both, status: 301, location: next},
		{name: "no redirect is allowed", policy: discovery.InternalRedirect{}, location: next},
		{name: "a relative location is the caller's", policy: both, location: "/next"},
		{name: "a location that no route has is the caller's", policy: both, location: "http://order.shop/next"},
		{name: "a location that is none is the caller's", policy: both, location: "http://pay ment/"},
		{name: "a location with a user is the caller's", policy: both, location: "http://ada@payment.shop/next"},
		{name: "no location is the caller's", policy: both},
		{name: "another scheme is the caller's", policy: both, location: "https://payment.shop/next"},
		{
			name:   "another scheme is followed if it is allowed",
			policy: discovery.InternalRedirect{MaxRedirects: 1, CrossScheme: true}, location: "https://payment.shop/next",
			want: `GET payment.shop/next "" from "http://payment.shop/charge?q=1"`,
		},
		{
			name:   "from http to https is not safe",
			policy: discovery.InternalRedirect{MaxRedirects: 1, CrossScheme: true, SafeCrossScheme: true}, location: "https://payment.shop/next",
		},
		{
			name:   "a route that is on the list",
			policy: discovery.InternalRedirect{MaxRedirects: 1, AllowedRoutes: []string{"next"}}, location: next,
			want: `GET payment.shop/next?a=b "" from "http://payment.shop/charge?q=1"`,
		},
		{
			name:   "a route that is not on the list is the caller's",
			policy: discovery.InternalRedirect{MaxRedirects: 1, AllowedRoutes: []string{"other"}}, location: next,
		},
		{
			name: "a body that was kept is sent again", policy: both, location: next, method: "POST", body: kept,
			want: `POST payment.shop/next?a=b "card=7" from "http://payment.shop/charge?q=1"`,
		},
		{
			name: "a body from GetBody is sent again", policy: both, status: 307, location: next, method: "PUT", body: again,
			want: `PUT payment.shop/next?a=b "card=7" from "http://payment.shop/charge?q=1"`,
		},
		{
			name: "a body that is too large is the caller's", policy: both, location: next, method: "POST",
			body: large,
		},
		{
			name: "see other asks without the body", policy: both, status: 303, location: next, method: "POST", body: large,
			want: `GET payment.shop/next?a=b "" from "http://payment.shop/charge?q=1"`,
		},
		{
			name: "see other of HEAD is HEAD", policy: both, status: 303, location: next, method: "HEAD", want: "HEAD",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				policy := tt.policy
				w := newWorld(t, newTarget(protocol, redirected(policy)), func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					if tt.location != "" {
						w.Header().Set("Location", tt.location)
					}
					w.WriteHeader(cmp.Or(tt.status, http.StatusFound))
				})
				var arrived atomic.Value
				arrived.Store("nothing")
				w.serve(otherAddress, func(w http.ResponseWriter, r *http.Request) {
					arrived.Store(r.Method)
					echo(w, r)
				})
				var body io.Reader
				if tt.body != nil {
					body = tt.body()
				}
				closes := &tracked{}
				req := newRequest(t.Context(), t, tt.method, paymentURL+"?q=1", body)
				if body != nil {
					closes.Reader = req.Body
					req.Body = closes
				}
				resp := w.do(req)
				got := readAll(t, resp)
				switch {
				case resp.Request != req:
					t.Error("the response is not that of the caller's request")
				case tt.want == "HEAD":
					if resp.StatusCode != http.StatusOK || arrived.Load() != "HEAD" {
						t.Errorf("status %d, %s arrived", resp.StatusCode, arrived.Load())
					}
				case tt.want == "" && (resp.StatusCode < 300 || resp.Header.Get("Location") != tt.location):
					t.Errorf("status %d, body %q: want the redirect", resp.StatusCode, got)
				case tt.want != "" && (resp.StatusCode != http.StatusOK || got != tt.want):
					t.Errorf("status %d, body %q, want %q", resp.StatusCode, got, tt.want)
				}
				if body != nil && closes.closed.Load() == 0 {
					t.Error("the caller's body was not closed")
				}
				w.idle()
			})
		})
	}
}

// onlyReader hides what else a reader can do: such a body has no GetBody.
type onlyReader struct{ io.Reader }

// A redirect to a route that answers itself crashed Envoy once (CVE-2022-21655).
func TestBU7_AnInternalRedirectToADirectResponse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newTarget(redirected(discovery.InternalRedirect{MaxRedirects: 1})), func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://payment.shop/direct", http.StatusFound)
		})
		resp := w.do(newRequest(t.Context(), t, "", paymentURL, nil))
		if got := readAll(t, resp); resp.StatusCode != http.StatusTeapot || got != "tea" {
			t.Errorf("status %d, body %q", resp.StatusCode, got)
		}
		if n := w.served.Load(); n != 1 {
			t.Errorf("%d requests arrived, want 1", n)
		}
	})
}

func TestBU7_InternalRedirectsAreBounded(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		policy discovery.InternalRedirect
		served int64
	}{
		"by their number":            {discovery.InternalRedirect{MaxRedirects: 3}, 4},
		"by the routes taken before": {discovery.InternalRedirect{MaxRedirects: 100, PreviousRoutes: true}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newTarget(redirected(tt.policy)), func(w http.ResponseWriter, r *http.Request) {
					http.Redirect(w, r, "http://payment.shop/next", http.StatusFound)
				})
				w.serve(otherAddress, func(w http.ResponseWriter, r *http.Request) {
					http.Redirect(w, r, "http://payment.shop/charge", http.StatusFound)
				})
				resp := w.do(newRequest(t.Context(), t, "", paymentURL, nil))
				_ = readAll(t, resp)
				if n := w.served.Load(); resp.StatusCode != http.StatusFound || n != tt.served {
					t.Errorf("status %d after %d requests, want the redirect after %d", resp.StatusCode, n, tt.served)
				}
			})
		})
	}
}

func TestBU7_HeadersAreCopiedFromTheRedirect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		policy := discovery.InternalRedirect{MaxRedirects: 1, CopyHeaders: []string{"x-token", "x-gone"}}
		w := newWorld(t, newTarget(redirected(policy)), func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Token", "new")
			http.Redirect(w, r, "http://payment.shop/next", http.StatusFound)
		})
		w.serve(otherAddress, func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprint(w, r.Header["X-Token"], r.Header["X-Gone"], r.Header["X-User"])
		})
		req := newRequest(t.Context(), t, "", paymentURL, nil)
		req.Header = http.Header{"X-Token": {"old"}, "X-Gone": {"old"}, "X-User": {"ada"}}
		if got := readAll(t, w.do(req)); got != "[new] [] [ada]" {
			t.Errorf("arrived %s", got)
		}
		if got := req.Header.Get("X-Token"); got != "old" || len(req.Header) != 3 {
			t.Errorf("the caller's headers have changed: %v", req.Header)
		}
	})
}

// Each hop has the time of its route, and no hop more than the caller has left.
func TestBU7_ARedirectDoesNotExtendTheCallersDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newTarget(redirected(discovery.InternalRedirect{MaxRedirects: 1})), func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(2 * time.Second)
			http.Redirect(w, r, "http://payment.shop/next", http.StatusFound)
		})
		w.serve(otherAddress, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		resp, err := w.transport.RoundTrip(newRequest(ctx, t, "", paymentURL, nil))
		failed(t, resp, err, outcome.Timeout)
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("ended after %v", took)
		}
		w.idle()
	})
}

// TestTheTimeOfACallIncludesItsRedirects: the timeout of a route is that of a hop, as
// with Envoy; the time that the application gives is that of the call.
func TestTheTimeOfACallIncludesItsRedirects(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		target := newTarget(protocol, limited(time.Second), redirected(discovery.InternalRedirect{MaxRedirects: 5}))
		w := newWorld(t, target, func(rw http.ResponseWriter, _ *http.Request) {
			time.Sleep(400 * time.Millisecond)
			rw.Header().Set("Location", paymentURL)
			rw.WriteHeader(http.StatusFound)
		})
		for _, tt := range []struct {
			own, took time.Duration
			requests  int64
			err       error
		}{
			{0, 2400 * time.Millisecond, 6, nil},
			{500 * time.Millisecond, 500 * time.Millisecond, 2, context.DeadlineExceeded},
			{800 * time.Millisecond, 800 * time.Millisecond, 2, context.DeadlineExceeded},
		} {
			w.served.Store(0)
			ctx := pipeline.WithOptions(t.Context(), pipeline.CallOptions{Timeout: tt.own})
			begin := time.Now()
			resp, err := w.transport.RoundTrip(newRequest(ctx, t, http.MethodGet, paymentURL, http.NoBody))
			if took, n := time.Since(begin), w.served.Load(); !errors.Is(err, tt.err) || took != tt.took || n != tt.requests {
				t.Errorf("with %v: %v after %v and %d requests, want %v after %v and %d", tt.own, err, took, n, tt.err, tt.took, tt.requests)
			}
			if err == nil {
				_ = readAll(t, resp)
			}
			w.idle()
		}
	})
}

func TestBU7_ExplainSaysWhichRedirectsAreFollowed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		policy discovery.InternalRedirect
		want   string
	}{
		{discovery.InternalRedirect{MaxRedirects: 3}, "up to 3 of status 302 are followed within the call, to the same scheme"},
		{
			discovery.InternalRedirect{
				MaxRedirects: 1, Statuses: []int{303, 307}, CrossScheme: true, SafeCrossScheme: true,
				AllowedRoutes: []string{"next"}, PreviousRoutes: true, CopyHeaders: []string{"x-trace"},
			},
			"up to 1 of status 303 or 307 are followed within the call, not from http to https, to the routes next, " +
				"from a route to the same one once, with the headers x-trace of the response",
		},
		{discovery.InternalRedirect{MaxRedirects: 2, CrossScheme: true}, "up to 2 of status 302 are followed within the call"},
		{discovery.InternalRedirect{}, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newTarget(redirected(tt.policy)), echo)
			e, err := w.transport.Explain(newRequest(t.Context(), t, "", paymentURL, nil))
			if err != nil || e.Redirects != tt.want {
				t.Errorf("got %q, %v; want %q", e.Redirects, err, tt.want)
			}
		})
	}
}
