package istio

import (
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	networking "istio.io/api/networking/v1alpha3"
)

// The labels that say where an endpoint or a node is, for failoverPriority. Istio
// sets them; here they are made from the locality, the network and the cluster.
const (
	regionLabel  = "topology.kubernetes.io/region"
	zoneLabel    = "topology.kubernetes.io/zone"
	subZoneLabel = "topology.istio.io/subzone"
	networkLabel = "topology.istio.io/network"
	clusterLabel = "topology.istio.io/cluster"
	hostLabel    = "kubernetes.io/hostname"
)

// checkLocality makes the checks of Istio's own validation.
func checkLocality(s *networking.LocalityLoadBalancerSetting, outlier *networking.OutlierDetection, a at) {
	if s == nil {
		return
	}
	if len(s.Distribute) > 0 && (len(s.Failover) > 0 || len(s.FailoverPriority) > 0) {
		a.field("distribute").errorf("cannot be set together with failover or failoverPriority")
	}
	if outlier == nil && (len(s.Failover) > 0 || len(s.FailoverPriority) > 0) {
		a.warnf(lintIneffectiveFailover, "failover has no effect without outlierDetection, which finds the endpoints that fail")
	}
	var sources []string
	for i, d := range s.Distribute {
		da := a.field("distribute").index(i)
		sources = append(sources, d.From)
		checkPlace(d.From, da.field("from"))
		checkShares(d.To, da.field("to"))
		for _, other := range sources[:i] {
			if overlap(other, d.From) {
				da.field("from").errorf("%q and %q are about the same clients", d.From, other)
			}
		}
	}
	for i, f := range s.Failover {
		fa := a.field("failover").index(i)
		checkRegion(f.From, fa.field("from"))
		checkRegion(f.To, fa.field("to"))
		if f.From == f.To {
			fa.field("to").errorf("%q fails over to itself", f.To)
		}
		for _, other := range s.Failover[:i] {
			if other.From == f.From {
				fa.field("from").errorf("%q is set twice", f.From)
			}
		}
	}
	for i, label := range s.FailoverPriority {
		la := a.field("failoverPriority").index(i)
		key, _, _ := strings.Cut(label, "=")
		switch {
		case key == "" || strings.Count(label, "=") > 1:
			la.errorf("%q is not a label: write KEY or KEY=VALUE", label)
		case len(s.Failover) > 0 && slices.Contains([]string{regionLabel, zoneLabel, subZoneLabel}, key):
			la.errorf("%q cannot be set together with failover, which looks at it too", key)
		}
	}
}

func checkRegion(region string, a at) {
	if region == "" || strings.ContainsAny(region, "/*") {
		a.errorf("%q is not a region: failover is between regions", region)
	}
}

// checkShares checks how the clients of a place are distributed.
func checkShares(to map[string]uint32, a at) {
	var sum uint64
	var places []string
	for _, place := range sortedKeys(to) {
		pa := a.key(place)
		checkPlace(place, pa)
		if n := to[place]; n == 0 || n > 100 {
			pa.errorf("%d is not in 1..100", n)
		}
		sum += uint64(to[place])
		for _, other := range places {
			if overlap(other, place) {
				pa.errorf("%q and %q are about the same endpoints", place, other)
			}
		}
		places = append(places, place)
	}
	if sum != 100 {
		a.errorf("the shares add up to %d, not to 100", sum)
	}
}

// checkPlace checks region/zone/subzone, whose last part may be '*'.
func checkPlace(place string, a at) {
	parts := strings.Split(place, "/")
	bad := place == "" || len(parts) > 3
	for i, part := range parts {
		bad = bad || part == "" || strings.Contains(part, "*") && (part != "*" || i != len(parts)-1)
	}
	if bad {
		a.errorf("%q is not a locality: write region/zone/subzone, of which the last part may be '*'", place)
	}
}

// overlap reports whether a locality can be in both places.
func overlap(a, b string) bool {
	x, y := strings.Split(a, "/"), strings.Split(b, "/")
	for i := range min(len(x), len(y)) {
		if x[i] != "*" && y[i] != "*" && x[i] != y[i] {
			return false
		}
	}
	return true
}

// within reports whether a locality is in a place, of which '*' and missing parts
// stand for any.
func (l Locality) within(place string) bool {
	parts := strings.SplitN(place, "/", 3)
	for i, have := range []string{l.Region, l.Zone, l.SubZone} {
		if i < len(parts) && parts[i] != "*" && parts[i] != have {
			return false
		}
	}
	return true
}

// distance is how far endpoints are from a node: 0 in its subzone, 1 in its zone,
// 2 in its region, 3 elsewhere.
func (l Locality) distance(from Locality) int {
	switch {
	case l.Region != from.Region:
		return 3
	case l.Zone != from.Zone:
		return 2
	case l.SubZone != from.SubZone:
		return 1
	}
	return 0
}

// topology is a value of a label of an endpoint: one that was written wins.
func (e *endpoint) topology(label string) string {
	return topologyOf(e.labels, e.localityParts(), e.network, "", e.node, label)
}

// topology is a value of a label of the node: one that was written wins.
func (n Node) topology(label string) string {
	return topologyOf(n.Labels, n.place(), n.Network, n.Cluster, n.Host, label)
}

func topologyOf(labels map[string]string, l Locality, network, cluster, host, label string) string {
	if value, ok := labels[label]; ok {
		return value
	}
	switch label {
	case regionLabel:
		return l.Region
	case zoneLabel:
		return l.Zone
	case subZoneLabel:
		return l.SubZone
	case networkLabel:
		return network
	case clusterLabel:
		return cluster
	case hostLabel:
		return host
	}
	return ""
}

// place is where the node runs: by its own word, else by its label.
func (n Node) place() Locality {
	if n.Locality != (Locality{}) {
		return n.Locality
	}
	return parseLocality(labelledLocality(n.Labels))
}

// localitySetting is what decides about localities for a cluster, nil if they
// are all the same to every node. Without a setting in the rule it is that of
// Istio's mesh configuration, which fails over to what is near.
func localitySetting(p policy) *networking.LocalityLoadBalancerSetting {
	s := p.lb.GetLocalityLbSetting()
	switch {
	case s == nil && p.distribution != nil:
		return p.distribution
	case s == nil:
		s = &networking.LocalityLoadBalancerSetting{}
	case s.Enabled != nil && !s.Enabled.Value:
		return nil
	}
	if len(s.Distribute) == 0 && p.outlier == nil {
		return nil // without outlier detection nothing fails, so nothing fails over
	}
	return s
}

// localityWeighted reports whether a cluster balances by the weights of its
// localities. Istio asks for that only where the rule sets something, because it
// takes from a policy like least request a part of what it compares.
func localityWeighted(p policy) bool {
	s := localitySetting(p)
	return s != nil && (len(s.Distribute) > 0 || len(s.Failover) > 0 || len(s.FailoverPriority) > 0)
}

// applyLocality makes a cluster balance by the weights of its localities.
func applyLocality(c *clusterv3.Cluster, p policy) {
	if !localityWeighted(p) {
		return
	}
	if c.CommonLbConfig == nil {
		c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{}
	}
	c.CommonLbConfig.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
		LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
	}
}
