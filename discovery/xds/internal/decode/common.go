package decode

import (
	"math"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

var commonFields = []messageFields{
	{
		message: (*corev3.ConfigSource)(nil),
		read:    "ads self resource_api_version",
		// The client's own does-not-exist timer (gRFC A57) stands in for it.
		harmless: "initial_fetch_timeout",
	},
	{message: (*corev3.AggregatedConfigSource)(nil)},
	{
		message: (*corev3.SelfConfigSource)(nil),
		// It is the stream's, which is v3.
		harmless: "transport_api_version",
	},
	{
		message: (*corev3.Metadata)(nil),
		read:    "filter_metadata",
		// Metadata is for whoever knows its key, and no key is known here.
		harmless: "typed_filter_metadata",
	},
	{
		message: (*corev3.Address)(nil), read: "socket_address",
		instead: map[string]string{"pipe": "use socket_address", "envoy_internal_address": "use socket_address"},
	},
	{
		message: (*corev3.SocketAddress)(nil),
		read:    "protocol address port_value",
		// It is for binding a socket, which the application does.
		harmless: "ipv4_compat",
		instead: map[string]string{
			"named_port":                 "use port_value",
			"resolver_name":              "the process's resolver is asked: give the mesh another one",
			"network_namespace_filepath": "connections are made in the process's network namespace",
		},
	},
	{
		message: (*corev3.RuntimeFractionalPercent)(nil),
		read:    "default_value",
		// There is no runtime that could override the default.
		harmless: "runtime_key",
	},
	{
		message:  (*corev3.RuntimeDouble)(nil),
		read:     "default_value",
		harmless: "runtime_key", // as above
	},
	{message: (*typev3.FractionalPercent)(nil), read: "numerator denominator"},
	{message: (*typev3.Percent)(nil), read: "value"},
	{message: (*typev3.Int64Range)(nil), read: "start end"},
	{message: (*typev3.Int32Range)(nil), read: "start end"},
}

// unpack decodes what a holds into m and checks it. It reports false, after it
// has recorded why, if a does not hold an m.
func (d *decoder) unpack(at path, a *anypb.Any, m proto.Message) bool {
	want := m.ProtoReflect().Descriptor().FullName()
	if got := a.MessageName(); got != want {
		d.refusef(at, "%q is not supported here: must be %q", typeName(a), want)
		return false
	}
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		d.refusef(at, "not a valid %s: %w", want, err)
		return false
	}
	d.check(at, m)
	return true
}

// is reports whether a holds a message of the type of m.
func is(a *anypb.Any, m proto.Message) bool {
	return a.MessageName() == m.ProtoReflect().Descriptor().FullName()
}

// typeName is the type of what a holds, as configured if it is not a type URL.
func typeName(a *anypb.Any) string {
	if name := a.MessageName(); name != "" {
		return string(name)
	}
	return a.GetTypeUrl()
}

// adsSource checks that a resource is to come over the same stream: gRFC A27
// and A28 allow "ads" and "self" only.
func (d *decoder) adsSource(at path, source *corev3.ConfigSource) {
	if source.GetAds() == nil && source.GetSelf() == nil {
		d.refusef(at, "must be ads or self")
	}
	if v := source.GetResourceApiVersion(); v != corev3.ApiVersion_AUTO && v != corev3.ApiVersion_V3 {
		d.refusef(at.field("resource_api_version"), "%s is not supported: use V3", v)
	}
}

// duration converts a duration that must not be negative; nil is 0.
func (d *decoder) duration(at path, v *durationpb.Duration) time.Duration {
	if v == nil {
		return 0
	}
	if err := v.CheckValid(); err != nil {
		d.refusef(at, "not a valid duration: %d s and %d ns", v.GetSeconds(), v.GetNanos())
		return 0
	}
	if v.AsDuration() < 0 {
		d.refusef(at, "must not be negative: is %v", v.AsDuration())
		return 0
	}
	return v.AsDuration()
}

// optionalDuration is duration with nil for an absent one.
func (d *decoder) optionalDuration(at path, v *durationpb.Duration) *time.Duration {
	if v == nil {
		return nil
	}
	return new(d.duration(at, v))
}

// perMillion converts a fraction; more than the whole is the whole, nil is 0.
func perMillion(f *typev3.FractionalPercent) uint32 {
	const million = 1_000_000
	n := uint64(f.GetNumerator())
	switch f.GetDenominator() {
	case typev3.FractionalPercent_HUNDRED:
		n *= 10_000
	case typev3.FractionalPercent_TEN_THOUSAND:
		n *= 100
	case typev3.FractionalPercent_MILLION:
	}
	return uint32(min(n, million))
}

// percent converts a percentage of which Envoy's constraints have checked the
// range, or gives the default.
func (d *decoder) percent(at path, p *typev3.Percent, whenAbsent float64) float64 {
	if p == nil {
		return whenAbsent
	}
	// Not a number passes Envoy's range check.
	if math.IsNaN(p.GetValue()) {
		d.refusef(at, "is not a number")
		return whenAbsent
	}
	return p.GetValue()
}

// isFederated tells whether a resource name belongs to the xdstp scheme.
func isFederated(name string) bool { return strings.HasPrefix(name, "xdstp:") }
