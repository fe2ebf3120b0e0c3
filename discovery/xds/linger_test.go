package xds_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery"
)

func TestX26_WhatIsGivenUpShortlyBeforeAnOutageBeginsAgainInIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		serveOne(cp)
		cp.set(serverListener("in"), serverRoutes("in"))
		source := cp.source()
		served, address := new(recorder[*discovery.Target]), new(recorder[*discovery.Inbound])
		leave := source.WatchTarget(destination, served.notify)
		shut := source.WatchInbound("0.0.0.0:8080", address.notify)
		cp.accept()
		first := address.last(t).Value
		served.take()
		leave()
		shut()
		leave()
		time.Sleep(time.Minute)
		cp.run()
		// It is followed: what comes meanwhile is what begins again.
		cp.set(endpoints("a", 2))
		cp.set(serverRoutes("in"))
		cp.stop()
		time.Sleep(time.Hour)
		served.none(t)
		address.none(t)
		again := watchTarget(source)
		source.WatchInbound("0.0.0.0:8080", address.notify)
		synctest.Wait()
		if got := again.last(t); got.Value == nil || addressOf(got.Value, "a") != "10.0.0.1:2" {
			t.Errorf("published %+v, want what came last", got)
		}
		if got := address.last(t); got.Value == nil || got.Value == first {
			t.Errorf("published %+v, want what came last", got)
		}
	})
}

// What the control plane tightens or takes away after it was given up is that, also at
// the next beginning.
func TestX33_WhatIsTakenAwayAfterItWasGivenUpDoesNotBeginAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		serveOne(cp)
		source := cp.source()
		served := new(recorder[*discovery.Target])
		leave := source.WatchTarget(destination, served.notify)
		cp.accept()
		leave()
		cp.set(apiListener("tight"), routes("tight", "b"), cluster("b"), endpoints("b", 9))
		cp.remove(clusterURL, "a")
		cp.stop()
		time.Sleep(time.Minute)
		again := watchTarget(source)
		synctest.Wait()
		if got := again.last(t); got.Value == nil || addressOf(got.Value, "b") != "10.0.0.1:9" || len(got.Value.Clusters) != 1 {
			t.Errorf("published %+v, want the newer routes", got)
		}
	})
}

// Who uses what is taken away goes on with it. Who comes later does not begin with it.
func TestX33_WhatIsTakenAwayAfterItWasGivenUpIsNotThereForWhoComesLater(t *testing.T) {
	t.Parallel()
	for _, taken := range []proto.Message{apiListener("r"), cluster("a"), serverListener("in")} {
		for _, outage := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				cp := newControlPlane(t)
				serveOne(cp)
				cp.set(serverListener("in"), serverRoutes("in"))
				source := cp.source()
				source.WatchTarget("other:1", func(discovery.Update[*discovery.Target]) {}) // keeps the stream
				leave := source.WatchTarget(destination, new(recorder[*discovery.Target]).notify)
				shut := source.WatchInbound("0.0.0.0:8080", new(recorder[*discovery.Inbound]).notify)
				cp.accept()
				leave()
				shut()
				cp.remove(nameOf(taken))
				if outage {
					cp.stop()
				}
				time.Sleep(time.Second)
				cp.run()
				again, address := watchTarget(source), new(recorder[*discovery.Inbound])
				source.WatchInbound("0.0.0.0:8080", address.notify)
				cp.run()
				time.Sleep(time.Minute)
				_, name := nameOf(taken)
				inbound := name == "inbound/0.0.0.0:8080"
				for _, u := range again.take() {
					if !inbound && u.Value != nil && u.Value.Clusters["a"].Err == nil {
						t.Errorf("%T, outage %v: published %+v", taken, outage, u)
					}
				}
				for _, u := range address.take() {
					if inbound && u.Value != nil {
						t.Errorf("%T, outage %v: published %+v", taken, outage, u)
					}
				}
			})
		}
	}
}

// What stayed ends with its Listener, and then it watches nothing any more: it would be told
// of what went with the Listener, and end again, for ever.
func TestX33_X103_WhatEndsBecauseItWasTakenAwayIsNotAskedForAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		serveOne(cp)
		cp.set(serverListener("in"), serverRoutes("in"))
		source := cp.source()
		source.WatchTarget("other:1", func(discovery.Update[*discovery.Target]) {}) // keeps the stream
		leave := source.WatchTarget(destination, new(recorder[*discovery.Target]).notify)
		shut := source.WatchInbound("0.0.0.0:8080", new(recorder[*discovery.Inbound]).notify)
		cp.accept()
		leave()
		shut()
		cp.remove(nameOf(apiListener("r")))
		cp.remove(nameOf(serverListener("in")))
		time.Sleep(time.Second) // much less than the stay
		cp.run()
		if got := source.Dump(); len(got) != 1 {
			t.Errorf("%+v are known, want the one that is watched", got)
		}
	})
}

func TestX103_WhatIsGivenUpEndsAfterFiveMinutesAndWithTheSixtyFifth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		source := cp.source()
		source.WatchTarget("other:1", func(discovery.Update[*discovery.Target]) {}) // keeps the stream
		cp.accept()
		var all []proto.Message
		for i := range 200 {
			listener := apiListener("r")
			listener.Name = fmt.Sprintf("payment:%d", i)
			all = append(all, listener)
		}
		cp.set(append(all, routes("r", "a"), cluster("a"), endpoints("a", 1))...)
		for i := range 200 {
			published := new(recorder[*discovery.Target])
			stop := source.WatchTarget(fmt.Sprintf("payment:%d", i), published.notify)
			cp.run()
			if published.last(t).Value == nil {
				t.Fatal("nothing was published")
			}
			stop()
			cp.run()
		}
		names := func() (listeners []string) {
			for _, r := range source.Dump() {
				if r.Type == "Listener" && r.State == "ACKED" {
					listeners = append(listeners, r.Name)
				}
			}
			return listeners
		}
		if got := names(); len(got) != 64 || !slices.Contains(got, "payment:199") || slices.Contains(got, "payment:135") {
			t.Errorf("%q are followed, want the last 64", got)
		}
		// One that was never there does not stay.
		source.WatchTarget("nowhere:1", func(discovery.Update[*discovery.Target]) {})()
		cp.run()
		time.Sleep(5 * time.Minute)
		cp.run()
		if got := source.Dump(); len(got) != 1 {
			t.Errorf("%+v are known, want the one that is watched", got)
		}
	})
}
