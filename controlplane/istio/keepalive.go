package istio

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networking "istio.io/api/networking/v1alpha3"
)

// The most that Linux takes for a connection.
const (
	maxKeepAliveProbes = 127
	maxKeepAliveTime   = 32767 * time.Second
)

// checkKeepAlive checks what Istio leaves to the kernel of the client, which counts
// in seconds and would fail every connection.
func checkKeepAlive(k *networking.ConnectionPoolSettings_TCPSettings_TcpKeepalive, a at) {
	if k == nil {
		return
	}
	if k.Probes > maxKeepAliveProbes {
		a.field("probes").errorf("%d is not possible: use at most %d", k.Probes, maxKeepAliveProbes)
	}
	seconds := func(d *durationpb.Duration, a at) {
		switch v := d.AsDuration(); {
		case d == nil:
		case v < time.Second || v > maxKeepAliveTime:
			a.errorf("%v is not possible: use 1s to %v", v, maxKeepAliveTime)
		case v%time.Second != 0:
			a.errorf("%v is too precise: use whole seconds", v)
		}
	}
	seconds(k.Time, a.field("time"))
	seconds(k.Interval, a.field("interval"))
}

// applyKeepAlive translates tcpKeepalive as Istio does: what is not set, or 0
// probes, is left to the client.
func applyKeepAlive(c *clusterv3.Cluster, k *networking.ConnectionPoolSettings_TCPSettings_TcpKeepalive) {
	if k == nil {
		return
	}
	out := new(corev3.TcpKeepalive)
	if k.Probes > 0 {
		out.KeepaliveProbes = wrapperspb.UInt32(k.Probes)
	}
	if k.Time != nil {
		out.KeepaliveTime = wrapperspb.UInt32(uint32(k.Time.AsDuration() / time.Second))
	}
	if k.Interval != nil {
		out.KeepaliveInterval = wrapperspb.UInt32(uint32(k.Interval.AsDuration() / time.Second))
	}
	c.UpstreamConnectionOptions = &clusterv3.UpstreamConnectionOptions{TcpKeepalive: out}
}
