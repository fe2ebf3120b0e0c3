package relay

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	weightedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3"
	pickfirstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/pick_first/v3"
	localityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

// clusterPair is a cluster and the endpoints that go with it.
type clusterPair struct {
	cluster *clusterv3.Cluster
	// endpoints are named by endpointsName; it is "" for a cluster that has its
	// endpoints in itself, or consists of others.
	endpointsName string
	endpoints     proto.Message
}

// clusterPair writes a cluster that has no error.
func (e *encoder) clusterPair(name string, r discovery.ClusterResult, refused refusedClusters) (clusterPair, error) {
	c := r.Cluster
	where := fmt.Sprintf("cluster %q", name)
	out := &clusterv3.Cluster{Name: plainName(name)}
	if err := e.balancing(where, c, out); err != nil {
		return clusterPair{}, err
	}
	if limit := c.Limits[discovery.PriorityDefault].MaxRequests; limit > 0 {
		out.CircuitBreakers = &clusterv3.CircuitBreakers{
			Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{MaxRequests: wrapperspb.UInt32(limit)}},
		}
	}
	e.outlier(where, c.Outlier, out)
	for what, is := range map[string]bool{
		"there is no breaker of the rate of errors": c.Breaker != nil || c.EndpointBreaker != nil,
		"endpoints are not checked actively":        c.HealthCheck != nil,
		"retries have no budget":                    c.RetryBudget != [2]*retryBudget{} || c.RetryThrottle != nil,
		"connections have no limits":                c.MaxRequestsPerConnection > 0 || c.MaxConnectionDuration > 0 || c.HostConnections != [2]uint32{},
		"TCP is probed as gRPC does it":             c.KeepAlive != nil,
	} {
		if is {
			e.leave(where, "%s", what)
		}
	}
	if len(c.Aggregate) > 0 {
		parts := make([]string, 0, len(c.Aggregate))
		for _, part := range c.Aggregate {
			parts = append(parts, refused.name(part))
		}
		config, err := pack(&aggregatev3.ClusterConfig{Clusters: parts})
		if err != nil {
			return clusterPair{}, err
		}
		out.ClusterDiscoveryType = &clusterv3.Cluster_ClusterType{
			ClusterType: &clusterv3.Cluster_CustomClusterType{Name: "envoy.clusters.aggregate", TypedConfig: config},
		}
		return clusterPair{cluster: out}, nil
	}
	chosen, left := chooseTLS(c, r.Endpoints)
	if chosen.tls != nil {
		socket, err := e.upstreamTLS(where, chosen.tls)
		if err != nil {
			return clusterPair{}, err
		}
		out.TransportSocket = socket
	}
	if left > 0 {
		e.leave(where, "%d endpoints are not called: the others are reached by the transport socket %q, and grpc-go has one for all", left, chosen.name)
	}
	names := c.DNS != nil && !allAddresses(r.Endpoints)
	assigned := assignment(r.Endpoints, func(ep *balancer.Endpoint) bool { return socketOf(c, ep).name == chosen.name }, !names, c.Balancer.LocalityWeighted)
	if names {
		return byName(out, assigned)
	}
	// The name tells how the endpoints are reached, so that a cluster never meets
	// endpoints that are for another way.
	assigned.ClusterName = out.GetName()
	if chosen.name != "" {
		assigned.ClusterName += "|" + chosen.name
	}
	out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
	out.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: assigned.GetClusterName()}
	return clusterPair{cluster: out, endpointsName: assigned.GetClusterName(), endpoints: assigned}, nil
}

// byName writes a cluster whose endpoint is known by its name, which grpc-go
// resolves. It does that for one name.
func byName(out *clusterv3.Cluster, assigned *loadAssignment) (clusterPair, error) {
	if l := assigned.GetEndpoints(); len(l) != 1 || len(l[0].GetLbEndpoints()) != 1 {
		return clusterPair{}, errors.New("grpc-go resolves clusters of one DNS name only: call with mesh.DialOptions instead")
	}
	assigned.ClusterName = out.GetName()
	out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_LOGICAL_DNS}
	out.LoadAssignment = assigned
	return clusterPair{cluster: out}, nil
}

