package explain

import (
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
)

// hashing is what the cluster of a call hashes, and why the request does not determine
// it, "" if it does. Calls are hashed before their route changes their headers, and so
// is this called.
func (q *Question) hashing(cluster *upstream.Cluster, forward *discovery.Forward) (policies []discovery.HashPolicy, chance string) {
	config := cluster.Config()
	if config == nil || !config.Balancer.Policy.Hashes() {
		return nil, ""
	}
	if policies = config.Hash; policies == nil {
		policies = forward.Hash
	}
	return policies, q.chance(policies)
}

// hash says what the cluster of a call hashes, and whether that determines the
// endpoint: if it does not, it takes the hash, which is drawn, out of the plan.
func hash(cluster *upstream.Cluster, policies []discovery.HashPolicy, chance string, plan *pipeline.Plan) (of []string, drawn string) {
	config := cluster.Config()
	chooses := plan.Keyed && len(cluster.Leaves()) > 0 // a leaf
	if config == nil || !config.Balancer.Policy.Hashes() && !chooses {
		return nil, ""
	}
	if plan.Keyed { // it goes before all policies
		return []string{"the key that the call gives"}, ""
	}
	if chance != "" {
		plan.Pick.Hash, plan.Pick.Hashed = 0, false
	}
	return hashOf(policies), chance
}

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
		return "the request has nothing of that"
	}
	return ""
}

// hashed says whether a policy that hashes leads the call to one endpoint.
func hashed(plan *pipeline.Plan, turns []upstream.Turn, drawn string) string {
	hashes := func(t *upstream.Turn) bool {
		c := t.Cluster.Config()
		return c != nil && c.Balancer.Policy.Determines()
	}
	switch {
	case len(turns) == 0 || !hashes(&turns[0]) || plan.Answer != nil:
		return ""
	case drawn != "":
		return "drawn: " + drawn
	case len(turns) == 1 && len(turns[0].Hosts) == 1 && plan.Pick.Hashed:
		return "determined"
	}
	return ""
}
