package upstream

import (
	"net/http"
	"runtime/debug"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/discovery"
)

// TestV49_ADeletedClusterWithManyConnectionsEndsAtOnce: 5,000 connections are idle when
// their cluster is taken away. They are closed in one step, in no time, without a stack
// that grows with their number: the whole of it would not fit.
func TestV49_ADeletedClusterWithManyConnectionsEndsAtOnce(t *testing.T) { //nolint:paralleltest // the size of stacks is the process's
	const many = 5000
	defer debug.SetMaxStack(debug.SetMaxStack(1 << 20))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			<-release
			answer(rw, r)
		})
		held := w.manager.Hold(result(func(c *discovery.Cluster) {
			for i := range c.Limits {
				c.Limits[i].MaxConnections, c.Limits[i].MaxPendingRequests, c.Limits[i].MaxRequests = many, many, many
			}
		}, paymentAddress))
		e := endpoint(t, held["payment"], paymentAddress)
		var calls sync.WaitGroup
		for range many {
			calls.Go(func() {
				resp, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), discovery.PriorityDefault)
				if failure != nil {
					t.Errorf("%v", failure.Err)
					return
				}
				read(t, resp)
			})
		}
		synctest.Wait()
		close(release)
		calls.Wait()
		w.expectConnections(many, 0)
		w.manager.Release(held)
		w.expectConnections(many, many)
	})
}
