package istio

import (
	"sync"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// natives is what gRPC's own clients and servers get in other words, because they
// reject those of everybody else.
type natives struct {
	// unsaid are the clusters whose balancing no document chooses.
	unsaid map[*clusterv3.Cluster]struct{}
	// made holds what was made, so that the same question has the same answer.
	made sync.Map // *clusterv3.Cluster -> *clusterv3.Cluster
}

// clusterFor is a cluster as a node gets it. What no document chooses is round robin
// for native gRPC, as Istio's generator for it has it: not each of them has least
// request. What they have no word for becomes what is nearest.
func (c *Config) clusterFor(node Node, cluster *clusterv3.Cluster) *clusterv3.Cluster {
	if !node.NativeGRPC || cluster == nil || cluster.LoadBalancingPolicy != nil {
		return cluster
	}
	_, unsaid := c.natives.unsaid[cluster]
	other := cluster.GetLbPolicy()
	switch {
	case other == clusterv3.Cluster_LEAST_REQUEST && unsaid, other == clusterv3.Cluster_RANDOM:
		other = clusterv3.Cluster_ROUND_ROBIN
	case other == clusterv3.Cluster_MAGLEV:
		other = clusterv3.Cluster_RING_HASH
	default:
		return cluster
	}
	if known, ok := c.natives.made.Load(cluster); ok {
		return known.(*clusterv3.Cluster)
	}
	made := proto.CloneOf(cluster)
	made.LbPolicy, made.LbConfig = other, nil
	if other == clusterv3.Cluster_RING_HASH {
		made.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{
			RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{MinimumRingSize: wrapperspb.UInt64(defaultRingSize)},
		}
	}
	known, _ := c.natives.made.LoadOrStore(cluster, made)
	return known.(*clusterv3.Cluster)
}

// nativeMode is the mode of a port of a native gRPC server, which cannot tell TLS
// from plaintext on one port: under PERMISSIVE it gets what the clients in the mesh
// use for it. That is mutual TLS if it is an endpoint that offers it, as it is for
// Istio by its label.
func (c *Config) nativeMode(node Node, port uint32, mode mtlsMode) mtlsMode {
	if mode != permissive {
		return mode
	}
	if node.Labels[tlsModeLabel] == "istio" {
		return strict
	}
	for _, e := range c.workloads[workloadKey{node.Namespace, port}] {
		someone := e.serviceAccount != "" && node.ServiceAccount != "" && e.serviceAccount != node.ServiceAccount
		if !someone && e.mutualTLS() && (e.unknown || mayBe(&node, e)) {
			return strict
		}
	}
	return disabled
}

// mayBe reports whether an endpoint can be the node's by their labels. What they
// offer is no part of it: an endpoint may say that, and the node not. It looks at the
// endpoint's labels, since a node can claim as many as it likes.
func mayBe(n *Node, e *endpoint) bool {
	for k, v := range e.labels {
		if other, ok := n.Labels[k]; ok && other != v && k != tlsModeLabel {
			return false
		}
	}
	return true
}
