package route

import (
	"strconv"

	"github.com/inboardmesh/inboard/discovery"
)

// choose picks one of the route's clusters by weight, nil if it has none.
func (t *Table) choose(r *compiledRoute, req *Request) *discovery.WeightedCluster {
	cluster, _, _ := t.drawCluster(r, req)
	return cluster
}

// drawCluster is choose that tells the number which decided, and where it is from.
func (t *Table) drawCluster(r *compiledRoute, req *Request) (*discovery.WeightedCluster, uint64, Draws) {
	forward := r.source.Forward
	if forward == nil {
		return nil, 0, NoDraw
	}
	if len(forward.Clusters) == 1 {
		return &forward.Clusters[0], 0, NoDraw
	}
	n, by := t.number(forward, r.totalWeight, req)
	return byWeight(forward.Clusters, n), n, by
}

// byWeight is the cluster whose part of the sum of weights a number is in.
func byWeight(clusters []discovery.WeightedCluster, n uint64) *discovery.WeightedCluster {
	for i := range clusters {
		weight := uint64(clusters[i].Weight)
		if n < weight {
			return &clusters[i]
		}
		n -= weight
	}
	return &clusters[len(clusters)-1]
}

// number is the number below total that decides: the request's own, as a header
// or as a hash, else a random one.
func (t *Table) number(forward *discovery.Forward, total uint64, req *Request) (uint64, Draws) {
	switch {
	case forward.WeightHeader != "":
		value, _ := headerValue(req, forward.WeightHeader)
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			return n % total, ByHeader
		}
	case forward.WeightHash != nil:
		if n, ok := hash(forward.WeightHash, req); ok {
			return n % total, ByHash
		}
	}
	return t.random(total), AtRandom
}

// Draws is what the choice of a cluster by weight depends on.
type Draws uint8

const (
	// NoDraw is for a route that has one cluster, or none.
	NoDraw Draws = iota
	// AtRandom is a number that is drawn for each call.
	AtRandom
	// ByHeader is a number that the request has in a header.
	ByHeader
	// ByHash is a hash of the request.
	ByHash
)

// ClusterName is the name of the chosen cluster, which a request may give in a
// header; "" if there is none.
func (d *Decision) ClusterName(req *Request) string {
	switch {
	case d.Cluster == nil:
		return ""
	case d.Cluster.Header != "":
		return req.firstValue(d.Cluster.Header)
	}
	return d.Cluster.Name
}
