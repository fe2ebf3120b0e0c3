package istio

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// The annotations that say what no field of Istio's can. The value of each is an
// object in JSON or YAML, see its settings. It becomes filter metadata of the same
// name: of every cluster of a DestinationRule's host, or of every route of a
// VirtualService that leads to a destination.
const (
	// breakerAnnotation switches the error-rate breaker on.
	breakerAnnotation = "inboard.breaker"
	// throttleAnnotation throttles retries by the share of failures (gRFC A6).
	throttleAnnotation = "inboard.retry_throttle"
	// hedgeAnnotation makes calls that may be repeated once more when an answer
	// is late (gRFC A6). It needs retries: hedges count as such.
	hedgeAnnotation = "inboard.hedge"
	// deadlineAnnotation refuses calls for which too little time is left.
	deadlineAnnotation = "inboard.deadline"
)

// annotationOwner is the kind on which an annotation belongs; "" is unknown.
func annotationOwner(key string) string {
	switch key {
	case breakerAnnotation, throttleAnnotation, balancerAnnotation, subsettingAnnotation, prioritiesAnnotation:
		return kindDestinationRule
	case hedgeAnnotation, deadlineAnnotation:
		return kindVirtualService
	}
	return ""
}

// knownAnnotations are for messages.
const knownAnnotations = balancerAnnotation + ", " + breakerAnnotation + ", " + deadlineAnnotation + ", " + hedgeAnnotation + ", " +
	prioritiesAnnotation + ", " + throttleAnnotation + ", " + subsettingAnnotation

// setting is a field of an annotation's object.
type setting struct {
	name string
	// value is the default; nil is none.
	value    *structpb.Value
	required bool
	read     func(*yaml.Node) (*structpb.Value, error)
}

// annotationSettings are the fields of an annotation and an example of it.
func annotationSettings(key string) (fields []setting, example string) {
	switch key {
	case breakerAnnotation:
		return []setting{
			{name: "failureRatio", value: structpb.NewNumberValue(0.5), read: ratioSetting},      // share of failures that opens it
			{name: "minimumRequests", value: structpb.NewNumberValue(20), read: countSetting(1)}, // that must have ended before the ratio counts
			{name: "window", value: structpb.NewStringValue("10s"), read: periodSetting},         // over which is counted
			{name: "openTime", value: structpb.NewStringValue("5s"), read: periodSetting},        // before it probes
			{name: "halfOpenProbes", value: structpb.NewNumberValue(3), read: countSetting(1)},   // that must succeed to close it
			{name: "scope", read: scopeSetting},                                                  // cluster, which is the default; or endpoint: each has its own; or both
		}, "{failureRatio: 0.5, minimumRequests: 20, window: 10s, openTime: 5s, halfOpenProbes: 3}"
	case throttleAnnotation:
		return []setting{
			{name: "maxTokens", required: true, read: numberSetting(math.SmallestNonzeroFloat64)}, // of which each failure takes one; retries need more than half
			{name: "tokenRatio", required: true, read: numberSetting(0.001)},                      // what a success gives back
		}, "{maxTokens: 10, tokenRatio: 0.1}"
	case prioritiesAnnotation:
		return []setting{
			{name: "policy", required: true, read: prioritiesSetting},
			{name: "connectWithin", read: periodSetting}, // before the next priority is tried; gRPC's 10s without it
		}, "{policy: grpc, connectWithin: 10s}"
	case hedgeAnnotation:
		return []setting{
			{name: "delay", required: true, read: periodSetting}, // without an answer, before the next attempt
			{name: "maxAttempts", read: countSetting(2)},         // in all; without it, as many as retries allow
		}, "{delay: 50ms, maxAttempts: 3}"
	default:
		return []setting{
			{name: "minimum", required: true, read: periodSetting}, // that must be left
		}, "{minimum: 20ms}"
	}
}

