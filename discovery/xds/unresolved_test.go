package xds

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// A cluster that works becomes a tree that cannot be resolved. That is a mistake: what
// works stays in force, with the newest of its endpoints, until a tree comes that can.
func TestX71_ATreeThatCannotBeResolvedReplacesNothingThatWorks(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		tree   []*discovery.Cluster
		absent []string
		bad    []string
		err    string
	}{
		"part of itself": {
			tree: []*discovery.Cluster{aggregate("a", "two"), aggregate("two", "a")},
			err:  `is part of itself`,
		},
		"too deep": {
			tree: append(nested(16), aggregate("a", "level0")),
			err:  "more than 16 clusters are within each other",
		},
		"of clusters that do not exist": {
			tree: []*discovery.Cluster{aggregate("a", "gone")}, absent: []string{"gone"},
			err: `none of the clusters ["gone"] can be used`,
		},
		"of clusters that are refused": {
			tree: []*discovery.Cluster{aggregate("a", "bad")}, bad: []string{"bad"},
			err: `none of the clusters ["bad"] can be used`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, published, first := serving(t)
			for _, c := range test.tree {
				w.set(c)
			}
			w.pump()
			for _, c := range test.absent {
				w.fail(cds(c), notFound(cds(c)), true)
			}
			for _, c := range test.bad {
				w.fail(cds(c), invalid(cds(c)), true)
			}
			w.pump()
			update := published.take()
			if len(update) == 0 {
				t.Fatal("nobody is told")
			}
			for _, u := range update {
				if got := u.Value.Clusters["a"]; got.Err != nil || got.Cluster != first.Clusters["a"].Cluster || got.Endpoints != first.Clusters["a"].Endpoints {
					t.Errorf("cluster %+v, want the one before", got)
				}
			}
			if err := update[len(update)-1].Err; !strings.Contains(fmt.Sprint(err), test.err) || !strings.Contains(err.Error(), `aggregate cluster "a"`) {
				t.Errorf("told of %v, want %q", err, test.err)
			}
			newer := assignment("a")
			w.set(newer)
			w.pump()
			if got := published.one(t).Value.Clusters["a"]; got.Endpoints != newer {
				t.Errorf("cluster %+v, want the newest of its endpoints", got)
			}
			w.set(aggregate("a", "leaf")) // mended
			w.set(staticCluster("leaf"))
			w.pump()
			u := published.one(t)
			if got := u.Value.Clusters["a"]; !slices.Equal(got.Leaves, []string{"leaf"}) || u.Err != nil {
				t.Errorf("published %+v, want the new tree and nothing that is wrong", u)
			}
			if got := w.watched(eds("").url); len(got) > 0 {
				t.Errorf("endpoints %q are still watched", got)
			}
		})
	}
}

func TestX71_ATreeThatWorksStaysUntilAnotherOneDoes(t *testing.T) {
	t.Parallel()
	w, published := routedTo(t, "all", aggregate("all", "a", "b"), staticCluster("a"), staticCluster("b"))
	published.take()
	w.set(aggregate("b", "all")) // a loop, by way of a leaf
	w.pump()
	u := published.one(t)
	if got := u.Value.Clusters["all"].Leaves; !slices.Equal(got, []string{"a", "b"}) || u.Err == nil {
		t.Fatalf("published %+v, want the tree before, and that something is wrong", u)
	}
	w.fail(cds("a"), notFound(cds("a")), true)
	w.pump()
	if got := published.one(t).Value.Clusters["all"].Leaves; !slices.Equal(got, []string{"b"}) {
		t.Errorf("leaves %q: what is gone must not stay", got)
	}
	w.set(staticCluster("b"))
	w.pump()
	u = published.one(t)
	if got := u.Value.Clusters["all"].Leaves; !slices.Equal(got, []string{"b"}) || u.Err != nil && strings.Contains(u.Err.Error(), "part of itself") {
		t.Errorf("published %+v", u)
	}
}

// The secrets of what stays in force are followed as before: a trust that is
// withdrawn must not stay because a newer version cannot be used.
func TestX71_WhatStaysInForceHasTheNewestOfItsSecrets(t *testing.T) {
	t.Parallel()
	secured := staticCluster("a")
	secured.TLS = &discovery.UpstreamTLS{TLSParams: discovery.TLSParams{RootSecret: "roots"}}
	w, published := routedTo(t, "a", secured)
	w.setSecret("roots", &meshtls.Identity{Roots: x509.NewCertPool()})
	w.pump()
	published.take()
	w.set(aggregate("a", "two"))
	w.set(aggregate("two", "a"))
	w.pump()
	published.take()
	newer := &meshtls.Identity{Roots: x509.NewCertPool()}
	w.setSecret("roots", newer)
	w.pump()
	if got := published.one(t).Value.Clusters["a"]; got.Err != nil || got.Secrets["roots"] != newer {
		t.Errorf("cluster %+v, want the newest of its secrets", got)
	}
}

// A resource may be named by what it comes in, another name than the one in it (X58).
func TestX58_X71_AnAggregateMayHaveAnotherNameInside(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.set(apiListener("r"))
	w.set(routeTable("r", "outer"))
	w.values[cds("outer")] = aggregate("inner", "a")
	w.set(staticCluster("a"))
	published, stop := w.watchTarget()
	defer stop()
	w.pump()
	if got := published.one(t).Value.Clusters["outer"]; got.Err != nil || !slices.Equal(got.Leaves, []string{"a"}) {
		t.Errorf("cluster %+v", got)
	}
}
