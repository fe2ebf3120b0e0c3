package decode

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inboardmesh/inboard/breaker"
)

// breakerKey is where a cluster's metadata configures the error-rate breaker.
const breakerKey = "inboard.breaker"

// defaultBreaker returns the settings that the metadata leaves out.
func defaultBreaker() breaker.Settings {
	return breaker.Settings{
		FailureRatio:   0.5,
		MinRequests:    20,
		Window:         10 * time.Second,
		OpenTime:       5 * time.Second,
		HalfOpenProbes: 3,
	}
}

// breakerSettings decodes filter_metadata["inboard.breaker"]; nil without it.
// Metadata under other keys is for others.
func (d *decoder) breakerSettings(at path, m *corev3.Metadata) *breaker.Settings {
	config, ok := m.GetFilterMetadata()[breakerKey]
	if !ok {
		return nil
	}
	at = at.entry("filter_metadata", breakerKey)
	settings := defaultBreaker()
	for _, name := range slices.Sorted(maps.Keys(config.GetFields())) {
		in, value := at.field(name), config.GetFields()[name]
		switch name {
		case "failureRatio":
			settings.FailureRatio = d.ratio(in, value)
		case "minimumRequests":
			settings.MinRequests = d.count(in, value)
		case "window":
			settings.Window = d.period(in, value)
		case "openTime":
			settings.OpenTime = d.period(in, value)
		case "halfOpenProbes":
			settings.HalfOpenProbes = d.count(in, value)
		default:
			d.refuse(in, "unknown: use failureRatio, minimumRequests, window, openTime or halfOpenProbes")
		}
	}
	return &settings
}

// ratio decodes a number in (0, 1].
func (d *decoder) ratio(at path, v *structpb.Value) float64 {
	n, ok := v.GetKind().(*structpb.Value_NumberValue)
	if !ok || !(n.NumberValue > 0 && n.NumberValue <= 1) {
		d.refuse(at, "must be a number more than 0 and at most 1: is %s", valueText(v))
		return 0
	}
	return n.NumberValue
}

// count decodes a whole number of at least 1.
func (d *decoder) count(at path, v *structpb.Value) uint32 {
	n, ok := v.GetKind().(*structpb.Value_NumberValue)
	if !ok || !(n.NumberValue >= 1 && n.NumberValue <= math.MaxUint32) || n.NumberValue != math.Trunc(n.NumberValue) {
		d.refuse(at, "must be a whole number of at least 1: is %s", valueText(v))
		return 0
	}
	return uint32(n.NumberValue)
}

// period decodes a duration in Go's form, more than 0.
func (d *decoder) period(at path, v *structpb.Value) time.Duration {
	text, _ := stringValue(v)
	period, err := time.ParseDuration(text)
	if err != nil || period <= 0 {
		d.refuse(at, `must be a duration more than 0, such as "10s": is %s`, valueText(v))
		return 0
	}
	return period
}

// stringValue returns the string that v holds, if it holds one.
func stringValue(v *structpb.Value) (string, bool) {
	s, ok := v.GetKind().(*structpb.Value_StringValue)
	if !ok {
		return "", false
	}
	return s.StringValue, true
}

// valueText shows a value that is not what it must be. Protobuf's own text is
// not the same from build to build.
func valueText(v *structpb.Value) string {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return strconv.Quote(kind.StringValue)
	case *structpb.Value_NumberValue:
		return strconv.FormatFloat(kind.NumberValue, 'g', -1, 64)
	case *structpb.Value_BoolValue:
		return strconv.FormatBool(kind.BoolValue)
	case *structpb.Value_StructValue:
		return "an object"
	case *structpb.Value_ListValue:
		return "a list"
	}
	return "null"
}
