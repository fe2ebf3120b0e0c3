package upstream

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
)

// TestBN3_WhoTakesNoStreamIsAvoidedUntilItTakesSome: its calls fail as those do for which
// there is no connection, within the connect timeout, so that others are tried.
func TestBN3_WhoTakesNoStreamIsAvoidedUntilItTakesSome(t *testing.T) {
	t.Parallel()
	for name, allowed := range map[string]uint32{"from the beginning": 0, "later": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				s := newSparing(w, allowed, time.Second)
				c, e := w.one(func(c *discovery.Cluster) {
					speakHTTP2(c)
					c.ConnectTimeout = 3 * time.Second
				})
				if allowed > 0 {
					get(t, e)
					s.allow(0)
				}
				for range 2 { // it is tried if there is no other
					begin := time.Now()
					first := start(t.Context(), t, e)
					time.Sleep(time.Second)
					if e.Host().Reachable() {
						t.Error("it is not avoided")
					}
					second := start(t.Context(), t, e)
					for _, call := range []*call{first, second} {
						<-call.done
						if call.failure == nil || call.failure.Kind != outcome.ConnectFailure || call.failure.Sent {
							t.Errorf("got %+v, want a failure to connect", call.failure)
						}
					}
					if took := time.Since(begin); took != 3*time.Second {
						t.Errorf("it failed after %v", took)
					}
					if e.Host().Reachable() {
						t.Error("it is avoided no more")
					}
				}
				s.allow(2)
				if !e.Host().Reachable() {
					t.Error("it is avoided still")
				}
				get(t, e)
				w.expectConnections(1, 0)
				expectIdle(t, c, 1)
			})
		})
	}
}

// TestBN3_AClosedDoorIsForgottenWithItsConnection, so that the next one is a new beginning.
func TestBN3_AClosedDoorIsForgottenWithItsConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := newSparing(w, 0, time.Second)
		c, e := w.one(speakHTTP2)
		call := start(t.Context(), t, e)
		time.Sleep(time.Second)
		s.mu.Lock()
		s.allowed = 1 // on new connections
		s.mu.Unlock()
		s.goAway()
		call.wait(t)
		if !e.Host().Reachable() {
			t.Error("it is avoided still")
		}
		w.expectConnections(2, 1)
		expectIdle(t, c, 1)
	})
}

// TestBN3_WhoLeavesNoPlaceForNowIsWaitedFor, for as long as its calls take.
func TestBN3_WhoLeavesNoPlaceForNowIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := newSparing(w, 1, time.Minute)
		_, e := w.one(func(c *discovery.Cluster) {
			speakHTTP2(c)
			c.Limits[0].MaxConnections = 1
		})
		running := start(t.Context(), t, e)
		synctest.Wait()
		resp := start(t.Context(), t, e)
		running.wait(t)
		resp.wait(t)
		if s.requests != 2 {
			t.Errorf("%d requests", s.requests)
		}
		if _, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), discovery.PriorityDefault); failure != nil {
			t.Error(failure.Err)
		}
		w.expectConnections(1, 0)
	})
}
