package decode

import (
	"encoding/hex"
	"net/http"
	"net/netip"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/health"
)

var healthCheckFields = []messageFields{
	{
		message: (*corev3.HealthCheck)(nil),
		read: "timeout interval initial_jitter interval_jitter interval_jitter_percent unhealthy_threshold " +
			"healthy_threshold alt_port reuse_connection http_health_check tcp_health_check grpc_health_check " +
			"no_traffic_interval no_traffic_healthy_interval unhealthy_interval unhealthy_edge_interval " +
			"healthy_edge_interval tls_options",
		// They name the check, and say to whom Envoy reports it besides: the hooks
		// are told of every check.
		harmless: "name event_log_path event_logger event_service always_log_health_check_failures always_log_health_check_success",
		instead: map[string]string{
			"custom_health_check":             "use http_health_check, grpc_health_check or tcp_health_check",
			"transport_socket_match_criteria": "an endpoint is checked over the transport socket that calls reach it by",
		},
	},
	{
		message: (*corev3.HealthCheck_HttpHealthCheck)(nil),
		read: "host path method send receive response_buffer_size request_headers_to_add request_headers_to_remove " +
			"expected_statuses retriable_statuses codec_client_type use_alpn_protocol service_name_matcher",
	},
	{
		message: (*corev3.HealthCheck_TcpHealthCheck)(nil), read: "send receive",
		instead: map[string]string{"proxy_protocol_config": "no PROXY protocol is spoken to endpoints"},
	},
	{message: (*corev3.HealthCheck_GrpcHealthCheck)(nil), read: "service_name authority initial_metadata"},
	{message: (*corev3.HealthCheck_Payload)(nil), read: "text binary"},
	{message: (*corev3.HealthCheck_TlsOptions)(nil), read: "alpn_protocols"},
	{
		message: (*endpointv3.Endpoint_HealthCheckConfig)(nil),
		read:    "port_value hostname address disable_active_health_check",
	},
}

// Envoy's defaults.
const (
	defaultNoTrafficInterval = time.Minute
	defaultCheckedBody       = 1024
)

// healthCheck decodes a cluster's health_checks, of which Envoy allows one; nil
// without any. Envoy's constraints have checked that times are positive.
func (d *decoder) healthCheck(at path, list []*corev3.HealthCheck) *health.Config {
	if len(list) == 0 {
		return nil
	}
	if len(list) > 1 {
		d.refusef(at.element("health_checks", 1), "more than one health check of a cluster is not supported")
	}
	m := list[0]
	at = at.element("health_checks", 0)
	c := &health.Config{
		NoTrafficInterval:     defaultNoTrafficInterval,
		IntervalJitterPercent: m.GetIntervalJitterPercent(),
		UnhealthyThreshold:    m.GetUnhealthyThreshold().GetValue(),
		HealthyThreshold:      m.GetHealthyThreshold().GetValue(),
		Port:                  m.GetAltPort().GetValue(),
		CloseConnection:       m.GetReuseConnection() != nil && !m.GetReuseConnection().GetValue(),
		ALPN:                  m.GetTlsOptions().GetAlpnProtocols(),
	}
	d.checkPort(at.field("alt_port"), c.Port)
	for _, field := range []struct {
		name  string
		value *durationpb.Duration
		least time.Duration
		to    *time.Duration
	}{
		{"timeout", m.GetTimeout(), shortestInterval, &c.Timeout},
		{"interval", m.GetInterval(), shortestInterval, &c.Interval},
		{"initial_jitter", m.GetInitialJitter(), 0, &c.InitialJitter},
		{"interval_jitter", m.GetIntervalJitter(), 0, &c.IntervalJitter},
		{"no_traffic_interval", m.GetNoTrafficInterval(), shortestInterval, &c.NoTrafficInterval},
		{"no_traffic_healthy_interval", m.GetNoTrafficHealthyInterval(), shortestInterval, &c.NoTrafficHealthyInterval},
		{"unhealthy_interval", m.GetUnhealthyInterval(), shortestInterval, &c.UnhealthyInterval},
		{"unhealthy_edge_interval", m.GetUnhealthyEdgeInterval(), shortestInterval, &c.UnhealthyEdgeInterval},
		{"healthy_edge_interval", m.GetHealthyEdgeInterval(), shortestInterval, &c.HealthyEdgeInterval},
	} {
		if field.value == nil {
			continue
		}
		*field.to = d.duration(at.field(field.name), field.value)
		// One that is not positive is refused by the rules of the message.
		if *field.to > 0 && *field.to < field.least {
			d.refusef(at.field(field.name), "must be at least %v: is %v", field.least, *field.to)
		}
	}
	switch p := m.GetHealthChecker().(type) {
	case *corev3.HealthCheck_HttpHealthCheck_:
		c.HTTP = d.httpCheck(at.field("http_health_check"), p.HttpHealthCheck)
	case *corev3.HealthCheck_GrpcHealthCheck_:
		in, g := at.field("grpc_health_check"), p.GrpcHealthCheck
		c.GRPC = &health.GRPC{
			Service: g.GetServiceName(), Authority: g.GetAuthority(),
			Set: d.checkHeaders(in, "initial_metadata", g.GetInitialMetadata()),
		}
	case *corev3.HealthCheck_TcpHealthCheck_:
		in, t := at.field("tcp_health_check"), p.TcpHealthCheck
		c.TCP = &health.TCP{Send: d.payload(in.field("send"), t.GetSend()), Receive: d.payloads(in, t.GetReceive())}
	}
	return c
}

