package decode

import (
	"maps"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/discovery"
)

var protocolFields = []messageFields{
	{
		message: (*httpv3.HttpProtocolOptions)(nil),
		read: "common_http_protocol_options upstream_http_protocol_options explicit_http_config " +
			"use_downstream_protocol_config auto_config hash_policy",
		instead: map[string]string{
			"http_filters":             "filters are configured in the listener",
			"header_validation_config": "no header validator is known: Go's rules hold",
			"outlier_detection":        "every 5xx counts: use outlier_detection of the cluster",
			"request_mirror_policies":  "use request_mirror_policies of the route",
			"retry_policy":             "use retry_policy of the route",
		},
	},
	// All of its fields are false unless they are populated.
	{
		message: (*corev3.UpstreamHttpProtocolOptions)(nil),
		instead: map[string]string{
			"auto_sni":                 sniInstead,
			"override_auto_sni_header": sniInstead,
			"auto_san_validation":      "name whom to accept in the validation context of the transport socket",
		},
	},
	{
		message: (*httpv3.HttpProtocolOptions_ExplicitHttpConfig)(nil),
		read:    "http_protocol_options http2_protocol_options",
		instead: map[string]string{"http3_protocol_options": http3Instead},
	},
	{
		message: (*httpv3.HttpProtocolOptions_UseDownstreamHttpConfig)(nil),
		read:    "http_protocol_options http2_protocol_options",
		instead: map[string]string{"http3_protocol_options": http3Instead},
	},
	{
		message: (*httpv3.HttpProtocolOptions_AutoHttpConfig)(nil),
		read:    "http_protocol_options http2_protocol_options",
		instead: map[string]string{"http3_protocol_options": http3Instead, "alternate_protocols_cache_options": http3Instead},
	},
	{
		message: (*corev3.Http1ProtocolOptions)(nil),
		instead: map[string]string{
			"allow_absolute_url":                            requestInstead,
			"accept_http_10":                                requestInstead,
			"default_host_for_http_10":                      requestInstead,
			"ignore_http_11_upgrade":                        requestInstead,
			"header_key_format":                             "headers are written in Go's canonical form",
			"enable_trailers":                               "trailers are passed on anyway",
			"allow_chunked_length":                          codecInstead,
			"override_stream_error_on_invalid_http_message": codecInstead,
			"send_fully_qualified_url":                      "no proxy stands before an endpoint",
			"use_balsa_parser":                              codecInstead,
			"allow_custom_methods":                          codecInstead,
		},
	},
	{
		message: (*corev3.Http2ProtocolOptions)(nil),
		read:    "max_concurrent_streams connection_keepalive",
		// They size tables, windows and the codec's defences.
		harmless: "hpack_table_size initial_stream_window_size initial_connection_window_size " +
			"max_outbound_frames max_outbound_control_frames " +
			"max_consecutive_inbound_frames_with_empty_payload max_inbound_priority_frames_per_stream " +
			"max_inbound_window_update_frames_per_data_frame_sent use_oghttp2_codec enable_huffman_encoding " +
			"stream_reset_burst stream_reset_rate",
		instead: map[string]string{
			"allow_connect":                                 "upgrades go over HTTP/1.1",
			"allow_metadata":                                "no METADATA frames are passed on",
			"max_metadata_size":                             "no METADATA frames are passed on",
			"stream_error_on_invalid_http_messaging":        codecInstead,
			"override_stream_error_on_invalid_http_message": codecInstead,
			"custom_settings_parameters":                    codecInstead,
			"max_header_field_size_kb":                      codecInstead,
			"disallow_obs_text":                             codecInstead,
		},
	},
	{message: (*corev3.KeepaliveSettings)(nil), read: "interval timeout interval_jitter connection_idle_interval"},
}

// What those who set fields that are refused have to know.
const (
	sniInstead     = "name sni in the transport socket"
	http3Instead   = "there is no HTTP/3: use http2_protocol_options"
	requestInstead = "the application's server reads requests, by Go's rules"
	codecInstead   = "Go's rules of messages hold"
)

// httpOptionsName is the key of typed_extension_protocol_options.
const httpOptionsName = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// defaultIdleTimeout is Envoy's HttpProtocolOptions.idle_timeout.
const defaultIdleTimeout = time.Hour

