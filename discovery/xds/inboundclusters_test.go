package xds

import (
	"slices"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds/internal/decode"
)

// guarded is a Listener whose filter fetches keys through clusters.
func guarded(clusters ...string) *decode.ListenerResource {
	l := serverResource("")
	config := &discovery.JWTAuthn{Providers: map[string]*discovery.JWTProvider{}}
	for _, name := range clusters {
		config.Providers[name] = &discovery.JWTProvider{RemoteKeys: &discovery.JWTRemoteKeys{Cluster: name}}
	}
	l.Inbound.Default.Filters = []discovery.HTTPFilter{{Name: "jwt", Config: config}}
	return l
}

func TestAListenerIsPublishedWithTheClustersOfItsFilters(t *testing.T) {
	t.Parallel()
	w := newWorld()
	published, stop := w.watchInbound()
	w.set(guarded("c1", "c2"))
	w.pump()
	published.none(t)
	w.set(&discovery.Cluster{Name: "c1", EDSName: "e1"})
	w.set(&discovery.Assignment{Name: "e1"})
	w.pump()
	published.none(t)
	w.fail(key{decode.ClusterURL, "c2"}, notFound(key{decode.ClusterURL, "c2"}), true)
	w.pump()
	first := published.one(t).Value
	if first == nil || first.Clusters["c1"].Err != nil || first.Clusters["c1"].Cluster.EDSName != "e1" || first.Clusters["c2"].Err == nil {
		t.Fatalf("published %+v", first)
	}

	// Endpoints change: the listener's chains are the same.
	w.set(&discovery.Assignment{Name: "e1"})
	w.pump()
	second := published.one(t).Value
	if second.Clusters["c1"].Endpoints != w.values[key{decode.EndpointURL, "e1"}] || second.Default != first.Default {
		t.Errorf("published %+v", second)
	}

	// The next listener waits for its cluster, and the last one's stays until then.
	w.set(guarded("c3"))
	w.pump()
	published.none(t)
	if got := w.watched(decode.ClusterURL); !slices.Equal(got, []string{"c1", "c2", "c3"}) {
		t.Errorf("clusters %q are watched", got)
	}
	w.set(&discovery.Cluster{Name: "c3", Static: &discovery.Assignment{Name: "c3"}})
	w.pump()
	third := published.one(t).Value
	if len(third.Clusters) != 1 || third.Clusters["c3"].Cluster == nil {
		t.Errorf("published %+v", third)
	}
	if got := w.watched(decode.ClusterURL); !slices.Equal(got, []string{"c3"}) {
		t.Errorf("clusters %q are watched", got)
	}
	stop()
	w.pump()
	if len(w.watchers) != 0 {
		t.Errorf("still watched after stop: %v", w.watchers)
	}
}
