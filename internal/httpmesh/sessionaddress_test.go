package httpmesh

import (
	"net/http"
	"testing"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

// TestBL10_AnEndpointIsFoundByEachOfItsAddresses: the payments have addresses of both
// families, which then change places, so that another one is the first. A session
// knows the endpoint by each (gRFC A61), and takes no address for one that is not
// there.
func TestBL10_AnEndpointIsFoundByEachOfItsAddresses(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		six := []string{"[fd00::1]:80", "[fd00::2]:80"}
		dual := func(swapped bool) func(*discovery.Target) {
			return func(t *discovery.Target) {
				endpoints := t.Clusters["v1"].Endpoints.Localities[0].Endpoints
				for i := range endpoints {
					endpoints[i].Additional = []string{six[i]}
					if swapped {
						endpoints[i].Address, endpoints[i].Additional[0] = six[i], endpoints[i].Address
					}
				}
			}
		}
		strict := withSession(discovery.StatefulSession{Cookie: "session", Strict: true})
		target := newTarget(protocol, balancedTo(2, balancer.Config{}), dual(false), strict)
		w := newWorld(t, target, nil)
		counts := w.replicas(2, nil)
		for i, address := range six {
			w.serve(address, func(http.ResponseWriter, *http.Request) { counts[i].Add(1) })
		}
		_, cookie := w.call("/", "")
		mine := 0
		if counts[1].Load() == 1 {
			mine = 1
		}
		both := replicaAddress(mine) + "," + six[mine]
		if cookie != state(both) {
			t.Fatalf("the cookie is %q, want one of %s", cookie, both)
		}
		stays := func(brought string, want string) {
			t.Helper()
			before := counts[mine].Load()
			for range 6 {
				if resp, set := w.call("/", state(brought)); resp.StatusCode != http.StatusOK || set != want {
					t.Errorf("%s: status %d, cookie %q, want 200 and %q", brought, resp.StatusCode, set, want)
				}
			}
			if got := counts[mine].Load() - before; got != 6 {
				t.Errorf("%s: %d of 6 calls stayed", brought, got)
			}
		}
		stays(both, "")
		stays(replicaAddress(mine), state(both)) // as of a caller that knew one address
		stays(six[mine], state(both))
		stays("10.9.9.9:80,"+six[mine], state(both)) // the first one is gone
		for _, forged := range []string{"10.9.9.9:80,[fd00::9]:80", ",", "10.9.9.9:80,"} {
			if resp, set := w.call("/", state(forged)); resp.StatusCode != http.StatusServiceUnavailable || set != "" {
				t.Errorf("%q: status %d, cookie %q, want 503 and none", forged, resp.StatusCode, set)
			}
		}

		next := newTarget(protocol, balancedTo(2, balancer.Config{}), dual(true))
		next.Clusters["v1"] = discovery.ClusterResult{Cluster: target.Clusters["v1"].Cluster, Endpoints: next.Clusters["v1"].Endpoints}
		held := w.upstreams.Hold(next.Clusters)
		defer w.upstreams.Release(held)
		stays(both, state(six[mine]+","+replicaAddress(mine)))
		w.idle()
	})
}
