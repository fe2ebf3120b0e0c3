package route

import (
	"math/bits"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"github.com/inboardmesh/inboard/discovery"
)

// choose picks one of the route's clusters by weight, nil if it has none.
func (t *Table) choose(r *compiledRoute, req *Request) *discovery.WeightedCluster {
	forward := r.source.Forward
	if forward == nil {
		return nil
	}
	if len(forward.Clusters) == 1 {
		return &forward.Clusters[0]
	}
	n := t.number(forward, r.totalWeight, req)
	for i := range forward.Clusters {
		weight := uint64(forward.Clusters[i].Weight)
		if n < weight {
			return &forward.Clusters[i]
		}
		n -= weight
	}
	return &forward.Clusters[len(forward.Clusters)-1]
}

// number is the number below total that decides: the request's own, as a header
// or as a hash, else a random one.
func (t *Table) number(forward *discovery.Forward, total uint64, req *Request) uint64 {
	switch {
	case forward.WeightHeader != "":
		value, _ := headerValue(req, forward.WeightHeader)
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			return n % total
		}
	case forward.WeightHash != nil:
		if n, ok := hash(forward.WeightHash, req); ok {
			return n % total
		}
	}
	return t.random(total)
}

// hash combines the policies in order, as Envoy does: the hash so far is rotated
// by one bit, and the next one added exclusively. ok is false if a request has
// nothing that could be hashed.
func hash(policies []discovery.HashPolicy, req *Request) (sum uint64, ok bool) {
	for i := range policies {
		p := &policies[i]
		if value, found := hashed(p, req); found {
			sum = bits.RotateLeft64(sum, 1) ^ xxhash.Sum64String(value)
			ok = true
		}
		if p.Terminal && ok {
			break
		}
	}
	return sum, ok
}

func hashed(p *discovery.HashPolicy, req *Request) (string, bool) {
	switch {
	case p.Query != "":
		return queryValue(req.Query, p.Query)
	case p.Cookie != "":
		return cookieValue(req, p.Cookie)
	}
	value, ok := headerValue(req, p.Header)
	if ok && p.HeaderRewrite != nil {
		value = p.HeaderRewrite.Replace(value)
	}
	return value, ok
}

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
