package decode

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
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

// breakerSettings decodes filter_metadata["inboard.breaker"] into the settings of
// the cluster's breaker and of those of its endpoints; nil is none. Metadata under
// other keys is for others.
func (d *decoder) breakerSettings(at path, m *corev3.Metadata) (whole, each *breaker.Settings) {
	config, ok := m.GetFilterMetadata()[breakerKey]
	if !ok {
		return nil, nil
	}
	scope := "cluster"
	at = at.entry("filter_metadata", breakerKey)
	settings := defaultBreaker()
	for _, name := range slices.Sorted(maps.Keys(config.GetFields())) {
		in, value := at.field(name), config.GetFields()[name]
		switch name {
		case "failureRatio":
			settings.FailureRatio = d.ratio(in, value, settings.FailureRatio)
		case "minimumRequests":
			settings.MinRequests = d.count(in, value, settings.MinRequests)
		case "window":
			settings.Window = d.period(in, value, settings.Window)
		case "openTime":
			settings.OpenTime = d.period(in, value, settings.OpenTime)
		case "halfOpenProbes":
			settings.HalfOpenProbes = d.count(in, value, settings.HalfOpenProbes)
		case "scope":
			if text, ok := stringValue(value); ok {
				scope = text
			} else {
				scope = valueText(value)
			}
		default:
			d.refusef(in, "unknown: use failureRatio, minimumRequests, window, openTime, halfOpenProbes or scope")
		}
	}
	if err := settings.Validate(); err != nil {
		d.refusef(at, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	switch scope {
	case "cluster":
		return &settings, nil
	case "endpoint":
		return nil, &settings
	case "both":
		return &settings, &settings
	}
	d.refusef(at.field("scope"), `must be "cluster", "endpoint" or "both": is %q`, scope)
	return nil, nil
}

// ratio decodes a number; whenBad stands in for what is none.
func (d *decoder) ratio(at path, v *structpb.Value, whenBad float64) float64 {
	n, ok := v.GetKind().(*structpb.Value_NumberValue)
	if !ok {
		d.refusef(at, "must be a number: is %s", valueText(v))
		return whenBad
	}
	return n.NumberValue
}

// count decodes a whole number.
func (d *decoder) count(at path, v *structpb.Value, whenBad uint32) uint32 {
	n, ok := v.GetKind().(*structpb.Value_NumberValue)
	if !ok || !(n.NumberValue >= 0 && n.NumberValue <= math.MaxUint32) || n.NumberValue != math.Trunc(n.NumberValue) {
		d.refusef(at, "must be a whole number up to %d: is %s", uint32(math.MaxUint32), valueText(v))
		return whenBad
	}
	return uint32(n.NumberValue)
}

// period decodes a duration in Go's form.
func (d *decoder) period(at path, v *structpb.Value, whenBad time.Duration) time.Duration {
	text, _ := stringValue(v)
	period, err := time.ParseDuration(text)
	if err != nil {
		d.refusef(at, `must be a duration such as "10s": is %s`, valueText(v))
		return whenBad
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
