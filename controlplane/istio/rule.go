package istio

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	networking "istio.io/api/networking/v1alpha3"
)

// rule is one element of spec.http that requests can meet: as it is written, or
// one of a delegate with what it has from the rule that delegates.
type rule struct {
	spec *networking.HTTPRoute
	// at is where the rule is written; for one of a delegate, in the delegate.
	at at
	// inherited are the fields that are written in the rule that delegates.
	inherited map[string]at
	// matches are where the elements of spec.match are written.
	matches []at
	// metadata is that of the routes that lead to a destination, from annotations
	// of the VirtualService; nil without any.
	metadata map[string]*structpb.Struct
}

func newRule(spec *networking.HTTPRoute, a at) *rule {
	r := &rule{spec: spec, at: a, matches: make([]at, len(spec.Match))}
	for i := range spec.Match {
		r.matches[i] = a.field("match").index(i)
	}
	return r
}

// field is where a field of the rule is written.
func (r *rule) field(name string) at {
	if a, ok := r.inherited[name]; ok {
		return a
	}
	return r.at.field(name)
}

// meshGateway is what Istio calls the callers of the mesh where there could be a gateway.
const meshGateway = "mesh"

// isForMesh reports whether a list of gateways has the callers of the mesh: no list
// stands for them.
func isForMesh(gateways []string) bool {
	return len(gateways) == 0 || slices.Contains(gateways, meshGateway)
}

// inMesh is the rule without the matches that are for gateways only; false if those are
// all that it has.
func (r *rule) inMesh() (*rule, bool) {
	forGateway := func(m *networking.HTTPMatchRequest) bool { return !isForMesh(m.GetGateways()) }
	if !slices.ContainsFunc(r.spec.Match, forGateway) {
		return r, true
	}
	own := *r
	own.spec = proto.CloneOf(r.spec)
	own.spec.Match, own.matches = nil, nil
	for i, m := range r.spec.Match {
		if !forGateway(m) {
			own.spec.Match, own.matches = append(own.spec.Match, m), append(own.matches, r.matches[i])
		}
	}
	return &own, len(own.matches) > 0
}

// unnamed is the name of the routes of a rule that has none, so that errors and
// explanations lead to it: "NAMESPACE/NAME/INDEX", as of rules of the Gateway API.
func (r *rule) unnamed() string {
	index := strings.TrimSuffix(r.at.path[strings.LastIndexByte(r.at.path, '[')+1:], "]")
	return r.at.obj.namespace + "/" + r.at.obj.name + "/" + index
}
