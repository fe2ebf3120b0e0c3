package istio

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networking "istio.io/api/networking/v1alpha3"
)

// placement is the ClusterLoadAssignment of a cluster. Nodes get different ones
// only if a locality setting says that it matters where they are.
type placement struct {
	name   string
	port   *servicePort
	groups []localityGroup
	// setting is nil if all nodes get common.
	setting *networking.LocalityLoadBalancerSetting
	common  *endpointv3.ClusterLoadAssignment
	// secure tells which endpoints offer mutual TLS; nil if they are all alike.
	secure func(*endpoint) bool

	mu    sync.Mutex
	known map[string]*endpointv3.ClusterLoadAssignment // guarded by mu; by what decides about a node
	// within are the clusters that have the endpoints inside.
	within map[insideKey]*clusterv3.Cluster // guarded by mu
}

// insideKey is a cluster and the endpoints in it.
type insideKey struct {
	cluster    *clusterv3.Cluster
	assignment *endpointv3.ClusterLoadAssignment
}

// localityGroup is the endpoints of one locality at one priority.
type localityGroup struct {
	locality  Locality
	endpoints []*endpoint
	priority  int
	weight    uint32
}

// newPlacement groups endpoints by locality, sorted; each group is weighted by the
// sum of its endpoints.
func newPlacement(name string, p *servicePort, endpoints []*endpoint, setting *networking.LocalityLoadBalancerSetting, secure func(*endpoint) bool, a at) *placement {
	byLocality := make(map[Locality][]*endpoint)
	var total uint64
	for _, e := range endpoints {
		locality := e.localityParts()
		byLocality[locality] = append(byLocality[locality], e)
		total += uint64(e.weight)
	}
	pl := &placement{name: name, port: p, setting: setting, secure: secure}
	if total > math.MaxUint32 {
		a.errorf("the weights of the endpoints of %q sum up to %d: at most %d is possible",
			name, total, uint32(math.MaxUint32))
		pl.common, pl.setting = &endpointv3.ClusterLoadAssignment{ClusterName: name}, nil
		return pl
	}
	localities := slices.SortedFunc(maps.Keys(byLocality), func(a, b Locality) int {
		return slices.Compare(
			[]string{a.Region, a.Zone, a.SubZone}, []string{b.Region, b.Zone, b.SubZone})
	})
	for _, l := range localities {
		pl.groups = append(pl.groups, localityGroup{locality: l, endpoints: byLocality[l], weight: sumWeights(byLocality[l])})
	}
	pl.common = pl.assignment(pl.groups)
	if setting != nil {
		pl.known = make(map[string]*endpointv3.ClusterLoadAssignment)
	}
	return pl
}

func sumWeights(endpoints []*endpoint) uint32 {
	var sum uint32
	for _, e := range endpoints {
		sum += e.weight
	}
	return sum
}

// forNode returns the endpoints of a node: the same message for nodes that are in
// the same place, as long as there are not too many places.
func (pl *placement) forNode(n Node) *endpointv3.ClusterLoadAssignment {
	if pl.setting == nil {
		return pl.common
	}
	key := pl.key(n)
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if a, ok := pl.known[key]; ok {
		return a
	}
	a := pl.assignment(pl.groupsFor(n))
	if len(pl.known) < maxClasses {
		pl.known[key] = a
	}
	return a
}

// around is a cluster of type DNS with the endpoints of a node inside: the same
// message as long as the endpoints are. A nil placement leaves the cluster as it is.
func (pl *placement) around(n Node, cluster *clusterv3.Cluster) *clusterv3.Cluster {
	if pl == nil {
		return cluster
	}
	a := pl.forNode(n)
	if proto.Equal(a, pl.common) {
		return cluster
	}
	pl.mu.Lock()
	defer pl.mu.Unlock()
	key := insideKey{cluster, a}
	if c, ok := pl.within[key]; ok {
		return c
	}
	c := proto.CloneOf(cluster)
	c.LoadAssignment = a
	if pl.known[pl.key(n)] != a {
		return c // a new one each time
	}
	if pl.within == nil {
		pl.within = make(map[insideKey]*clusterv3.Cluster)
	}
	pl.within[key] = c
	return c
}

// key is what a node's endpoints depend on.
func (pl *placement) key(n Node) string {
	if len(pl.setting.Distribute) > 0 {
		return strconv.Itoa(pl.source(n.place()))
	}
	l := n.place()
	parts := []string{l.Region, l.Zone, l.SubZone}
	for _, label := range pl.setting.FailoverPriority {
		key, _, _ := strings.Cut(label, "=")
		parts = append(parts, n.topology(key))
	}
	return strings.Join(parts, "\x00")
}

