package httpmesh

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
)

func format(tb testing.TB, text string) *discovery.Format {
	tb.Helper()
	f, err := discovery.ParseFormat(text, discovery.OfResponse)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func TestBU5_WhatArrivesIsRewritten(t *testing.T) {
	t.Parallel()
	substitution := func(source, replacement string) *discovery.Substitution {
		return &discovery.Substitution{Program: regexp.MustCompile(source), Replacement: replacement}
	}
	tests := []struct {
		name string
		edit func(*discovery.Target)
		want string
	}{
		{
			name: "nothing", edit: func(*discovery.Target) {},
			want: `payment.shop /charge/a%2Fb?q=1 [] [] []`,
		},
		{
			name: "a prefix", edit: func(t *discovery.Target) { top(t).Forward.PrefixRewrite = "/v2/" },
			want: `payment.shop /v2/charge/a%2Fb?q=1 [/charge/a%2Fb?q=1] [] []`,
		},
		{
			name: "a prefix, by one with a query", edit: func(t *discovery.Target) { top(t).Forward.PrefixRewrite = "/v2/?tier=gold&from=" },
			want: `payment.shop /v2/?tier=gold&from=charge/a%2Fb?q=1 [/charge/a%2Fb?q=1] [] []`,
		},
		{
			name: "what an expression matches",
			edit: func(t *discovery.Target) { top(t).Forward.PathSubstitution = substitution("^/(charge)/", "/v2/${1}/") },
			want: `payment.shop /v2/charge/a%2Fb?q=1 [/charge/a%2Fb?q=1] [] []`,
		},
		{
			name: "a path that is computed",
			edit: func(target *discovery.Target) { top(target).Forward.PathFormat = format(t, "/u/%REQ(x-user)%") },
			want: `payment.shop /u/ada%20l?q=1 [/charge/a%2Fb?q=1] [] []`,
		},
		{
			name: "the host", edit: func(t *discovery.Target) { top(t).Forward.HostRewrite = "v1.shop" },
			want: `v1.shop /charge/a%2Fb?q=1 [] [payment.shop] []`,
		},
		{
			name: "the host of a cluster", edit: func(t *discovery.Target) { top(t).Forward.Clusters[0].HostRewrite = "v1.shop" },
			want: `v1.shop /charge/a%2Fb?q=1 [] [payment.shop] []`,
		},
		{
			name: "the host of a header, told twice",
			edit: func(t *discovery.Target) {
				top(t).Forward.HostFrom, top(t).Forward.AppendForwardedHost = &discovery.HostSource{Header: "x-host"}, true
			},
			want: `other.shop:81 /charge/a%2Fb?q=1 [] [payment.shop] [payment.shop]`,
		},
		{
			name: "the host of the path",
			edit: func(t *discovery.Target) {
				top(t).Forward.HostFrom = &discovery.HostSource{Path: substitution("^/([^/]*)/.*$", "${1}.shop")}
			},
			want: `charge.shop /charge/a%2Fb?q=1 [] [payment.shop] []`,
		},
		{
			name: "the host of the endpoint",
			edit: func(t *discovery.Target) {
				top(t).Forward.HostFrom = &discovery.HostSource{Endpoint: true}
				t.Clusters["v1"].Endpoints.Localities[0].Endpoints = []balancer.Endpoint{
					{Address: paymentAddress, Hostname: "endpoint.shop", Health: balancer.Healthy},
				}
			},
			want: `endpoint.shop /charge/a%2Fb?q=1 [] [payment.shop] []`,
		},
		{
			name: "the host of an endpoint that has none",
			edit: func(t *discovery.Target) { top(t).Forward.HostFrom = &discovery.HostSource{Endpoint: true} },
			want: `payment.shop /charge/a%2Fb?q=1 [] [payment.shop] []`,
		},
		{
			name: "without a word",
			edit: func(t *discovery.Target) {
				t.Listener.HideOriginals = true
				top(t).Forward.HostRewrite, top(t).Forward.PrefixRewrite = "v1.shop", "/v2/"
			},
			want: `v1.shop /v2/charge/a%2Fb?q=1 [] [] []`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				w := newWorld(t, newTarget(protocol, func(target *discovery.Target) {
					top(target).Match.Path.Value = "/"
					tt.edit(target)
				}), func(w http.ResponseWriter, r *http.Request) {
					_, _ = fmt.Fprint(w, r.Host, " ", r.URL.RequestURI(), " ",
						r.Header.Values("X-Envoy-Original-Path"), " ", r.Header.Values("X-Envoy-Original-Host"), " ", r.Header.Values("X-Forwarded-Host"))
				})
				req := newRequest(t.Context(), t, "", "http://payment.shop/charge/a%2Fb?q=1", nil)
				req.Header = http.Header{"X-Host": {"other.shop:81"}, "X-User": {"ada l"}}
				if got := readAll(t, w.do(req)); got != tt.want {
					t.Errorf("arrived:\n%s\nwant:\n%s", got, tt.want)
				}
			})
		})
	}
}