func (d *decoder) checkPort(at path, port uint32) {
	const maxPort = 65535
	if port > maxPort {
		d.refusef(at, "%d is not a port", port)
	}
}

func (d *decoder) httpCheck(at path, m *corev3.HealthCheck_HttpHealthCheck) *health.HTTP {
	c := &health.HTTP{
		Host: m.GetHost(), Path: m.GetPath(),
		Set:       d.checkHeaders(at, "request_headers_to_add", m.GetRequestHeadersToAdd()),
		Remove:    d.headersToRemove(at, "request_headers_to_remove", m.GetRequestHeadersToRemove()),
		Body:      d.payload(at.field("send"), m.GetSend()),
		Expected:  d.statuses(at, "expected_statuses", m.GetExpectedStatuses()),
		Retriable: d.statuses(at, "retriable_statuses", m.GetRetriableStatuses()),
		Receive:   d.payloads(at, m.GetReceive()),
		BodyLimit: defaultCheckedBody,
	}
	if m.GetMethod() != corev3.RequestMethod_METHOD_UNSPECIFIED {
		c.Method = m.GetMethod().String()
	}
	if c.Path == "" || c.Path[0] != '/' {
		d.refusef(at.field("path"), "%q must begin with a slash", c.Path)
	}
	switch c.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodOptions:
	default:
		if len(c.Body) > 0 {
			d.refusef(at.field("send"), "must not be set for a method without a body: set method to POST")
		}
	}
	if m.GetResponseBufferSize() != nil {
		c.BodyLimit = m.GetResponseBufferSize().GetValue()
	}
	switch m.GetCodecClientType() {
	case typev3.CodecClientType_HTTP1:
	case typev3.CodecClientType_HTTP2:
		c.Codec = health.HTTP2
	default:
		d.refusef(at.field("codec_client_type"), "%s is not supported: use HTTP1 or HTTP2", m.GetCodecClientType())
	}
	if m.GetUseAlpnProtocol() {
		if c.Codec != health.HTTP1 {
			d.refusef(at.field("use_alpn_protocol"), "is not supported beside another codec_client_type than HTTP1")
		}
		c.Codec = health.ALPN
	}
	if m.GetServiceNameMatcher() != nil {
		match := d.stringMatch(at.field("service_name_matcher"), m.GetServiceNameMatcher())
		c.Service = &match
	}
	return c
}

// checkHeaders decodes headers of a check, of which none can be computed: there is
// no call that they could be computed from.
func (d *decoder) checkHeaders(at path, field string, options []*corev3.HeaderValueOption) []health.Header {
	var headers []health.Header
	for i, option := range options {
		value := d.headerToAdd(at.element(field, i), option, discovery.OfRequest)
		if value.Format != nil {
			d.refusef(at.element(field, i).field("header").field("value"), "a value that is computed is not supported in a health check")
		}
		if value.Value != "" || value.KeepEmpty {
			headers = append(headers, health.Header{Name: value.Name, Value: value.Value})
		}
	}
	return headers
}

func (d *decoder) statuses(at path, field string, ranges []*typev3.Int64Range) []health.Statuses {
	var statuses []health.Statuses
	for i, r := range ranges {
		if r.GetStart() < 100 || r.GetEnd() > 600 || r.GetStart() >= r.GetEnd() {
			d.refusef(at.element(field, i), "[%d, %d) is not a range in [100, 600)", r.GetStart(), r.GetEnd())
			continue
		}
		statuses = append(statuses, health.Statuses{Start: int(r.GetStart()), End: int(r.GetEnd())})
	}
	return statuses
}

func (d *decoder) payloads(at path, list []*corev3.HealthCheck_Payload) [][]byte {
	var payloads [][]byte
	for i, m := range list {
		if p := d.payload(at.element("receive", i), m); len(p) > 0 {
			payloads = append(payloads, p)
		}
	}
	return payloads
}

// payload decodes bytes that are written in hexadecimal, or as they are.
func (d *decoder) payload(at path, m *corev3.HealthCheck_Payload) []byte {
	if m == nil || m.GetPayload() == nil {
		return nil
	}
	if p, ok := m.GetPayload().(*corev3.HealthCheck_Payload_Text); ok {
		b, err := hex.DecodeString(p.Text)
		if err != nil {
			d.refusef(at.field("text"), "must be in hexadecimal: %w", err)
		}
		return b
	}
	return m.GetBinary()
}

// endpointCheck decodes an endpoint's health_check_config; nil without one.
func (d *decoder) endpointCheck(at path, m *endpointv3.Endpoint_HealthCheckConfig) *balancer.EndpointCheck {
	if m == nil {
		return nil
	}
	d.checkPort(at.field("port_value"), m.GetPortValue())
	c := &balancer.EndpointCheck{Port: m.GetPortValue(), Hostname: m.GetHostname(), Disabled: m.GetDisableActiveHealthCheck()}
	if m.GetAddress() == nil {
		return c
	}
	address, err := netip.ParseAddrPort(d.socketAddress(at.field("address"), m.GetAddress()))
	if err != nil {
		return c // it was refused
	}
	c.Host = address.Addr().String()
	if c.Port == 0 {
		c.Port = uint32(address.Port())
	}
	return c
}
