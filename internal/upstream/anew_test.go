package upstream

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
)

// repetition is a request whose connection has just been found dead.
type repetition struct{}

func (repetition) Depart() *Failure { return nil }
func (repetition) Anew() bool       { return true }

// TestBN11_ARepetitionHasANewConnection, never one that another call gives back: its
// server may be about to close that, too. At the limit of connections it takes its place.
func TestBN11_ARepetitionHasANewConnection(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		limit uint32
		took  time.Duration
		ended int // connections
	}{
		{"at the limit", 1, 2 * time.Second, 1},
		{"below the limit", 4, time.Second, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
					time.Sleep(time.Second)
					answer(rw, r)
				})
				_, e := w.one(func(c *discovery.Cluster) { c.Limits[0].MaxConnections = tt.limit })
				first := start(t.Context(), t, e)
				synctest.Wait()
				begin := time.Now()
				again := make(chan time.Duration, 1)
				go func() { // the test waits for it
					resp, failure := e.Send(newRequest(t.Context(), t, http.MethodGet, nil), discovery.PriorityDefault, repetition{})
					if failure != nil {
						t.Error(failure.Err)
					} else {
						_ = read(t, resp)
					}
					again <- time.Since(begin)
				}()
				synctest.Wait()
				first.wait(t)
				if took := <-again; took != tt.took {
					t.Errorf("the repetition ended after %v, want %v", took, tt.took)
				}
				w.expectConnections(2, tt.ended)
			})
		})
	}
}
