package istio

import (
	"errors"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// Annotations on a DestinationRule that say more of load balancing than its fields
// can. Each value is an object in JSON or YAML, and becomes the filter metadata of
// the same name of every cluster of the host.
const (
	// balancerAnnotation names a policy of the clients, and says what it is
	// configured by:
	//
	//	policy: inboard.peak_ewma  # or one that the application brings
	//	config: {decayTime: 10s}   # optional
	balancerAnnotation = "inboard.balancer"
	// subsettingAnnotation gives each client some of the endpoints only:
	//
	//	size: 20
	subsettingAnnotation = "inboard.subsetting"
	// prioritiesAnnotation says how priorities are chosen, which localityLbSetting
	// makes: as Envoy does without it, or as gRPC does:
	//
	//	policy: grpc
	//	connectWithin: 10s  # optional
	prioritiesAnnotation = "inboard.priorities"
)

// peakEWMA is the policy of ours that the annotation can name.
const peakEWMA = "inboard.peak_ewma"

// prioritiesSetting reads who is followed.
func prioritiesSetting(n *yaml.Node) (*structpb.Value, error) {
	if n.Kind != yaml.ScalarNode || n.Value != "grpc" && n.Value != "envoy" {
		return nil, errors.New("must be grpc or envoy")
	}
	return structpb.NewStringValue(n.Value), nil
}

// annotationObject reads an object whose fields are like the example's.
func annotationObject(text, example string, a at) *structpb.Struct {
	var document any
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		a.errorf("not valid YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		return nil
	}
	object, ok := document.(map[string]any)
	if !ok {
		a.errorf("expected an object like %s", example)
		return nil
	}
	s, err := structpb.NewStruct(object)
	if err != nil {
		a.errorf("expected an object like %s: %v", example, err)
		return nil
	}
	return s
}

// balancerSettings reads the annotation. Whether a client has the policy, only the
// client knows, if its name is not one of ours: one that does not have it rejects the
// cluster.
func balancerSettings(text string, a at) *structpb.Struct {
	s := annotationObject(text, "{policy: inboard.peak_ewma}", a)
	for _, name := range sortedKeys(s.GetFields()) {
		switch value := s.GetFields()[name]; name {
		case "policy":
		case "config":
			if value.GetStructValue() == nil {
				a.errorf("config: must be an object")
			}
		default:
			a.errorf("unknown field %q: use policy, config", name)
		}
	}
	switch policy := s.GetFields()["policy"].GetStringValue(); {
	case s != nil && policy == "":
		a.errorf("policy: must be the name of a policy")
	case strings.HasPrefix(policy, "inboard.") && policy != peakEWMA:
		a.errorf("policy: %q: of the names that begin with \"inboard.\" there is %s only", policy, peakEWMA)
	}
	return s
}

// subsettingSettings reads the annotation.
func subsettingSettings(text string, a at) *structpb.Struct {
	s := annotationObject(text, "{size: 20}", a)
	for _, name := range sortedKeys(s.GetFields()) {
		if name != "size" {
			a.errorf("unknown field %q: use size", name)
		}
	}
	if n := s.GetFields()["size"].GetNumberValue(); s != nil && (n < 1 || n > 1<<20 || n != float64(int(n))) {
		a.errorf("size: must be a whole number in 1..%d", 1<<20)
	}
	return s
}
