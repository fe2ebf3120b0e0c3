package istio

import (
	"math"
	"slices"
	"strconv"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networking "istio.io/api/networking/v1alpha3"
)

const (
	// maxRingSize and maxTableSize are Envoy's limits.
	maxRingSize  = 8 << 20
	maxTableSize = 5_000_011
	// defaultRingSize is Istio's minimumRingSize.
	defaultRingSize = 1024
)

func checkLoadBalancer(lb *networking.LoadBalancerSettings, a at) {
	if lb.GetSimple() == networking.LoadBalancerSettings_PASSTHROUGH {
		a.field("simple").errorf("PASSTHROUGH is not supported, because it forwards to the address that a caller has connected to, and a caller in the process has connected to none: use ROUND_ROBIN, LEAST_REQUEST or RANDOM")
	}
	checkWarmup(lb, a)
	hash := lb.GetConsistentHash()
	if hash == nil {
		return
	}
	ha := a.field("consistentHash")
	switch key := hash.HashKey.(type) {
	case nil:
		ha.errorf("needs httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName")
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		switch name := key.HttpHeaderName; {
		case name == "":
			ha.field("httpHeaderName").errorf("must not be empty")
		case !httpguts.ValidHeaderFieldName(strings.TrimPrefix(name, ":")):
			ha.field("httpHeaderName").errorf("%q cannot be the name of a header: letters, digits and hyphens can", name)
		}
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
		if key.HttpQueryParameterName == "" {
			ha.field("httpQueryParameterName").errorf("must not be empty")
		}
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		checkCookie(key.HttpCookie, ha.field("httpCookie"))
	}
	switch algorithm := hash.HashAlgorithm.(type) {
	case *networking.LoadBalancerSettings_ConsistentHashLB_RingHash_:
		checkRing(algorithm.RingHash.GetMinimumRingSize(), ha.field("ringHash").field("minimumRingSize"))
	case *networking.LoadBalancerSettings_ConsistentHashLB_Maglev:
		if n := algorithm.Maglev.GetTableSize(); n != 0 && !isPrime(n) {
			ha.field("maglev").field("tableSize").errorf("%d is not a prime number up to %d: leave it out for 65537", n, maxTableSize)
		}
	}
	checkRing(hash.MinimumRingSize, ha.field("minimumRingSize")) //nolint:staticcheck // the deprecated field is still in use
}

func checkRing(n uint64, a at) {
	if n > maxRingSize {
		a.errorf("%d is too large: use at most %d", n, maxRingSize)
	}
}

func checkCookie(cookie *networking.LoadBalancerSettings_ConsistentHashLB_HTTPCookie, a at) {
	if cookie.GetName() == "" {
		a.field("name").errorf("must not be empty")
	}
	if ttl := cookie.GetTtl(); ttl != nil && (ttl.CheckValid() != nil || ttl.AsDuration() < 0) {
		a.field("ttl").errorf("%v is negative", ttl.AsDuration())
	}
	for i, attribute := range cookie.GetAttributes() {
		if attribute.GetName() == "" {
			a.field("attributes").index(i).field("name").errorf("must not be empty")
		}
	}
}

func checkWarmup(lb *networking.LoadBalancerSettings, a at) {
	warmup, wa := lb.GetWarmup(), a.field("warmup")
	if warmup != nil && lb.GetWarmupDurationSecs() != nil {
		a.field("warmupDurationSecs").errorf("must not be set beside warmup: remove it")
	}
	checkDuration(lb.GetWarmupDurationSecs(), a.field("warmupDurationSecs"))
	if warmup == nil {
		return
	}
	if warmup.Duration == nil {
		wa.field("duration").errorf("is required")
	}
	checkDuration(warmup.Duration, wa.field("duration"))
	if v := warmup.MinimumPercent; v != nil && !(v.Value >= 0 && v.Value <= 100) {
		wa.field("minimumPercent").errorf("%v is not in 0..100", v.Value)
	}
	if v := warmup.Aggression; v != nil && !(v.Value >= 1 && !math.IsInf(v.Value, 1)) {
		wa.field("aggression").errorf("%v is not 1 or more", v.Value)
	}
	if hashes(lb) || lb.GetSimple() == networking.LoadBalancerSettings_RANDOM {
		wa.errorf("has an effect only with ROUND_ROBIN and LEAST_REQUEST: remove it")
	}
}

func hashes(lb *networking.LoadBalancerSettings) bool { return lb.GetConsistentHash() != nil }

