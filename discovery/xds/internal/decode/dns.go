package decode

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	getaddrinfov3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/getaddrinfo/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/discovery"
)

// Envoy's defaults for clusters of type DNS.
const (
	defaultDNSRefresh = 5 * time.Second
	// dnsFailureFactor makes max_interval of base_interval.
	dnsFailureFactor = 10
)

// What istiod sends with every cluster of type DNS tunes c-ares, by which Envoy asks.
// Here the process's resolver asks: how that does so is its own business, but whom it
// asks must not be left out.
var dnsResolverFields = []messageFields{
	{
		message: (*caresv3.CaresDnsResolverConfig)(nil),
		harmless: "use_resolvers_as_fallback filter_unroutable_families udp_max_queries query_timeout_seconds query_tries " +
			"rotate_nameservers edns0_max_payload_size max_udp_channel_duration reinit_channel_on_timeout qcache_max_ttl",
		instead: map[string]string{
			"resolvers":            "the process's resolver is asked: give the mesh another one",
			"dns_resolver_options": "the process's resolver is asked: give the mesh another one",
		},
	},
	{message: (*getaddrinfov3.GetAddrInfoDnsResolverConfig)(nil), harmless: "num_retries num_resolver_threads"},
}

// dnsResolver decodes typed_dns_resolver_config.
func (d *decoder) dnsResolver(at path, config *anypb.Any) {
	if is(config, (*getaddrinfov3.GetAddrInfoDnsResolverConfig)(nil)) {
		d.unpack(at, config, &getaddrinfov3.GetAddrInfoDnsResolverConfig{})
		return
	}
	d.unpack(at, config, &caresv3.CaresDnsResolverConfig{})
}

// dns decodes the settings of a cluster of type STRICT_DNS or LOGICAL_DNS.
//
//nolint:staticcheck // the fields that control planes set
func (d *decoder) dns(at path, m *clusterv3.Cluster) *discovery.DNS {
	c := &discovery.DNS{
		Logical: m.GetType() == clusterv3.Cluster_LOGICAL_DNS,
		Family:  d.dnsFamily(at.field("dns_lookup_family"), m.GetDnsLookupFamily()),
		Refresh: defaultDNSRefresh,
		Jitter:  d.duration(at.field("dns_jitter"), m.GetDnsJitter()),
	}
	if m.GetDnsRefreshRate() != nil {
		c.Refresh = d.duration(at.field("dns_refresh_rate"), m.GetDnsRefreshRate())
	}
	if rate := m.GetDnsFailureRefreshRate(); rate != nil {
		in := at.field("dns_failure_refresh_rate")
		c.FailureBase = d.duration(in.field("base_interval"), rate.GetBaseInterval())
		c.FailureMax = dnsFailureFactor * c.FailureBase
		if rate.GetMaxInterval() != nil {
			c.FailureMax = d.duration(in.field("max_interval"), rate.GetMaxInterval())
		}
		if c.FailureMax < c.FailureBase {
			d.refusef(in.field("max_interval"), "%v must not be less than base_interval, %v", c.FailureMax, c.FailureBase)
		}
	}
	for _, other := range []struct {
		name string
		set  bool
	}{
		{"dns_resolvers", len(m.GetDnsResolvers()) > 0},                               //nolint:staticcheck // to refuse it
		{"use_tcp_for_dns_lookups", m.GetUseTcpForDnsLookups()},                       //nolint:staticcheck // as above
		{"dns_resolution_config", len(m.GetDnsResolutionConfig().GetResolvers()) > 0}, //nolint:staticcheck // as above
	} {
		if other.set {
			d.refusef(at.field(other.name), "not supported for type %s: the process's resolver is asked", m.GetType())
		}
	}
	if config := m.GetTypedDnsResolverConfig().GetTypedConfig(); config != nil {
		d.dnsResolver(at.field("typed_dns_resolver_config").field("typed_config"), config)
	}
	if c.Logical {
		endpoints := m.GetLoadAssignment().GetEndpoints()
		if len(endpoints) != 1 || len(endpoints[0].GetLbEndpoints()) != 1 {
			d.refusef(at.field("load_assignment").field("endpoints"), "must be one locality with one endpoint for type %s", m.GetType())
		}
	}
	return c
}

func (d *decoder) dnsFamily(at path, family clusterv3.Cluster_DnsLookupFamily) discovery.DNSFamily {
	switch family {
	case clusterv3.Cluster_AUTO:
		return discovery.DNSAuto
	case clusterv3.Cluster_V4_ONLY:
		return discovery.DNSV4Only
	case clusterv3.Cluster_V6_ONLY:
		return discovery.DNSV6Only
	case clusterv3.Cluster_V4_PREFERRED:
		return discovery.DNSV4Preferred
	case clusterv3.Cluster_ALL:
		return discovery.DNSAll
	}
	d.refusef(at, "%s is not supported", family)
	return discovery.DNSAuto
}

// namedAddress decodes an address whose host may be a name.
func (d *decoder) namedAddress(at path, m *corev3.Address) string {
	host, port, ok := d.tcpAddress(at, m)
	if !ok {
		return ""
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(ip, port).String()
	}
	if !isHostName(host) {
		d.refusef(at.field("socket_address").field("address"), "%q is neither an IP address nor a host name", host)
		return ""
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// isHostName reports whether s can be asked for: labels of letters, digits, '-'
// and '_'. A final dot, which ends the search list, may follow.
func isHostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i] | 0x20 // lower case
			if (c < 'a' || c > 'z') && (label[i] < '0' || label[i] > '9') && label[i] != '-' && label[i] != '_' {
				return false
			}
		}
	}
	return true
}
