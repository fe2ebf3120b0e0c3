package httpmesh

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

// withSession has the calls of a target stay with one endpoint.
func withSession(config discovery.StatefulSession) func(*discovery.Target) {
	return func(t *discovery.Target) {
		if config.Cookie != "" && config.NewCookie == nil {
			config.NewCookie = &discovery.NewCookie{}
		}
		if config.StatusMissing == 0 {
			config.StatusMissing = http.StatusServiceUnavailable
		}
		t.Listener.Filters = []discovery.HTTPFilter{{Name: "session", Config: &config}}
	}
}

// state is what a caller brings to stay with an endpoint.
func state(address string) string { return base64.StdEncoding.EncodeToString([]byte(address)) }

// call makes a call with a cookie, unless that is "", and returns the response and
// the value of the cookie that it sets.
func (w *world) call(path, cookie string) (resp *http.Response, set string) {
	w.t.Helper()
	req := newRequest(w.t.Context(), w.t, http.MethodGet, "http://payment.shop"+path, http.NoBody)
	if cookie != "" {
		req.Header.Set("Cookie", "other=1; session="+cookie)
	}
	resp = w.do(req)
	_ = resp.Body.Close()
	for _, c := range resp.Cookies() {
		if c.Name == "session" {
			set = c.Value
		}
	}
	return resp, set
}

func TestS22_BL10_StickyCookie(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		config := balancer.Config{Pinnable: balancer.NewHealthSet(balancer.Unknown, balancer.Healthy, balancer.Draining)}
		cookie := discovery.StatefulSession{Cookie: "session", NewCookie: &discovery.NewCookie{Path: "/cart", TTL: 60e9}}
		target := newTarget(protocol, balancedTo(2, config), withSession(cookie))
		w := newWorld(t, target, func(http.ResponseWriter, *http.Request) {}) // it is no endpoint of the cluster
		counts := w.replicas(2, nil)
		apply := func(edit func([]balancer.Endpoint) []balancer.Endpoint) {
			next := newTarget(protocol, balancedTo(2, config))
			l := &next.Clusters["v1"].Endpoints.Localities[0]
			l.Endpoints = edit(l.Endpoints)
			next.Clusters["v1"] = discovery.ClusterResult{Cluster: target.Clusters["v1"].Cluster, Endpoints: next.Clusters["v1"].Endpoints}
			held := w.upstreams.Hold(next.Clusters)
			t.Cleanup(func() { w.upstreams.Release(held) })
		}
		_, session := w.call("/cart", "")
		mine := 0
		if counts[1].Load() == 1 {
			mine = 1
		}
		if want := state(replicaAddress(mine)); session != want {
			t.Fatalf("the cookie is %q, want %q", session, want)
		}
		stays := func(when string) {
			t.Helper()
			before := counts[mine].Load()
			for range 10 {
				if resp, set := w.call("/cart/1", session); set != "" {
					t.Errorf("%s: the cookie is set anew: %v", when, resp.Header)
				}
			}
			if got := counts[mine].Load() - before; got != 10 {
				t.Errorf("%s: %d of 10 calls stayed", when, got)
			}
		}
		stays("in the beginning")
		if resp, _ := w.call("/carts", session); len(resp.Header.Values("Set-Cookie")) != 0 {
			t.Error("a path that is not the cookie's has a session")
		}

		apply(func(e []balancer.Endpoint) []balancer.Endpoint { e[mine].Health = balancer.Draining; return e })
		stays("while the endpoint drains")
		before := counts[mine].Load()
		for range 10 {
			w.call("/cart", "")
		}
		if counts[mine].Load() != before {
			t.Error("a new caller came to the endpoint that drains")
		}

		apply(func(e []balancer.Endpoint) []balancer.Endpoint { return e[1-mine : 2-mine] })
		resp, next := w.call("/cart", session)
		if want := state(replicaAddress(1 - mine)); next != want {
			t.Errorf("after its end the cookie is %q, want %q", next, want)
		}
		if got := resp.Header.Get("Set-Cookie"); !strings.HasSuffix(got, "; Max-Age=60; Path=/cart; HttpOnly") {
			t.Errorf("the cookie is set by %q", got)
		}

		for _, forged := range []string{
			state(paymentAddress), state("10.9.9.9:80"), state("payment.shop:80"), state("127.0.0.1:22"), state("[::1]:80"), state("[fe80::1%lo]:80"), state(":80"), state("10.9.9.9"),
			state(replicaAddress(mine)), state("10.9.9.9:80;v1"), state(";v1"), state("10.9.9.9:80;v9"), state("10.9.9.9:80,10.9.9.8:80"), state("10.9.9.9:80\x00" + replicaAddress(1-mine)),
			state(""), "!", "=", strings.TrimRight(state("10.9.9.9:80"), "="), state(strings.Repeat("1", 2000)), state(strings.Repeat("10.9.9.9:80,", 5000)), // oversized
		} {
			before := counts[1-mine].Load()
			if _, set := w.call("/cart", forged); set != next || counts[1-mine].Load() != before+1 {
				t.Errorf("forged address %.100q: cookie %q", forged, set)
			}
		}
		w.asked.Range(func(address, _ any) bool {
			if address != replicaAddress(0) && address != replicaAddress(1) {
				t.Errorf("%v was dialed", address)
			}
			return true
		})
		if n := w.served.Load() - counts[0].Load() - counts[1].Load(); n != 0 {
			t.Errorf("%d calls reached the endpoint of another cluster", n)
		}
	})
}

