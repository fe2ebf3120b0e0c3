package upstream

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// Whoever counts the open breakers of endpoints must not count those of endpoints that
// are gone for ever.
func TestBreakersOfEndpointsThatAreGoneAreClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var told []string
		w.manager.options.Hooks.BreakerChanged = func(e observe.BreakerEvent) {
			told = append(told, e.Endpoint+" "+e.From+" "+e.To)
		}
		guarded := func(c *discovery.Cluster) {
			c.EndpointBreaker = &breaker.Settings{FailureRatio: 0.5, MinRequests: 1, Window: time.Minute, OpenTime: time.Minute, HalfOpenProbes: 1}
		}
		want := func(when string, events ...string) {
			t.Helper()
			slices.Sort(told)
			if !slices.Equal(told, events) {
				t.Errorf("%s: told %q, want %q", when, told, events)
			}
			told = nil
		}
		c := w.hold(result(guarded, "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"))
		var last *Endpoint
		for e := range c.Endpoints {
			if last = e; e.Address() == "10.0.0.3:80" {
				break // it stays closed
			}
			permit, err := e.Allow()
			if err != nil {
				t.Fatal(err)
			}
			permit.Done(outcome.Failure)
		}
		want("two fail", "10.0.0.1:80 closed open", "10.0.0.2:80 closed open")
		late, err := last.Allow()
		if err != nil {
			t.Fatal(err)
		}
		w.hold(result(guarded, "10.0.0.2:80"))
		want("one of them leaves", "10.0.0.1:80 open closed")
		late.Done(outcome.Failure)
		want("an attempt ends at one that has left")
		w.hold(result(nil, "10.0.0.2:80"))
		want("the others lose their breakers", "10.0.0.2:80 open closed")
		w.hold(result(guarded, "10.0.0.2:80"))
		for e := range c.Endpoints {
			permit, err := e.Allow()
			if err != nil {
				t.Fatal(err)
			}
			permit.Done(outcome.Failure)
		}
		want("it fails again", "10.0.0.2:80 closed open")
		w.manager.Close()
		want("the mesh is closed", "10.0.0.2:80 open closed")
	})
}