func TestBU6_ValuesAreComputedOnTheWayOutAndBack(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		w := newWorld(t, newTarget(protocol, func(target *discovery.Target) {
			r := top(target)
			r.Headers = discovery.HeaderMutations{
				RequestAdd: []discovery.HeaderValue{
					{Name: "x-sent", Format: format(t, "%REQ(x-user)% %REQ(:method)% %PROTOCOL% %UPSTREAM_CLUSTER% %ROUTE_NAME%")},
					{Name: "x-peer", Format: format(t, "%DOWNSTREAM_REMOTE_ADDRESS%")}, // of which the application has none
				},
				ResponseAdd: []discovery.HeaderValue{
					{Name: "x-back", Format: format(t, "%RESPONSE_CODE% %RESP(x-seen)% %UPSTREAM_REMOTE_ADDRESS% %REQ(x-user)%")},
				},
			}
		}), func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Seen", r.Header.Get("X-Sent")+fmt.Sprint(r.Header.Values("X-Peer")))
			w.WriteHeader(http.StatusAccepted)
		})
		req := newRequest(t.Context(), t, "PUT", paymentURL, nil)
		req.Header = http.Header{"X-User": {"ada"}}
		resp := w.do(req)
		_ = readAll(t, resp)
		const want = "202 ada PUT HTTP/1.1 v1 top[] 10.0.0.1:80 ada"
		if got := resp.Header.Get("X-Back"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// answered is what a handler of the mesh does with one request by one route.
func answered(t *testing.T, route *discovery.Route, application http.HandlerFunc) *httptest.ResponseRecorder {
	t.Helper()
	handler, req := newBenchHandler(t, &observe.Hooks{}, application, route)
	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, req)
	return rec
}

func TestBU7_AServerRedirects(t *testing.T) {
	t.Parallel()
	rec := answered(t, &discovery.Route{
		Redirect: &discovery.Redirect{Status: 308, Host: "ledger.shop"},
		Headers:  discovery.HeaderMutations{ResponseAdd: []discovery.HeaderValue{{Name: "x-by", Format: format(t, "%RESPONSE_CODE%")}}},
	}, func(http.ResponseWriter, *http.Request) { t.Error("the application was asked") })
	if rec.Code != 308 || rec.Header().Get("Location") != "https://ledger.shop/charge?order=7" || rec.Header().Get("X-By") != "308" {
		t.Errorf("status %d, headers %v", rec.Code, rec.Header())
	}
}

func TestBU7_ADirectResponseOfAServerHasTheRoutesHeaders(t *testing.T) {
	t.Parallel()
	rec := answered(t, &discovery.Route{
		Direct:  &discovery.DirectResponse{Status: 418, Body: []byte("tea")},
		Headers: discovery.HeaderMutations{ResponseAdd: []discovery.HeaderValue{{Name: "x-by", Value: "mesh"}}},
	}, nil)
	if rec.Code != 418 || rec.Body.String() != "tea" || rec.Header().Get("X-By") != "mesh" {
		t.Errorf("status %d, body %q, headers %v", rec.Code, rec.Body, rec.Header())
	}
}

func TestBU6_ValuesOfAServerAreComputed(t *testing.T) {
	t.Parallel()
	seen := ""
	rec := answered(t, &discovery.Route{
		Name: "in", Local: true,
		Headers: discovery.HeaderMutations{
			RequestAdd: []discovery.HeaderValue{
				{Name: "x-peer", Format: format(t, "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %PROTOCOL% %REQ(:path)% %DOWNSTREAM_PEER_URI_SAN%")},
			},
			ResponseAdd: []discovery.HeaderValue{{Name: "x-back", Format: format(t, "%RESPONSE_CODE% %ROUTE_NAME% %RESP(x-own)%")}},
		},
	}, func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Get("X-Peer")
		w.Header().Set("X-Own", "yes")
		w.WriteHeader(http.StatusAccepted)
	})
	if want := "127.0.0.1 HTTP/1.1 /charge?order=7 spiffe://cluster.local/ns/shop/sa/customer"; seen != want {
		t.Errorf("the application saw %q, want %q", seen, want)
	}
	if got, want := rec.Header().Get("X-Back"), "202 in yes"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
