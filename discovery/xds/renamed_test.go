package xds

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

func TestX69_EndpointsUnderANewNameReplaceTheOldOnesInOneStep(t *testing.T) {
	t.Parallel()
	w, published, first := serving(t)
	moved := &discovery.Cluster{Name: "a", EDSName: "a2"}
	w.set(moved)
	w.pump()
	published.none(t)
	newer := assignment("a")
	w.set(newer) // another name: it warms nothing, and is that of the version in force
	w.pump()
	if got := published.one(t).Value.Clusters["a"]; got.Cluster != first.Clusters["a"].Cluster || got.Endpoints != newer {
		t.Errorf("cluster %+v, want the old settings with the newest of the old endpoints", got)
	}
	w.set(assignment("a2"))
	w.pump()
	if got := published.one(t).Value.Clusters["a"]; got.Cluster != moved || got.Endpoints.Name != "a2" {
		t.Errorf("cluster %+v, want the new settings with the new endpoints", got)
	}
	if got := w.watched(eds("").url); !slices.Equal(got, []string{"a2"}) {
		t.Errorf("endpoints %q are watched", got)
	}
}

// What the control plane takes away of the version in force does not stay.
func TestX69_EndpointsThatAreGoneAreNotHeld(t *testing.T) {
	t.Parallel()
	w, published, _ := serving(t)
	w.set(&discovery.Cluster{Name: "a", EDSName: "a2"})
	w.fail(eds("a2"), invalid(eds("a2")), true)
	w.pump()
	published.take()
	w.fail(eds("a"), notFound(eds("a")), true)
	w.pump()
	if got := published.one(t).Value.Clusters["a"]; got.Err == nil || !strings.Contains(got.Err.Error(), `"a2"`) {
		t.Errorf("cluster %+v, want the error of the new endpoints", got)
	}
}

// The way back needs nothing new.
func TestX69_EndpointsUnderTheOldNameAgainAreThere(t *testing.T) {
	t.Parallel()
	w, published, first := serving(t)
	w.set(&discovery.Cluster{Name: "a", EDSName: "a2"})
	w.pump()
	back := edsCluster("a")
	w.set(back)
	w.pump()
	if got := published.one(t).Value.Clusters["a"]; got.Cluster != back || got.Endpoints != first.Clusters["a"].Endpoints {
		t.Errorf("cluster %+v, want the new settings with the same endpoints", got)
	}
	if got := w.watched(eds("").url); !slices.Equal(got, []string{"a"}) {
		t.Errorf("endpoints %q are watched", got)
	}
}

// The old ones are good: a control plane that names others which it does not have, or
// which are refused, fails no call.
func TestX69_EndpointsUnderANewNameThatAreBrokenReplaceNothing(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{"none": notFound(eds("a2")), "refused": invalid(eds("a2"))} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, published, first := serving(t)
			w.set(&discovery.Cluster{Name: "a", EDSName: "a2"})
			w.fail(eds("a2"), err, true)
			w.pump()
			updates := published.take()
			if len(updates) == 0 {
				t.Error("nobody is told")
			}
			for _, update := range updates {
				if got := update.Value.Clusters["a"]; got.Err != nil || got.Endpoints != first.Clusters["a"].Endpoints {
					t.Errorf("cluster %+v, want the old endpoints", got)
				}
				if !strings.Contains(fmt.Sprint(update.Err), `"a2"`) {
					t.Errorf("%v, want that it tells of a2", update.Err)
				}
			}
			w.set(assignment("a2"))
			w.pump()
			if got := published.one(t).Value.Clusters["a"]; got.Endpoints.Name != "a2" {
				t.Errorf("cluster %+v, want the new endpoints once they are there", got)
			}
		})
	}
}