// httpProtocol decodes typed_extension_protocol_options into c.
func (d *decoder) httpProtocol(at path, options map[string]*anypb.Any, c *discovery.Cluster) {
	c.IdleTimeout = defaultIdleTimeout
	for _, name := range slices.Sorted(maps.Keys(options)) {
		in := at.entry("typed_extension_protocol_options", name)
		if name != httpOptionsName {
			d.refusef(in, "not supported: use %q", httpOptionsName)
			continue
		}
		m := &httpv3.HttpProtocolOptions{}
		if d.unpack(in, options[name], m) {
			d.connectionLife(in.field("common_http_protocol_options"), m.GetCommonHttpProtocolOptions(), c)
			c.Protocol, c.HTTP2 = d.httpVersion(in, m)
			// Those of the load balancing policy are nearer to it.
			if hash := d.hashPolicies(in, m.GetHashPolicy()); c.Hash == nil {
				c.Hash = hash
			}
		}
	}
}

// connectionLife decodes HttpProtocolOptions for connections to an upstream.
func (d *decoder) connectionLife(at path, m *corev3.HttpProtocolOptions, c *discovery.Cluster) {
	if m.GetIdleTimeout() != nil {
		c.IdleTimeout = d.duration(at.field("idle_timeout"), m.GetIdleTimeout())
	}
	c.MaxConnectionDuration = d.duration(at.field("max_connection_duration"), m.GetMaxConnectionDuration())
	if m.GetMaxHeadersCount() != nil {
		d.refusef(at.field("max_headers_count"), "not supported in a cluster: mesh.Network.Transport has a limit of response headers")
	}
	c.MaxRequestsPerConnection = m.GetMaxRequestsPerConnection().GetValue()
	if m.GetMaxStreamDuration().AsDuration() != 0 {
		d.refusef(at.field("max_stream_duration"), "not supported in a cluster: set it in the route")
	}
}

// httpVersion decodes upstream_protocol_options, which Envoy's constraints
// require.
func (d *decoder) httpVersion(at path, m *httpv3.HttpProtocolOptions) (discovery.HTTPProtocol, discovery.HTTP2Options) {
	const field = "http2_protocol_options"
	switch p := m.GetUpstreamProtocolOptions().(type) {
	case *httpv3.HttpProtocolOptions_ExplicitHttpConfig_:
		if o := p.ExplicitHttpConfig.GetHttp2ProtocolOptions(); o != nil {
			return discovery.HTTP2, d.http2Options(at.field("explicit_http_config").field(field), o)
		}
	case *httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig:
		o := p.UseDownstreamProtocolConfig.GetHttp2ProtocolOptions()
		return discovery.HTTPDownstream, d.http2Options(at.field("use_downstream_protocol_config").field(field), o)
	case *httpv3.HttpProtocolOptions_AutoConfig:
		return discovery.HTTPAuto, d.http2Options(at.field("auto_config").field(field), p.AutoConfig.GetHttp2ProtocolOptions())
	}
	return discovery.HTTP1, discovery.HTTP2Options{}
}

// defaultPingJitter is Envoy's KeepaliveSettings.interval_jitter in percent.
const defaultPingJitter = 15

// http2Options decodes Http2ProtocolOptions. Envoy's constraints require the
// timeout of keep-alive.
func (d *decoder) http2Options(at path, m *corev3.Http2ProtocolOptions) discovery.HTTP2Options {
	o := discovery.HTTP2Options{MaxStreams: m.GetMaxConcurrentStreams().GetValue()}
	if k := m.GetConnectionKeepalive(); k != nil {
		in := at.field("connection_keepalive")
		o.Pings = discovery.Pings{
			Interval: d.duration(in.field("interval"), k.GetInterval()),
			Jitter:   d.percent(in.field("interval_jitter"), k.GetIntervalJitter(), defaultPingJitter),
			Timeout:  d.duration(in.field("timeout"), k.GetTimeout()),
			Idle:     d.duration(in.field("connection_idle_interval"), k.GetConnectionIdleInterval()),
		}
	}
	return o
}
