package httpmesh

import (
	"net/http"
	"slices"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

// TestBU3_BT7_AHeaderIsTheSameHoweverItsKeyIsWritten: what an application puts into the
// map by itself is matched, removed and replaced as what it sets by Header.Set.
func TestBU3_BT7_AHeaderIsTheSameHoweverItsKeyIsWritten(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		target := newTarget(protocol, limited(2_000_000_000), func(target *discovery.Target) {
			top(target).Headers.RequestRemove = []string{"x-secret"}
		})
		var got http.Header
		w := newWorld(t, target, func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Clone() })
		req := newRequest(t.Context(), t, http.MethodGet, paymentURL, nil)
		req.Header["x-secret"] = []string{"1"}
		req.Header["X-SECRET"] = []string{"2"}
		req.Header["x-envoy-expected-rq-timeout-ms"] = []string{"99999"}
		req.Header["x-other"] = []string{"a"}
		req.Header["X-Other"] = []string{"b"}
		_ = readAll(t, w.do(req))
		w.idle()
		other := got["X-Other"]
		slices.Sort(other)
		if len(got["X-Secret"]) != 0 || !slices.Equal(got[DefaultDeadlineHeader], []string{"2000"}) || !slices.Equal(other, []string{"a", "b"}) {
			t.Errorf("arrived: %v", got)
		}
		if len(req.Header) != 5 || len(req.Header["X-Other"]) != 1 {
			t.Errorf("the caller's headers were changed: %v", req.Header)
		}
	})
}
