package httpmesh

import (
	"fmt"
	"maps"
	"net/http"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

// BU6: what a route removes is not sent, although net/http has a value of its own for
// it; in no attempt.
func TestBU6_WhatIsRemovedIsNotSent(t *testing.T) {
	t.Parallel()
	add := func(name string, action discovery.HeaderAction) []discovery.HeaderValue {
		return []discovery.HeaderValue{{Name: name, Value: "route", Action: action}}
	}
	for _, tt := range []struct {
		name  string
		own   http.Header
		edit  discovery.HeaderMutations
		agent []string // nil is none
		codes []string
	}{
		{name: "nothing", agent: []string{"net/http's"}, codes: []string{"gzip"}},
		{name: "net/http's own", edit: discovery.HeaderMutations{RequestRemove: []string{"user-agent", "accept-encoding"}}, codes: []string{"identity"}},
		{
			name: "the application's", own: http.Header{"User-Agent": {"customer/1"}, "Accept-Encoding": {"br"}},
			edit: discovery.HeaderMutations{RequestRemove: []string{"user-agent", "accept-encoding"}}, codes: []string{"identity"},
		},
		{
			name: "to be replaced", own: http.Header{"User-Agent": {"customer/1"}},
			edit:  discovery.HeaderMutations{RequestRemove: []string{"user-agent"}, RequestAdd: add("user-agent", discovery.AddIfAbsent)},
			agent: []string{"route"}, codes: []string{"gzip"},
		},
		{
			name: "a coding, to be replaced", own: http.Header{"User-Agent": {"customer/1"}, "Accept-Encoding": {"br"}},
			edit:  discovery.HeaderMutations{RequestRemove: []string{"accept-encoding"}, RequestAdd: add("accept-encoding", discovery.AddIfAbsent)},
			agent: []string{"customer/1"}, codes: []string{"route"},
		},
		{
			name: "a coding, to which one is appended", own: http.Header{"User-Agent": {"customer/1"}},
			edit:  discovery.HeaderMutations{RequestRemove: []string{"accept-encoding"}, RequestAdd: add("accept-encoding", discovery.AppendIfExistsOrAdd)},
			agent: []string{"customer/1"}, codes: []string{"route"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				var w *world
				w = newWorld(t, newTarget(protocol, retrying(retry.Policy{MaxRetries: 1, On: retry.On5xx}), func(target *discovery.Target) {
					top(target).Headers = tt.edit
				}), func(rw http.ResponseWriter, r *http.Request) {
					agent := r.Header["User-Agent"]
					if len(agent) == 1 && len(agent[0]) > 3 && agent[0][:3] == "Go-" {
						agent = []string{"net/http's"}
					}
					if got := r.Header["Accept-Encoding"]; fmt.Sprint(got) != fmt.Sprint(tt.codes) || fmt.Sprint(agent) != fmt.Sprint(tt.agent) {
						t.Errorf("the payment got user-agent %q, accept-encoding %q, want %q and %q", agent, got, tt.agent, tt.codes)
					}
					if w.served.Load() == 1 {
						rw.WriteHeader(http.StatusServiceUnavailable)
					}
				})
				req := newRequest(t.Context(), t, http.MethodGet, paymentURL, nil)
				maps.Copy(req.Header, tt.own)
				_ = readAll(t, w.do(req))
				if n := w.served.Load(); n != 2 {
					t.Errorf("%d attempts", n)
				}
			})
		})
	}
}
