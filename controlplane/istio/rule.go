package istio

import (
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