// source is the index of the distribution for the clients of a place, -1 for none.
func (pl *placement) source(l Locality) int {
	return slices.IndexFunc(pl.setting.Distribute, func(d *networking.LocalityLoadBalancerSetting_Distribute) bool {
		return l.within(d.From)
	})
}

func (pl *placement) groupsFor(n Node) []localityGroup {
	s := pl.setting
	if len(s.Distribute) > 0 {
		i := pl.source(n.place())
		if i < 0 {
			return pl.groups
		}
		return distributed(pl.groups, s.Distribute[i].To)
	}
	groups := slices.Clone(pl.groups)
	if len(s.FailoverPriority) > 0 {
		groups = byLabels(groups, s.FailoverPriority, n)
	}
	if len(s.FailoverPriority) == 0 || len(s.Failover) > 0 {
		byDistance(groups, s.Failover, n.place())
	}
	return groups
}

// distributed gives the localities of each place its share, by their weights, and
// leaves the others out.
func distributed(groups []localityGroup, to map[string]uint32) []localityGroup {
	var chosen []localityGroup
	for _, g := range groups {
		for place, share := range to {
			if !g.locality.within(place) {
				continue
			}
			var sum uint64
			for _, other := range groups {
				if other.locality.within(place) {
					sum += uint64(other.weight)
				}
			}
			weight := (uint64(g.weight)*uint64(share) + sum - 1) / sum // rounded up, as Istio does
			g.weight = uint32(weight)
			chosen = append(chosen, g)
			break // places do not overlap
		}
	}
	return chosen
}

// byLabels splits the groups by how many labels, from the first on, their endpoints
// have in common with the node: those with all of them have priority 0.
func byLabels(groups []localityGroup, labels []string, n Node) []localityGroup {
	var split []localityGroup
	for _, g := range groups {
		byPriority := make(map[int][]*endpoint)
		for _, e := range g.endpoints {
			priority := 0
			for i, label := range labels {
				key, want, given := strings.Cut(label, "=")
				if !given {
					want = n.topology(key)
				}
				if e.topology(key) != want {
					priority = len(labels) - i
					break
				}
			}
			byPriority[priority] = append(byPriority[priority], e)
		}
		for _, priority := range slices.Sorted(maps.Keys(byPriority)) {
			endpoints := byPriority[priority]
			split = append(split, localityGroup{
				locality: g.locality, endpoints: endpoints, priority: priority, weight: sumWeights(endpoints),
			})
		}
	}
	closeGaps(split)
	return split
}

// byDistance gives priorities by how near the groups are to the node. Of other
// regions, the one to which the node's fails over comes first. Priorities that are
// there already come before.
func byDistance(groups []localityGroup, failover []*networking.LocalityLoadBalancerSetting_Failover, from Locality) {
	const distances = 5
	for i := range groups {
		g := &groups[i]
		distance := g.locality.distance(from)
		if distance == 3 {
			for _, f := range failover {
				if f.From == from.Region && f.To != g.locality.Region {
					distance = 4
				}
			}
		}
		g.priority = g.priority*distances + distance
	}
	closeGaps(groups)
}

// closeGaps numbers the priorities from 0 without a gap, which Envoy asks for.
func closeGaps(groups []localityGroup) {
	present := make(map[int]bool)
	for _, g := range groups {
		present[g.priority] = true
	}
	order := slices.Sorted(maps.Keys(present))
	for i := range groups {
		groups[i].priority, _ = slices.BinarySearch(order, groups[i].priority)
	}
}

func (pl *placement) assignment(groups []localityGroup) *endpointv3.ClusterLoadAssignment {
	a := &endpointv3.ClusterLoadAssignment{ClusterName: pl.name}
	for _, g := range groups {
		l := &endpointv3.LocalityLbEndpoints{
			Locality:            &corev3.Locality{Region: g.locality.Region, Zone: g.locality.Zone, SubZone: g.locality.SubZone},
			LoadBalancingWeight: wrapperspb.UInt32(g.weight),
			Priority:            uint32(g.priority),
		}
		for _, e := range g.endpoints {
			endpoint := lbEndpoint(e, pl.port)
			if pl.secure != nil && pl.secure(e) {
				endpoint.Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{socketMatch: tlsModeIstio()}}
			}
			l.LbEndpoints = append(l.LbEndpoints, endpoint)
		}
		a.Endpoints = append(a.Endpoints, l)
	}
	return a
}
