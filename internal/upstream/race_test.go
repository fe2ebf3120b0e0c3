package upstream

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
)

// Calls of every kind meet updates of every kind: no race, no call that fails
// for another reason than its own, nothing counted that is over.
func TestManyCallsMeetManyUpdates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const callers, calls = 32, 60
		w := newWorld(t)
		addresses := []string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"}
		for _, address := range addresses {
			w.serve(address, func(rw http.ResponseWriter, r *http.Request) {
				time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
				_, _ = io.Copy(rw, io.LimitReader(zeros{}, int64(rand.IntN(20<<10))))
			}, streams(4))
		}
		update := func() map[string]discovery.ClusterResult {
			n := 1 + rand.IntN(len(addresses))
			return result(func(c *discovery.Cluster) {
				c.Protocol = discovery.HTTPProtocol(rand.IntN(2))
				c.Limits[0].MaxConnections = uint32(1 + rand.IntN(8))
				c.MaxRequestsPerConnection = uint32(rand.IntN(6))
				c.IdleTimeout = time.Duration(rand.IntN(10)) * time.Millisecond
				c.MaxConnectionDuration = time.Duration(rand.IntN(50)) * time.Millisecond
			}, addresses[:n]...)
		}
		held := w.manager.Hold(update())
		c := held["payment"]
		var running sync.WaitGroup
		for range callers {
			running.Go(func() {
				for range calls {
					raceCall(t, c)
				}
			})
		}
		stop := make(chan struct{})
		var updating sync.WaitGroup
		updating.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				next := w.manager.Hold(update())
				w.manager.Release(held)
				held = next
			}
		})
		running.Wait()
		close(stop)
		updating.Wait()
		w.manager.Release(held)
		expectIdle(t, c, 0)
		opened, closed := w.connections()
		t.Logf("%d connections", opened)
		if opened != closed {
			t.Errorf("%d connections opened, %d closed", opened, closed)
		}
	})
}

func raceCall(t *testing.T, c *Cluster) {
	t.Helper()
	e, err := c.Pick(balancer.PickInfo{})
	if err != nil {
		t.Error(err)
		return
	}
	ctx := t.Context()
	hurry := rand.IntN(3) == 0
	if hurry {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(rand.IntN(4))*time.Millisecond)
		defer cancel()
	}
	resp, failure := e.RoundTrip(newRequest(ctx, t, http.MethodGet, nil), discovery.PriorityDefault)
	if failure != nil {
		// A peer that refuses certifies it, which is what the pipeline repeats for.
		if !hurry && failure.Kind != outcome.RefusedStream && failure.Kind != outcome.ResetBeforeRequest {
			t.Errorf("%v (sent: %t): %v", failure.Kind, failure.Sent, failure.Err)
		}
		return
	}
	if rand.IntN(2) == 0 {
		if _, err := io.Copy(io.Discard, resp.Body); err != nil && !hurry {
			t.Error(err)
		}
	}
	_ = resp.Body.Close()
}