// readAnnotations reads those annotations that an object has as filter metadata;
// nil without any. Fields that have a default are there.
func (r *registry) readAnnotations(o *object, keys ...string) map[string]*structpb.Struct {
	var all map[string]*structpb.Struct
	for _, key := range keys {
		text, ok := o.annotations[key]
		if !ok {
			continue
		}
		if all == nil {
			all = make(map[string]*structpb.Struct, len(keys))
		}
		all[key] = parseAnnotation(key, text, at{rep: r.rep, obj: o}.field("metadata").field("annotations").key(key))
	}
	return all
}

// filterMetadata is nil if there is nothing to say.
func filterMetadata(all map[string]*structpb.Struct) *corev3.Metadata {
	if len(all) == 0 {
		return nil
	}
	return &corev3.Metadata{FilterMetadata: all}
}

func parseAnnotation(key, text string, a at) *structpb.Struct {
	switch key {
	case balancerAnnotation:
		return balancerSettings(text, a)
	case subsettingAnnotation:
		return subsettingSettings(text, a)
	}
	settings, example := annotationSettings(key)
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		a.errorf("not valid YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		return nil
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		a.errorf("expected an object like %s", example)
		return nil
	}
	fields := make(map[string]*structpb.Value)
	names := make([]string, 0, len(settings))
	for _, s := range settings {
		names = append(names, s.name)
		if s.value != nil {
			fields[s.name] = s.value
		}
	}
	slices.Sort(names)
	seen := make(map[string]bool)
	content := document.Content[0].Content
	for i := 0; i+1 < len(content); i += 2 {
		name, value := content[i].Value, content[i+1]
		known := slices.IndexFunc(settings, func(s setting) bool { return s.name == name })
		switch {
		case known < 0:
			a.errorf("unknown field %q: use %s", name, strings.Join(names, ", "))
		case seen[name]:
			a.errorf("%q is set twice", name)
		default:
			if read, err := settings[known].read(value); err != nil {
				a.errorf("%s: %v", name, err)
			} else {
				fields[name] = read
			}
		}
		seen[name] = true
	}
	for _, s := range settings {
		if s.required && !seen[s.name] {
			a.errorf("%s: is required, as in %s", s.name, example)
		}
	}
	return &structpb.Struct{Fields: fields}
}

// ratioSetting reads a share of a whole.
func ratioSetting(n *yaml.Node) (*structpb.Value, error) {
	var ratio float64
	if err := n.Decode(&ratio); err != nil || !(ratio > 0 && ratio <= 1) {
		return nil, fmt.Errorf("%q is not greater than 0 and at most 1", n.Value)
	}
	return structpb.NewNumberValue(ratio), nil
}

// numberSetting reads a number of the throttle, of which gRFC A6 bounds both.
func numberSetting(least float64) func(*yaml.Node) (*structpb.Value, error) {
	const most = 1000
	return func(n *yaml.Node) (*structpb.Value, error) {
		var number float64
		if err := n.Decode(&number); err == nil && number >= least && number <= most {
			return structpb.NewNumberValue(number), nil
		}
		if least < 0.001 {
			return nil, fmt.Errorf("%q is not greater than 0 and at most %d", n.Value, most)
		}
		return nil, fmt.Errorf("%q is not a number in %v..%d", n.Value, least, most)
	}
}

// scopeSetting reads whose the breakers are.
func scopeSetting(n *yaml.Node) (*structpb.Value, error) {
	switch n.Value {
	case "cluster", "endpoint", "both":
		return structpb.NewStringValue(n.Value), nil
	}
	return nil, fmt.Errorf("%q is not one of cluster, endpoint, both", n.Value)
}

func countSetting(least uint32) func(*yaml.Node) (*structpb.Value, error) {
	return func(n *yaml.Node) (*structpb.Value, error) {
		var count uint32
		if err := n.Decode(&count); err != nil || n.ShortTag() != "!!int" || count < least {
			return nil, fmt.Errorf("%q is not a whole number in %d..%d", n.Value, least, uint32(math.MaxUint32))
		}
		return structpb.NewNumberValue(float64(count)), nil
	}
}

func periodSetting(n *yaml.Node) (*structpb.Value, error) {
	d, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || d <= 0 {
		return nil, fmt.Errorf("%q is not a positive duration like 10s", n.Value)
	}
	return structpb.NewStringValue(n.Value), nil
}
