package httpmesh

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
)

// However an application writes a request, the routes see what is sent.
func TestEverySpellingOfARequestIsRouted(t *testing.T) {
	t.Parallel()
	forbidden := func(match discovery.RouteMatch) *discovery.Route {
		return &discovery.Route{Name: "forbidden", Match: match, Direct: &discovery.DirectResponse{Status: http.StatusForbidden}}
	}
	guarded := func(target *discovery.Target) {
		host := target.Routes.VirtualHosts[0]
		host.Domains = []string{"payment.shop", "payment.shop:80", "payment.shop:8080"}
		host.Routes = append([]*discovery.Route{
			forbidden(discovery.RouteMatch{Path: discovery.PathMatch{Kind: discovery.PathPrefix, Value: "/admin"}}),
			forbidden(discovery.RouteMatch{Headers: []discovery.HeaderMatch{{
				Name: "x-tenant", Kind: discovery.HeaderString, String: discovery.StringMatch{Kind: discovery.MatchExact, Value: "evil"},
			}}}),
		}, host.Routes...)
	}
	for _, tt := range []struct {
		name   string
		url    url.URL
		header http.Header
		status int
		uri    string // as it arrives
	}{
		{"a path", url.URL{Path: "/admin/x"}, nil, 403, ""},
		{"an opaque path", url.URL{Opaque: "/admin/x"}, nil, 403, ""},
		{"an opaque path beside another one", url.URL{Path: "/open", Opaque: "/admin/x?y"}, nil, 403, ""},
		{"an opaque path that is open", url.URL{Path: "/admin", Opaque: "/open"}, nil, 200, "/open"},
		{"the spelling of an opaque path", url.URL{Opaque: "/a%2Fb%7e"}, nil, 200, "/a%2Fb%7e"},
		{"an opaque path with a query", url.URL{Opaque: "/open?a=1", RawQuery: "b=2"}, nil, 200, "/open?a=1?b=2"},
		{"a header", url.URL{Path: "/"}, http.Header{"X-Tenant": {"evil"}}, 403, ""},
		{"a header in lower case", url.URL{Path: "/"}, http.Header{"x-tenant": {"evil"}}, 403, ""},
		{"a header of another value", url.URL{Path: "/"}, http.Header{"x-tenant": {"good"}}, 200, "/"},
		{"the dot of the root", url.URL{Host: "payment.shop.", Path: "/open"}, nil, 200, "/open"},
		{"a port with zeros", url.URL{Host: "payment.shop:0080", Path: "/open"}, nil, 200, "/open"},
		{"both", url.URL{Host: "PAYMENT.shop.:080", Path: "/admin"}, nil, 403, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				var uri string
				w := newWorld(t, newTarget(protocol, guarded), func(_ http.ResponseWriter, r *http.Request) { uri = r.RequestURI })
				u := tt.url
				u.Scheme = "http"
				if u.Host == "" {
					u.Host = "payment.shop"
				}
				req := (&http.Request{Method: http.MethodGet, URL: &u, Header: tt.header.Clone()}).WithContext(t.Context())
				resp := w.do(req)
				_ = readAll(t, resp)
				w.idle()
				if resp.StatusCode != tt.status || uri != tt.uri {
					t.Errorf("status %d and the URI %q arrived, want %d and %q", resp.StatusCode, uri, tt.status, tt.uri)
				}
			})
		})
	}
}

func TestAnOpaqueURLThatIsNoPathIsRefused(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		w := newWorld(t, newTarget(protocol), func(http.ResponseWriter, *http.Request) {})
		for _, opaque := range []string{"//elsewhere.shop/admin", "admin", "?x"} {
			req := newRequest(t.Context(), t, http.MethodGet, paymentURL, nil)
			req.URL.Opaque = opaque
			if resp, err := w.transport.RoundTrip(req); err == nil {
				_ = resp.Body.Close()
				t.Errorf("%q was answered with %d", opaque, resp.StatusCode)
			}
		}
		if n := w.served.Load(); n != 0 {
			t.Errorf("%d requests arrived", n)
		}
	})
}

// A deadline may be so far away that the time until then has no number.
func TestBT7_ADeadlineFarAwayIsNoDeadlineNearBy(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		var told string
		w := newWorld(t, newTarget(protocol), func(_ http.ResponseWriter, r *http.Request) { told = r.Header.Get(DefaultDeadlineHeader) })
		ctx, cancel := context.WithDeadline(t.Context(), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC))
		defer cancel()
		_ = readAll(t, w.do(newRequest(ctx, t, http.MethodGet, paymentURL, nil)))
		w.idle()
		if ms, err := strconv.ParseInt(told, 10, 64); err != nil || ms < int64(100*365*24*time.Hour/time.Millisecond) {
			t.Errorf("the next hop was told %q", told)
		}
	})
}
