package route

import (
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

func TestBU4_AHeaderDecidesTheDraw(t *testing.T) {
	t.Parallel()
	route := weighted(map[string]uint32{"a": 2, "b": 3}, "a", "b")
	route.Forward.WeightHeader = "x-random"
	table := matching(route)
	table.random = func(uint64) uint64 { return 4 } // b
	for value, want := range map[string]string{
		"0": "a", "1": "a", "2": "b", "4": "b", "5": "a", "18446744073709551615": "a", // which is a multiple of 5
		"": "b", "-1": "b", "x": "b", "1,0": "b",
	} {
		req := get("payment", "/")
		if value != "" {
			req.Header = headers{"x-random": {value}}
		}
		if d, ok := table.Match(req); !ok || d.Cluster.Name != want {
			t.Errorf("%q: cluster %+v, want %q", value, d.Cluster, want)
		}
	}
}

func TestBU4_WhatHasTheSameHashGoesToTheSameCluster(t *testing.T) {
	t.Parallel()
	route := weighted(map[string]uint32{"a": 25, "b": 75}, "a", "b")
	route.Forward.WeightHash = []discovery.HashPolicy{
		{Header: "x-user", HeaderRewrite: substitution("@.*$", ""), Terminal: true},
		{Cookie: "session"},
		{Query: "q"},
	}
	table := matching(route)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	draws := 0
	table.random = func(n uint64) uint64 {
		draws++
		return random.Uint64N(n)
	}
	cluster := func(req *Request) string {
		d, _ := table.Match(req)
		return d.Cluster.Name
	}
	by := func(user, cookie, query string) *Request {
		req := get("payment", "/")
		h := headers{}
		if user != "" {
			h["x-user"] = []string{user}
		}
		if cookie != "" {
			h["cookie"] = []string{"a=b; session=" + cookie}
		}
		req.Header, req.Query = h, query
		return req
	}
	const users = 10_000
	counts := map[string]int{}
	for i := range users {
		name := strconv.Itoa(i) + strconv.FormatUint(seed, 36)
		chosen := cluster(by(name, "", ""))
		counts[chosen]++
		// The terminal policy has a hash: nothing else matters.
		if other := cluster(by(name+"@elsewhere", name, "q="+name)); other != chosen {
			t.Fatalf("user %s went to %s and to %s", name, chosen, other)
		}
		if first, again := cluster(by("", name, "q="+name)), cluster(by("", name, "q="+name)); first != again {
			t.Fatalf("cookie %s went to %s and to %s", name, first, again)
		}
	}
	if draws > 0 {
		t.Errorf("%d draws although there was a hash", draws)
	}
	checkShare(t, seed, "a", counts["a"], users, 0.25)
	clear(counts)
	for range users {
		counts[cluster(by("", "", ""))]++
	}
	if draws != users {
		t.Errorf("%d draws for %d requests without a hash", draws, users)
	}
	checkShare(t, seed, "a without a hash", counts["a"], users, 0.25)
}

func TestBU4_TheRequestNamesItsCluster(t *testing.T) {
	t.Parallel()
	route := &discovery.Route{Forward: &discovery.Forward{Clusters: []discovery.WeightedCluster{{Header: "x-cluster", Weight: 1}}}}
	req := get("payment", "/")
	for name, h := range map[string]Header{"": headers{}, "v2": headers{"x-cluster": {"v2", "v3"}}} {
		req.Header = h
		d, ok := matching(route).Match(req)
		if !ok || d.ClusterName(req) != name {
			t.Errorf("cluster %q, want %q", d.ClusterName(req), name)
		}
	}
}
