package explain

import (
	"slices"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
)

// hashing is what a cluster hashes of a call, and why the request does not determine it,
// "" if it does.
type hashing struct {
	cluster  *upstream.Cluster
	policies []discovery.HashPolicy
	chance   string
}

// hashing is what the cluster of a call hashes, or those do that it consists of: none if
// nothing is. Calls are hashed before their route changes their headers, and so is this
// called.
func (q *Question) hashing(cluster *upstream.Cluster, forward *discovery.Forward) []hashing {
	from := cluster.Leaves()
	if len(from) == 0 {
		from = []*upstream.Cluster{cluster}
	}
	var all []hashing
	for _, c := range from {
		if policies, _, ok := c.HashPolicies(forward.Hash); ok {
			all = append(all, hashing{c, policies, q.chance(policies)})
		}
	}
	return all
}

// hash says what the cluster of a call hashes. A hash that is drawn it takes out of the
// plan, and returns why the cluster is drawn of those of an aggregate.
func hash(cluster *upstream.Cluster, all []hashing, plan *pipeline.Plan) (of []string, drawn string) {
	if plan.Keyed && (len(all) > 0 || len(cluster.Leaves()) > 0) { // it goes before all policies
		return []string{"the key that the call gives"}, ""
	}
	for i := range all {
		for _, what := range hashOf(all[i].policies) {
			if !slices.Contains(of, what) {
				of = append(of, what)
			}
		}
		if at := slices.IndexFunc(plan.Hashes, func(l upstream.LeafHash) bool { return l.Leaf == all[i].cluster }); at >= 0 && all[i].chance != "" {
			plan.Hashes = slices.Clone(plan.Hashes)
			plan.Hashes[at].Hash, plan.Hashes[at].Hashed = 0, false
		}
	}
	// The first that finds something decides about the cluster.
	at := max(0, slices.IndexFunc(all, func(h hashing) bool { return h.chance != nothingToHash }))
	if len(all) > 0 && all[at].chance != "" {
		drawn = all[at].chance
		plan.Pick.Hash, plan.Pick.Hashed = 0, false
	}
	return of, drawn
}

// nothingToHash is said of a request that has nothing of what is hashed.
const nothingToHash = "the request has nothing of that"

// chance says why the request does not determine its hash, "" if it does.
func (q *Question) chance(policies []discovery.HashPolicy) string {
	for i := range policies {
		if policies[i].Channel && q.Protocol == observe.GRPC {
			return "it is that of the channel, which is not known here"
		}
		_, ok, cookies := route.Hash(policies[:i+1], &q.Request)
		if len(cookies) > 0 {
			return "the response brings the cookie " + policies[i].Cookie
		}
		if ok && policies[i].Terminal {
			break
		}
	}
	if _, ok, _ := route.Hash(policies, &q.Request); !ok {
		return nothingToHash
	}
	return ""
}

// determined says whether a policy that hashes leads the call to one endpoint; drawn is why
// its cluster is.
func determined(plan *pipeline.Plan, turns []upstream.Turn, all []hashing, drawn string) string {
	at := slices.IndexFunc(turns, func(t upstream.Turn) bool {
		c := t.Cluster.Config()
		return c != nil && c.Balancer.Policy.Determines()
	})
	if at < 0 || plan.Answer != nil {
		return ""
	}
	info := plan.Pick
	plan.Hashes.In(turns[at].Cluster, &info)
	own := slices.IndexFunc(all, func(h hashing) bool { return h.cluster == turns[at].Cluster })
	switch {
	case drawn != "":
		return "drawn: " + drawn
	case !plan.Keyed && own >= 0 && all[own].chance != "":
		return "drawn: " + all[own].chance
	case len(turns) == 1 && len(turns[0].Hosts) == 1 && info.Hashed:
		return "determined"
	}
	return ""
}