// balancing writes how the cluster balances.
func (e *encoder) balancing(where string, c *discovery.Cluster, out *clusterv3.Cluster) error {
	b := &c.Balancer
	if b.Subsets != nil {
		return errors.New("grpc-go has no subsets inside of a cluster, and would call all its endpoints: call with mesh.DialOptions instead")
	}
	switch b.Policy {
	case balancer.RoundRobin:
	case balancer.Random:
		e.leave(where, "endpoints are called in turn, not at random")
	case balancer.LeastRequest, balancer.PeakEWMA:
		out.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
		if b.ChoiceCount > 1 && b.Policy == balancer.LeastRequest {
			out.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{
				LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{ChoiceCount: wrapperspb.UInt32(b.ChoiceCount)},
			}
		}
		if b.Policy == balancer.PeakEWMA {
			e.leave(where, "the less busy of two endpoints is called, however fast they answer")
		}
	case balancer.RingHash, balancer.Maglev:
		ring := &clusterv3.Cluster_RingHashLbConfig{}
		if b.Policy == balancer.RingHash {
			ring.MinimumRingSize, ring.MaximumRingSize = size(b.MinRingSize), size(b.MaxRingSize)
		} else {
			e.leave(where, "a ring takes the place of Maglev's table")
		}
		out.LbPolicy = clusterv3.Cluster_RING_HASH
		out.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: ring}
		if b.HashHostnames || b.HashBalanceFactor > 0 || b.RingMurmur {
			e.leave(where, "the ring is of addresses by xxHash, without a bound of load")
		}
	case balancer.ClientWeighted:
		return clientWeighted(&b.ClientWeighted, out)
	case balancer.PickFirst:
		return policy(out, "envoy.load_balancing_policies.pick_first", &pickfirstv3.PickFirst{ShuffleAddressList: b.Shuffle})
	default:
		return errors.New("grpc-go does not have the balancing policy of the application: call with mesh.DialOptions instead")
	}
	for what, is := range map[string]bool{
		"endpoints that are new are not called less": b.SlowStart != balancer.SlowStart{},
		"all of the endpoints are called":            b.Subsetting != balancer.Subsetting{},
		"the caller's zone is not preferred":         b.ZoneAware != nil,
		"endpoints are not compared all":             b.FullScan,
	} {
		if is {
			e.leave(where, "%s", what)
		}
	}
	return nil
}

func size(n uint64) *wrapperspb.UInt64Value {
	if n == 0 {
		return nil
	}
	return wrapperspb.UInt64(n)
}

// policy sets a load balancing policy that lb_policy has no word for.
func policy(out *clusterv3.Cluster, name string, config proto.Message) error {
	list, err := policies(name, config)
	out.LoadBalancingPolicy = list
	return err
}

func policies(name string, config proto.Message) (*clusterv3.LoadBalancingPolicy, error) {
	packed, err := pack(config)
	if err != nil {
		return nil, err
	}
	return &clusterv3.LoadBalancingPolicy{Policies: []*clusterv3.LoadBalancingPolicy_Policy{{
		TypedExtensionConfig: &corev3.TypedExtensionConfig{Name: name, TypedConfig: packed},
	}}}, nil
}

func clientWeighted(c *balancer.ClientWeightedConfig, out *clusterv3.Cluster) error {
	// Less than 0 is none of it here.
	atLeast := func(d time.Duration) *durationpb.Duration {
		return duration(cmp.Or(max(d, 0), min(-d, time.Nanosecond)))
	}
	inner, err := policies("envoy.load_balancing_policies.client_side_weighted_round_robin", &weightedv3.ClientSideWeightedRoundRobin{
		EnableOobLoadReport:     wrapperspb.Bool(c.OutOfBand),
		OobReportingPeriod:      duration(c.ReportPeriod),
		BlackoutPeriod:          atLeast(c.Blackout),
		WeightExpirationPeriod:  duration(max(c.Expiration, 0)),
		WeightUpdatePeriod:      duration(c.UpdatePeriod),
		ErrorUtilizationPenalty: wrapperspb.Float(float32(c.ErrorPenalty)),
	})
	if err != nil {
		return err
	}
	return policy(out, "envoy.load_balancing_policies.wrr_locality", &localityv3.WrrLocality{EndpointPickingPolicy: inner})
}

// outlier writes outlier detection: what is counted over an interval, since
// grpc-go does not count failures in a row.
func (e *encoder) outlier(where string, o *balancer.OutlierConfig, out *clusterv3.Cluster) {
	if !o.Ejects() {
		return
	}
	out.OutlierDetection = &clusterv3.OutlierDetection{
		Interval:                       durationpb.New(o.Interval),
		BaseEjectionTime:               durationpb.New(o.BaseEjectionTime),
		MaxEjectionTime:                durationpb.New(max(o.MaxEjectionTime, o.BaseEjectionTime)),
		MaxEjectionPercent:             wrapperspb.UInt32(o.MaxEjectionPercent),
		SuccessRateStdevFactor:         wrapperspb.UInt32(o.SuccessRate.StdevFactor),
		EnforcingSuccessRate:           wrapperspb.UInt32(o.SuccessRate.Enforcing),
		SuccessRateMinimumHosts:        wrapperspb.UInt32(o.SuccessRate.MinimumHosts),
		SuccessRateRequestVolume:       wrapperspb.UInt32(o.SuccessRate.RequestVolume),
		FailurePercentageThreshold:     wrapperspb.UInt32(o.FailurePercentage.Threshold),
		EnforcingFailurePercentage:     wrapperspb.UInt32(o.FailurePercentage.Enforcing),
		FailurePercentageMinimumHosts:  wrapperspb.UInt32(o.FailurePercentage.MinimumHosts),
		FailurePercentageRequestVolume: wrapperspb.UInt32(o.FailurePercentage.RequestVolume),
	}
	in := func(c balancer.ConsecutiveFailures) bool { return c.Threshold > 0 && c.Enforcing > 0 }
	if in(o.Consecutive5xx) || in(o.ConsecutiveGateway) || o.SplitLocalOrigin && in(o.ConsecutiveLocal) {
		e.leave(where, "endpoints are not ejected for failures in a row")
	}
}
