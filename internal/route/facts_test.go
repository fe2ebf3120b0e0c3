package route

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
)

func format(tb testing.TB, text string) *discovery.Format {
	tb.Helper()
	f, err := discovery.ParseFormat(text, discovery.OfResponse)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func TestBU6_CommandsInValues(t *testing.T) {
	t.Parallel()
	machine, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	req := &Request{
		Method: "POST", Scheme: "http", Host: "payment.shop", Path: "/charge", Query: "q=a%20b&n=%0A&q=c",
		Header: headers{"x-user": {"ada", "bob"}},
	}
	d := Decision{
		Table: &discovery.RouteTable{}, VirtualHost: &discovery.VirtualHost{},
		Route: &discovery.Route{Name: "canary"}, Cluster: &discovery.WeightedCluster{Name: "v1"},
	}
	facts := &Facts{
		Protocol: "HTTP/2", Start: time.Date(2026, 1, 2, 3, 4, 5, 6_007_008, time.FixedZone("east", 3600)),
		Remote: "10.0.0.7:4711", Local: &net.TCPAddr{IP: net.ParseIP("fd00::1"), Port: 8080},
		PeerID: "spiffe://cluster.local/ns/shop/sa/customer", Status: 418, Upstream: "10.0.0.9:80",
	}
	for text, want := range map[string]string{
		"plain 100%%":                                  "plain 100%",
		"%REQ(X-User)%":                                "ada",
		"%REQ(x-none?x-user)%":                         "ada",
		"%REQ(x-none)%":                                "",
		"%REQ(:method)% %REQ(:path)%":                  "POST /charge?q=a%20b&n=%0A&q=c",
		"%REQ(:authority):7%":                          "payment",
		"%REQ(:scheme)%":                               "http",
		"%QUERY_PARAM(q)%":                             "a b",
		"%QUERY_PARAM(n)%":                             "%0A",
		"%QUERY_PARAM(x)%":                             "",
		"%PROTOCOL%":                                   "HTTP/2",
		"%START_TIME%":                                 "2026-01-02T02:04:05.006Z",
		"%START_TIME(%Y/%m/%d %H:%M:%S.%6f %s)%":       "2026/01/02 02:04:05.006007 1767319445",
		"%HOSTNAME%":                                   machine,
		"%ROUTE_NAME%@%UPSTREAM_CLUSTER%":              "canary@v1",
		"%DOWNSTREAM_REMOTE_ADDRESS%":                  "10.0.0.7:4711",
		"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%":     "10.0.0.7",
		"%DOWNSTREAM_REMOTE_PORT%":                     "4711",
		"%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%":           "10.0.0.7:4711",
		"%DOWNSTREAM_LOCAL_ADDRESS%":                   "[fd00::1]:8080",
		"%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%":      "fd00::1",
		"%DOWNSTREAM_LOCAL_PORT%":                      "8080",
		"%DOWNSTREAM_PEER_URI_SAN%":                    "spiffe://cluster.local/ns/shop/sa/customer",
		"%RESP(x-served)%":                             "by me",
		"%RESP(x-none?x-served)%":                      "by me",
		"%RESPONSE_CODE% of %UPSTREAM_REMOTE_ADDRESS%": "418 of 10.0.0.9:80",
	} {
		route := d.Route
		route.Headers.ResponseAdd = []discovery.HeaderValue{{Name: "x", Format: format(t, text), KeepEmpty: true}}
		h := headers{"x-served": {"by me"}}
		d.MutateResponse(h, req, facts)
		if got := h["x"]; len(got) != 1 || got[0] != want {
			t.Errorf("%s gave %q, want %q", text, got, want)
		}
	}
}

// What is not known is empty, and an empty value sets no header unless it is to
// be kept.
func TestBU6_WhatIsNotKnownIsEmpty(t *testing.T) {
	t.Parallel()
	d := Decision{Table: &discovery.RouteTable{}, VirtualHost: &discovery.VirtualHost{}, Route: &discovery.Route{}}
	for _, text := range []string{
		"%REQ(x)%", "%QUERY_PARAM(x)%", "%ROUTE_NAME%", "%UPSTREAM_CLUSTER%", "%RESP(x)%", "%RESPONSE_CODE%", "%PROTOCOL%",
		"%DOWNSTREAM_REMOTE_ADDRESS%", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "%DOWNSTREAM_REMOTE_PORT%",
		"%DOWNSTREAM_LOCAL_ADDRESS%", "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", "%DOWNSTREAM_LOCAL_PORT%",
		"%DOWNSTREAM_PEER_URI_SAN%", "%UPSTREAM_REMOTE_ADDRESS%",
	} {
		d.Route.Headers.RequestAdd = []discovery.HeaderValue{
			{Name: "x-left-out", Format: format(t, text)}, {Name: "x-kept", Format: format(t, text), KeepEmpty: true},
		}
		h := headers{}
		d.MutateRequest(h, get("payment", "/"), &Facts{})
		if got := h.lines(); got != "x-kept: " {
			t.Errorf("%s gave %q", text, got)
		}
	}
}

// A value may be made of a header that an earlier operation set.
func TestBU6_AValueSeesTheOperationsBeforeIt(t *testing.T) {
	t.Parallel()
	d := levelled(func(level string) discovery.HeaderMutations {
		return discovery.HeaderMutations{RequestAdd: []discovery.HeaderValue{
			{Name: "x-trail", Format: format(t, "%REQ(x-trail)%>"+level), Action: discovery.OverwriteIfExistsOrAdd},
		}}
	}, false)
	h := headers{"x-trail": {"client"}}
	req := get("payment", "/")
	req.Header = h
	d.MutateRequest(h, req, &Facts{})
	if got, want := h.lines(), "x-trail: client>cluster>route>host>table"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
