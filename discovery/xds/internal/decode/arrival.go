package decode

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	xffv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/original_ip_detection/xff/v3"

	"github.com/inboardmesh/inboard/discovery"
)

var arrivalFields = []messageFields{
	{message: (*hcmv3.HttpConnectionManager_InternalAddressConfig)(nil), read: "cidr_ranges", zero: "unix_sockets"},
	{message: (*hcmv3.HttpConnectionManager_SetCurrentClientCertDetails)(nil), read: "subject cert chain dns uri"},
	{message: (*xffv3.XffConfig)(nil), read: "xff_num_trusted_hops xff_trusted_cidrs skip_xff_append"},
	{message: (*xffv3.XffTrustedCidrs)(nil), read: "cidrs"},
	{message: (*corev3.CidrRange)(nil), read: "address_prefix prefix_len"},
}

// Envoy's defaults.
const (
	defaultHeadersKB    = 60
	defaultHeadersCount = 100
)

// headerLimits decodes the limits of a server's request headers.
func headerLimits(m *hcmv3.HttpConnectionManager) discovery.HeaderLimits {
	limits := discovery.HeaderLimits{Bytes: defaultHeadersKB << 10, Count: defaultHeadersCount}
	if v := m.GetMaxRequestHeadersKb(); v != nil {
		limits.Bytes = v.GetValue() << 10 // Envoy allows 8 MiB at most
	}
	if v := m.GetCommonHttpProtocolOptions().GetMaxHeadersCount(); v != nil {
		limits.Count = v.GetValue()
	}
	return limits
}

// forwarding decodes what a server makes of the headers that tell of a client.
func (d *decoder) forwarding(at path, m *hcmv3.HttpConnectionManager) discovery.Forwarding {
	f := discovery.Forwarding{
		Hops:          m.GetXffNumTrustedHops(),
		SkipAppend:    m.GetSkipXffAppend(),
		RequestID:     m.GetGenerateRequestId().GetValue(),
		KeepRequestID: m.GetPreserveExternalRequestId(),
		Internal:      d.cidrs(at.field("internal_address_config"), "cidr_ranges", m.GetInternalAddressConfig().GetCidrRanges()),
	}
	if v := m.GetUseRemoteAddress(); v != nil {
		f.Client = discovery.ClientIsForwarded
		if v.GetValue() {
			f.Client = discovery.ClientIsPeer
		}
	}
	d.originalIP(at, m, &f)
	details := m.GetSetCurrentClientCertDetails()
	f.Details = discovery.CertificateDetails{
		Subject: details.GetSubject().GetValue(), Certificate: details.GetCert(), Chain: details.GetChain(),
		DNS: details.GetDns(), URI: details.GetUri(),
	}
	switch m.GetForwardClientCertDetails() {
	case hcmv3.HttpConnectionManager_SANITIZE:
	case hcmv3.HttpConnectionManager_FORWARD_ONLY:
		f.Certificate = discovery.CertificateForward
	case hcmv3.HttpConnectionManager_APPEND_FORWARD:
		f.Certificate = discovery.CertificateAppend
	case hcmv3.HttpConnectionManager_SANITIZE_SET:
		f.Certificate = discovery.CertificateSet
	case hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY:
		f.Certificate = discovery.CertificateAlwaysForward
	default:
		d.refusef(at.field("forward_client_cert_details"), "%s is not supported", m.GetForwardClientCertDetails())
	}
	return f
}

// originalIP decodes original_ip_detection_extensions, which take the place of
// xff_num_trusted_hops and may not stand beside use_remote_address.
func (d *decoder) originalIP(at path, m *hcmv3.HttpConnectionManager, f *discovery.Forwarding) {
	list := m.GetOriginalIpDetectionExtensions()
	if len(list) == 0 {
		return
	}
	in := at.element("original_ip_detection_extensions", 0)
	xff := &xffv3.XffConfig{}
	if !d.unpack(in.field("typed_config"), list[0].GetTypedConfig(), xff) {
		return
	}
	in = in.field("typed_config")
	switch {
	case len(list) > 1:
		d.refusef(at.field("original_ip_detection_extensions"), "more than one is not supported")
	case m.GetUseRemoteAddress().GetValue(), m.GetXffNumTrustedHops() > 0:
		d.refusef(at.field("original_ip_detection_extensions"), "must not be set beside use_remote_address or xff_num_trusted_hops")
	case xff.GetXffNumTrustedHops() > 0 && xff.GetXffTrustedCidrs() != nil:
		d.refusef(in.field("xff_trusted_cidrs"), "must not be set beside xff_num_trusted_hops")
	}
	f.Client, f.Hops = discovery.ClientIsForwarded, xff.GetXffNumTrustedHops()
	f.TrustedProxies = d.cidrs(in.field("xff_trusted_cidrs"), "cidrs", xff.GetXffTrustedCidrs().GetCidrs())
	// Nothing is appended here; Envoy's default is not to, either.
	if v := xff.GetSkipXffAppend(); v != nil && !v.GetValue() {
		d.refusef(in.field("skip_xff_append"), "false is not supported: use use_remote_address, which appends the peer's address")
	}
}

func (d *decoder) cidrs(at path, field string, list []*corev3.CidrRange) []netip.Prefix {
	var ranges []netip.Prefix
	for i, m := range list {
		ranges = append(ranges, d.cidr(at.element(field, i), m))
	}
	return ranges
}

// cidr decodes a CidrRange. Without a length it is all addresses, as in Envoy.
func (d *decoder) cidr(at path, m *corev3.CidrRange) netip.Prefix {
	address, err := netip.ParseAddr(m.GetAddressPrefix())
	if err != nil || address.Zone() != "" {
		d.refusef(at.field("address_prefix"), "%q is not an IP address", m.GetAddressPrefix())
		return netip.Prefix{}
	}
	bits := m.GetPrefixLen().GetValue()
	// ::ffff:10.0.0.0/104 is 10.0.0.0/8.
	if address.Is4In6() && bits >= 96 {
		address, bits = address.Unmap(), bits-96
	}
	prefix, err := address.Prefix(int(bits))
	if err != nil {
		d.refusef(at.field("prefix_len"), "%d is too long for %s", bits, address)
	}
	return prefix
}

// noForwarding refuses for clients what only a server can do.
func (d *decoder) noForwarding(at path, m *hcmv3.HttpConnectionManager) {
	const why = "has no effect in an api_listener, to which nobody connects"
	for _, field := range []struct {
		name string
		set  bool
	}{
		{"use_remote_address", m.GetUseRemoteAddress().GetValue()},
		{"xff_num_trusted_hops", m.GetXffNumTrustedHops() > 0},
		{"skip_xff_append", m.GetSkipXffAppend()},
		{"original_ip_detection_extensions", len(m.GetOriginalIpDetectionExtensions()) > 0},
		{"internal_address_config", m.GetInternalAddressConfig() != nil},
		{"generate_request_id", m.GetGenerateRequestId().GetValue()},
		{"preserve_external_request_id", m.GetPreserveExternalRequestId()},
		{"forward_client_cert_details", m.GetForwardClientCertDetails() != hcmv3.HttpConnectionManager_SANITIZE},
		{"set_current_client_cert_details", m.GetSetCurrentClientCertDetails() != nil},
		{"max_request_headers_kb", m.GetMaxRequestHeadersKb() != nil},
		{"common_http_protocol_options", m.GetCommonHttpProtocolOptions().GetMaxHeadersCount() != nil},
	} {
		if field.set {
			d.refusef(at.field(field.name), why)
		}
	}
}
