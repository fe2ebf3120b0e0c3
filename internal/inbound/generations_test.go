package inbound

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
)

// policiesOf are policies about connections and requests, and tokens whose keys are at a
// place of their own.
func policiesOf(generation int) (network []*discovery.RBAC, filters []discovery.HTTPFilter) {
	name := fmt.Sprintf("g%d", generation)
	rules := func(kind discovery.RBACRule) *discovery.RBACRules {
		return &discovery.RBACRules{Action: discovery.RBACDeny, Policies: []discovery.RBACPolicy{{
			Name: name, Permissions: []discovery.RBACRule{kind}, Principals: []discovery.RBACRule{{Kind: discovery.RBACAny}},
		}}}
	}
	server := discovery.RBACRule{Kind: discovery.RBACServerName, Text: &discovery.StringMatch{Kind: discovery.MatchExact, Value: name}}
	path := discovery.RBACRule{Kind: discovery.RBACPath, Text: &discovery.StringMatch{Kind: discovery.MatchExact, Value: "/" + name}}
	return []*discovery.RBAC{{Rules: rules(server)}}, []discovery.HTTPFilter{
		{Name: "rbac", Config: &discovery.RBAC{Rules: rules(path)}},
	}
}

// TestV50_GenerationsOfAListenerLeaveNothingBehind: after ten thousand configurations of
// one listener, each with other chains, policies, routes and names of peers, over a
// connection that stays, the process holds what the last one needs.
func TestV50_GenerationsOfAListenerLeaveNothingBehind(t *testing.T) { //nolint:paralleltest // it reads what the whole process holds
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ln, conn, _ := b.accepted(strict(), b.client(customerID))
		generations := func(from, to int) {
			for i := from; i < to; i++ {
				tls := mutualTLS()
				tls.SANs = []discovery.StringMatch{{Kind: discovery.MatchPrefix, Value: fmt.Sprintf("spiffe://g%d/", i)}, {Kind: discovery.MatchPrefix, Value: "spiffe://cluster.local/"}}
				next := chain(fmt.Sprintf("c%d", i), "tls", tls)
				next.Network, next.Filters = policiesOf(i)
				b.source.publish(address, discovery.Update[*discovery.Inbound]{Value: inbound(next)})
				if i%100 == 0 {
					time.Sleep(streamCheck) // idle connections are looked at
					if !served(ln, conn) {
						t.Fatalf("generation %d serves nobody", i)
					}
				}
			}
		}
		held := func() int64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		generations(0, 500)
		before, goroutines := held(), runtime.NumGoroutine()
		generations(500, 10_000)
		if grown := held() - before; grown > 2<<20 {
			t.Errorf("%d KiB more are held after 9500 configurations", grown>>10)
		}
		if n := runtime.NumGoroutine(); n > goroutines+20 { // of other tests, too
			t.Errorf("%d goroutines, %d before", n, goroutines)
		}
	})
}