func TestBL10_StrictSessions(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		session := withSession(discovery.StatefulSession{Cookie: "session", Strict: true, StatusMissing: http.StatusNotFound})
		target := newTarget(protocol, balancedTo(2, balancer.Config{}), session)
		target.Clusters["v1"].Endpoints.Localities[0].Endpoints[1].Health = balancer.Draining // which is not asked for
		w := newWorld(t, target, nil)
		w.replicas(2, nil)
		for address, want := range map[string]int{
			replicaAddress(0): http.StatusOK, replicaAddress(1): http.StatusServiceUnavailable, "10.9.9.9:80": http.StatusNotFound,
		} {
			if resp, set := w.call("/", state(address)); resp.StatusCode != want || set != "" {
				t.Errorf("%s: status %d and cookie %q, want %d and none", address, resp.StatusCode, set, want)
			}
		}
		w.idle()
	})
}

func TestBL10_SessionsInHeaders(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		w := newWorld(t, newTarget(protocol, balancedTo(2, balancer.Config{}), withSession(discovery.StatefulSession{Header: "x-session"})), nil)
		counts := w.replicas(2, nil)
		for range 10 {
			req := newRequest(t.Context(), t, http.MethodGet, "http://payment.shop/", http.NoBody)
			req.Header.Set("X-Session", state(replicaAddress(1)))
			if resp := w.do(req); resp.Header.Get("X-Session") != "" || resp.Body.Close() != nil {
				t.Error("the header is set anew")
			}
		}
		if got := counts[1].Load(); got != 10 {
			t.Errorf("%d of 10 calls stayed", got)
		}
		resp := w.do(newRequest(t.Context(), t, http.MethodGet, "http://payment.shop/", http.NoBody))
		_ = resp.Body.Close()
		if got := resp.Header.Get("X-Session"); got != state(replicaAddress(0)) && got != state(replicaAddress(1)) {
			t.Errorf("the header is %q", got)
		}
	})
}

// With several clusters the cookie names one, and an address of one of them is no
// address of another.
func TestBL10_SessionsStayInTheirCluster(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		target := newTarget(protocol, balancedTo(1, balancer.Config{}), withSession(discovery.StatefulSession{Cookie: "session", Strict: true}))
		v1 := target.Clusters["v1"]
		v2 := *v1.Cluster
		v2.Name = "v2"
		target.Clusters["v2"] = discovery.ClusterResult{Cluster: &v2, Endpoints: &discovery.Assignment{Localities: []balancer.LocalityEndpoints{{
			Weight: 1, Endpoints: []balancer.Endpoint{{Address: replicaAddress(1)}},
		}}}}
		top(target).Forward.Clusters = []discovery.WeightedCluster{{Name: "v1", Weight: 50}, {Name: "v2", Weight: 50}, {Name: "v3"}}
		w := newWorld(t, target, nil)
		counts := w.replicas(2, nil)
		for range 20 {
			if resp, set := w.call("/", state(replicaAddress(1)+";v2")); resp.StatusCode != http.StatusOK || set != "" {
				t.Fatalf("status %d, cookie %q", resp.StatusCode, set)
			}
		}
		if counts[0].Load() != 0 {
			t.Error("a session changed its cluster")
		}
		for _, forged := range []string{";v1", ";v3", ";v4"} {
			if resp, _ := w.call("/", state(replicaAddress(1)+forged)); resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("%q: status %d, want 503", forged, resp.StatusCode)
			}
		}
		if _, set := w.call("/", ""); set != state(replicaAddress(0)+";v1") && set != state(replicaAddress(1)+";v2") {
			t.Errorf("the cookie is %q", set)
		}
	})
}
