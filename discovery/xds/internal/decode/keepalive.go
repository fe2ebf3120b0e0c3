package decode

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/discovery"
)

var keepAliveFields = []messageFields{
	{
		message: (*clusterv3.UpstreamConnectionOptions)(nil),
		read:    "tcp_keepalive happy_eyeballs_config",
		// Only extensions of Envoy's look at the interface.
		harmless: "set_local_interface_name_on_upstream_connections",
	},
	{message: (*clusterv3.UpstreamConnectionOptions_HappyEyeballsConfig)(nil), read: "first_address_family_version first_address_family_count"},
	{message: (*corev3.TcpKeepalive)(nil), read: "keepalive_probes keepalive_time keepalive_interval"},
}

// The most that Linux takes for a connection: what is above would fail every
// connection later.
const (
	maxKeepAliveProbes  = 127
	maxKeepAliveSeconds = 32767
)

// keepAlive decodes tcp_keepalive. As in Envoy, a 0 in any of its fields
// switches probing off, and a field that is not set is nobody's business here.
func (d *decoder) keepAlive(at path, m *corev3.TcpKeepalive) *discovery.KeepAlive {
	if m == nil {
		return nil
	}
	k := new(discovery.KeepAlive)
	number := func(name string, v *wrapperspb.UInt32Value, most uint32) uint32 {
		switch {
		case v == nil:
		case v.GetValue() == 0:
			k.Off = true
		case v.GetValue() > most:
			d.refusef(at.field(name), "%d is not possible: use at most %d", v.GetValue(), most)
		}
		return v.GetValue()
	}
	k.Probes = number("keepalive_probes", m.GetKeepaliveProbes(), maxKeepAliveProbes)
	k.Time = time.Duration(number("keepalive_time", m.GetKeepaliveTime(), maxKeepAliveSeconds)) * time.Second
	k.Interval = time.Duration(number("keepalive_interval", m.GetKeepaliveInterval(), maxKeepAliveSeconds)) * time.Second
	return k
}

// families decodes happy_eyeballs_config. Envoy's constraints have checked the
// count.
func (d *decoder) families(at path, m *clusterv3.UpstreamConnectionOptions_HappyEyeballsConfig) discovery.Families {
	f := discovery.Families{Count: m.GetFirstAddressFamilyCount().GetValue()}
	switch v := m.GetFirstAddressFamilyVersion(); v {
	case clusterv3.UpstreamConnectionOptions_DEFAULT:
	case clusterv3.UpstreamConnectionOptions_V4:
		f.First = discovery.IPv4
	case clusterv3.UpstreamConnectionOptions_V6:
		f.First = discovery.IPv6
	default:
		d.refusef(at.field("first_address_family_version"), "%s is not supported: use DEFAULT, V4 or V6", v)
	}
	return f
}