func isPrime(n uint64) bool {
	if n < 2 || n > maxTableSize {
		return false
	}
	for d := uint64(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}

// applyLoadBalancer says how a cluster chooses an endpoint.
func applyLoadBalancer(c *clusterv3.Cluster, lb *networking.LoadBalancerSettings) {
	hash := lb.GetConsistentHash()
	if hash == nil {
		applySimple(c, lb)
		return
	}
	if maglev := hash.GetMaglev(); maglev != nil {
		c.LbPolicy = clusterv3.Cluster_MAGLEV
		if n := maglev.TableSize; n > 0 {
			c.LbConfig = &clusterv3.Cluster_MaglevLbConfig_{
				MaglevLbConfig: &clusterv3.Cluster_MaglevLbConfig{TableSize: wrapperspb.UInt64(n)},
			}
		}
		return
	}
	size := hash.GetRingHash().GetMinimumRingSize()
	if size == 0 {
		size = hash.MinimumRingSize //nolint:staticcheck // the deprecated field is still in use
	}
	if size == 0 {
		size = defaultRingSize
	}
	c.LbPolicy = clusterv3.Cluster_RING_HASH
	c.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{
		RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{MinimumRingSize: wrapperspb.UInt64(size)},
	}
}

// applySimple is least request unless another is asked for, as in Istio.
func applySimple(c *clusterv3.Cluster, lb *networking.LoadBalancerSettings) {
	warmup := slowStart(lb)
	switch lb.GetSimple() {
	case networking.LoadBalancerSettings_ROUND_ROBIN:
		c.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
		if warmup != nil {
			c.LbConfig = &clusterv3.Cluster_RoundRobinLbConfig_{
				RoundRobinLbConfig: &clusterv3.Cluster_RoundRobinLbConfig{SlowStartConfig: warmup},
			}
		}
	case networking.LoadBalancerSettings_RANDOM:
		c.LbPolicy = clusterv3.Cluster_RANDOM
	default:
		c.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
		if warmup != nil {
			c.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{
				LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{SlowStartConfig: warmup},
			}
		}
	}
}

// slowStart is warmup; nil without. The old form of it is a duration alone.
func slowStart(lb *networking.LoadBalancerSettings) *clusterv3.Cluster_SlowStartConfig {
	warmup := lb.GetWarmup()
	if warmup == nil {
		d := lb.GetWarmupDurationSecs()
		if d == nil {
			return nil
		}
		return &clusterv3.Cluster_SlowStartConfig{SlowStartWindow: d}
	}
	s := &clusterv3.Cluster_SlowStartConfig{SlowStartWindow: warmup.Duration}
	if v := warmup.Aggression; v != nil {
		s.Aggression = &corev3.RuntimeDouble{DefaultValue: v.Value, RuntimeKey: "warmup.aggression"}
	}
	if v := warmup.MinimumPercent; v != nil {
		s.MinWeightPercent = &typev3.Percent{Value: v.Value}
	}
	return s
}

// hashPolicy is how the calls of a route to a destination are hashed; nil if its
// cluster does not balance by hash.
func hashPolicy(lb *networking.LoadBalancerSettings) *routev3.RouteAction_HashPolicy {
	switch key := lb.GetConsistentHash().GetHashKey().(type) {
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Header_{
			Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: key.HttpHeaderName},
		}}
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_QueryParameter_{
			QueryParameter: &routev3.RouteAction_HashPolicy_QueryParameter{Name: key.HttpQueryParameterName},
		}}
	case *networking.LoadBalancerSettings_ConsistentHashLB_UseSourceIp:
		if !key.UseSourceIp {
			return nil
		}
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_ConnectionProperties_{
			ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true},
		}}
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		cookie := &routev3.RouteAction_HashPolicy_Cookie{
			Name: key.HttpCookie.GetName(), Ttl: key.HttpCookie.GetTtl(), Path: key.HttpCookie.GetPath(),
		}
		for _, a := range key.HttpCookie.GetAttributes() {
			cookie.Attributes = append(cookie.Attributes, &routev3.RouteAction_HashPolicy_CookieAttribute{Name: a.Name, Value: a.Value})
		}
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Cookie_{Cookie: cookie}}
	}
	return nil
}

// hashes reports whether the rule lets any cluster balance by hash.
func (d *destinationRule) hashes() bool {
	some := func(p *networking.TrafficPolicy) bool {
		return hashes(p.GetLoadBalancer()) || slices.ContainsFunc(p.GetPortLevelSettings(),
			func(pl *networking.TrafficPolicy_PortTrafficPolicy) bool { return hashes(pl.LoadBalancer) })
	}
	return some(d.spec.TrafficPolicy) || slices.ContainsFunc(d.spec.Subsets,
		func(s *networking.Subset) bool { return some(s.TrafficPolicy) })
}

// withHashes adds to routes how their calls are hashed, as the rules say that a
// namespace calls their destinations by. Routes are shared with other namespaces,
// so that it is copies that are changed.
func (r *registry) withHashes(choices [][]sourcedRoute, namespace string) [][]sourcedRoute {
	if !r.hashing {
		return choices
	}
	changed := make([][]sourcedRoute, len(choices))
	for i, routes := range choices {
		changed[i] = slices.Clone(routes)
		for j, one := range routes {
			if policies := r.hashPolicies(one.route.GetRoute(), namespace); policies != nil {
				route := proto.CloneOf(one.route)
				route.GetRoute().HashPolicy = policies
				changed[i][j].route = route
			}
		}
	}
	return changed
}

// hashPolicies are those of all destinations of a route, in order, each once.
func (r *registry) hashPolicies(action *routev3.RouteAction, namespace string) []*routev3.RouteAction_HashPolicy {
	names := []string{action.GetCluster()}
	for _, c := range action.GetWeightedClusters().GetClusters() {
		names = append(names, c.Name)
	}
	var policies []*routev3.RouteAction_HashPolicy
	for _, name := range names {
		p := hashPolicy(r.loadBalancerOf(name, namespace))
		if p != nil && !slices.ContainsFunc(policies, func(other *routev3.RouteAction_HashPolicy) bool { return proto.Equal(p, other) }) {
			policies = append(policies, p)
		}
	}
	return policies
}

// loadBalancerOf is the setting of a cluster, by its name, for a namespace; nil if
// there is none.
func (r *registry) loadBalancerOf(cluster, namespace string) *networking.LoadBalancerSettings {
	parts := strings.Split(cluster, "|")
	if len(parts) != 4 || len(r.services[parts[3]]) == 0 {
		return nil
	}
	port, err := strconv.ParseUint(parts[1], 10, 32)
	if err != nil {
		return nil
	}
	rule := r.ruleIn(r.seenFrom(parts[3], namespace), namespace)
	if rule == nil {
		return nil
	}
	subset := slices.IndexFunc(rule.spec.Subsets, func(s *networking.Subset) bool { return s.Name == parts[2] })
	return rule.policyFor(uint32(port), subset).lb
}
