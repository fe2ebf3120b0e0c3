package mesh

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/inboardmesh/inboard/balancer"
)

// Balancing is an [Option]: what the control plane cannot say about the balancing of
// this process's calls. The zero value of a field leaves what another Balancing among
// the options says; without one, there is nothing of it.
//
//	ordinal := uint32(3) // of payment-3, a pod of a StatefulSet
//	m, err := mesh.New(ctx, mesh.Balancing{ClientNumber: &ordinal})
type Balancing struct {
	// Policies are load-balancing policies of the application, by name. Clusters ask
	// for them: in load_balancing_policy, by a TypedStruct whose type ends in the
	// name, or in their metadata, by "inboard.balancer": {"policy": name, "config":
	// {...}}. A cluster that asks for a policy which is not there is rejected. See
	// [balancer.Custom] for what the function is given and when. Where a policy
	// panics, or picks no host, calls fail with an error that names it, which is
	// logged. The names that begin with "inboard." are the mesh's.
	Policies map[string]func(hosts []*balancer.Host, config map[string]any) balancer.Picker
	// LocalCluster names the cluster of which this process is an endpoint, as the
	// control plane calls it ("outbound|80||cart.shop.svc.cluster.local"): Envoy's
	// local_cluster_name. The mesh follows it for zone aware routing
	// (zone_aware_lb_config), which compares where the callers are with where the
	// endpoints are; where this process is, the bootstrap's node.locality says.
	// Without either, or while the control plane does not have the cluster, clusters
	// with zone aware routing balance among all localities, and [Mesh.Explain] says
	// why.
	LocalCluster string
	// ClientNumber says which of the clients of its clusters this process is,
	// counted from 0, such as the ordinal of its pod in a StatefulSet. It makes the
	// parts that clients of a cluster with "inboard.subsetting" have of its endpoints
	// even, see [balancer.Subsetting]; if it is nil they are drawn by the name of the
	// node.
	ClientNumber *uint32
}

var _ Option = Balancing{}

func (b Balancing) apply(s *settings) {
	if len(b.Policies) > 0 {
		all := maps.Clone(b.Policies)
		for name, policy := range s.balancing.Policies {
			if all[name] == nil {
				all[name] = policy
			}
		}
		s.balancing.Policies = all
	}
	if b.LocalCluster != "" {
		s.balancing.LocalCluster = b.LocalCluster
	}
	if b.ClientNumber != nil {
		s.balancing.ClientNumber = b.ClientNumber
	}
}

func (b Balancing) check() (errs []error) {
	for _, name := range slices.Sorted(maps.Keys(b.Policies)) {
		if name == "" || strings.HasPrefix(name, "inboard.") || b.Policies[name] == nil {
			errs = append(errs, fmt.Errorf("balancer %q: must have a function and a name that does not begin with %q", name, "inboard."))
		}
	}
	return errs
}

func (b Balancing) custom(logger *slog.Logger) map[string]balancer.Custom {
	policies := make(map[string]balancer.Custom, len(b.Policies))
	for name, newPicker := range b.Policies {
		policies[name] = balancer.Custom{Name: name, New: newPicker, Failed: func(err error) {
			logger.Error("calls are not balanced", "error", err)
		}}
	}
	return policies
}

func (b Balancing) number() (n uint32, known bool) {
	if b.ClientNumber == nil {
		return 0, false
	}
	return *b.ClientNumber, true
}
