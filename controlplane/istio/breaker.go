package istio

import (
	"math"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// breakerAnnotation on a DestinationRule switches the error-rate breaker of
// every cluster of the host on. Its value is an object in JSON or YAML, of
// which every field has a default:
//
//	failureRatio: 0.5     # share of failures that opens it, in (0, 1]
//	minimumRequests: 20   # that must have ended before the ratio counts
//	window: 10s           # over which is counted
//	openTime: 5s          # before it probes
//	halfOpenProbes: 3     # that must succeed to close it
//	scope: cluster        # or endpoint: each has its own; or both
//
// It becomes the cluster's filter metadata of the same name.
const breakerAnnotation = "inboard.breaker"

// breakerSettings reads the annotation. The result is complete.
func breakerSettings(text string, a at) *structpb.Struct {
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		a.errorf("not valid YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		return nil
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		a.errorf("expected an object like {failureRatio: 0.5, minimumRequests: 20, window: 10s, openTime: 5s, halfOpenProbes: 3}")
		return nil
	}
	fields := map[string]*structpb.Value{
		"failureRatio":    structpb.NewNumberValue(0.5),
		"minimumRequests": structpb.NewNumberValue(20),
		"window":          structpb.NewStringValue("10s"),
		"openTime":        structpb.NewStringValue("5s"),
		"halfOpenProbes":  structpb.NewNumberValue(3),
	}
	seen := make(map[string]bool)
	content := document.Content[0].Content
	for i := 0; i+1 < len(content); i += 2 {
		name, value := content[i].Value, content[i+1]
		switch {
		case seen[name]:
			a.errorf("%q is set twice", name)
		case name == "scope":
			fields[name] = breakerScope(value, a)
		case fields[name] == nil:
			a.errorf("unknown field %q: use %s", name, strings.Join(append(sortedKeys(fields), "scope"), ", "))
		default:
			fields[name] = breakerField(name, value, a)
		}
		seen[name] = true
	}
	return &structpb.Struct{Fields: fields}
}

// breakerScope says whose the breakers are.
func breakerScope(n *yaml.Node, a at) *structpb.Value {
	switch n.Value {
	case "cluster", "endpoint", "both":
	default:
		a.errorf("scope: %q is not one of cluster, endpoint, both", n.Value)
	}
	return structpb.NewStringValue(n.Value)
}

func breakerField(name string, n *yaml.Node, a at) *structpb.Value {
	switch name {
	case "failureRatio":
		var ratio float64
		if err := n.Decode(&ratio); err != nil || !(ratio > 0 && ratio <= 1) {
			a.errorf("%s: %q is not greater than 0 and at most 1", name, n.Value)
		}
		return structpb.NewNumberValue(ratio)
	case "minimumRequests", "halfOpenProbes":
		var count uint32
		if err := n.Decode(&count); err != nil || n.ShortTag() != "!!int" || count == 0 {
			a.errorf("%s: %q is not a whole number in 1..%d", name, n.Value, uint32(math.MaxUint32))
		}
		return structpb.NewNumberValue(float64(count))
	default:
		d, err := time.ParseDuration(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil || d <= 0 {
			a.errorf("%s: %q is not a positive duration like 10s", name, n.Value)
		}
		return structpb.NewStringValue(n.Value)
	}
}
