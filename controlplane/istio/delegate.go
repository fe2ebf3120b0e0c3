package istio

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	networking "istio.io/api/networking/v1alpha3"
)

// resolve makes the rules of a VirtualService, with those of its delegates in
// the place of the rule that delegates.
func (r *registry) resolve(vs *virtualService) {
	for i, http := range vs.spec.Http {
		own, ok := newRule(http, vs.at.field("http").index(i)).inMesh()
		if !ok {
			r.noteDelegate(vs, http.Delegate)
			continue
		}
		own.metadata = vs.metadata
		if http.Delegate == nil {
			vs.rules = append(vs.rules, own)
			continue
		}
		if to := r.delegate(vs, own); to != nil {
			to.used = true
			vs.rules = append(vs.rules, own.delegated(to)...)
		}
	}
}

// noteDelegate notes that a rule for gateways delegates to a VirtualService.
func (r *registry) noteDelegate(vs *virtualService, ref *networking.Delegate) {
	if to := r.delegates[cmp.Or(ref.GetNamespace(), vs.at.obj.namespace)+"/"+ref.GetName()]; to != nil {
		to.used = true
	}
}

// delegate finds the VirtualService that a rule delegates to, nil if it cannot.
func (r *registry) delegate(vs *virtualService, from *rule) *virtualService {
	ref, a := from.spec.Delegate, from.field("delegate")
	for _, name := range []string{"route", "redirect"} {
		if from.field(name).written() {
			from.field(name).refuse("cannot be set together with %q", "delegate")
		}
	}
	if len(vs.spec.Hosts) == 0 {
		a.refuse("a delegate cannot delegate: only a VirtualService with hosts can")
		return nil
	}
	if ref.Name == "" {
		a.field("name").errorf("is required")
		return nil
	}
	namespace := cmp.Or(ref.Namespace, vs.at.obj.namespace)
	to, ok := r.delegates[namespace+"/"+ref.Name]
	switch {
	case !ok:
		a.errorf("there is no VirtualService %s/%s without hosts", namespace, ref.Name)
		return nil
	case !to.exports.visibleIn(vs.at.obj.namespace):
		a.errorf("%s is not exported to %q: add it to exportTo", to.at.obj.source(), vs.at.obj.namespace)
		return nil
	}
	return to
}

// inheritable are the fields that a rule of a delegate has from the rule that
// delegates, if it does not set them itself.
var inheritable = []protoreflect.Name{
	"rewrite", "direct_response", "timeout", "retries", "fault", "mirror", "mirror_percent",
	"mirror_percentage", "mirrors", "cors_policy", "headers",
}

// delegated are the rules of a delegate, each within the matches of the rule
// that delegates. One that is outside of them has no effect, as in Istio, and
// is reported.
func (r *rule) delegated(to *virtualService) []*rule {
	var rules []*rule
	for i, spec := range to.spec.Http {
		leaf, ok := newRule(spec, to.at.field("http").index(i)).inMesh()
		if !ok || spec.Delegate != nil {
			continue // for gateways, or reported with the delegate itself
		}
		merged := &rule{spec: proto.CloneOf(spec), at: leaf.at, inherited: make(map[string]at)}
		outside, ok := r.intersect(leaf, merged)
		if !ok {
			outside.warnf(lintIneffectiveMatch, "has no effect: it is not within the match of %s, which delegates to it", r.at.source())
			continue
		}
		merged.spec.Name = joined(r.spec.Name, spec.Name)
		merged.metadata = over(r.metadata, to.metadata)
		from, into := r.spec.ProtoReflect(), merged.spec.ProtoReflect()
		for _, name := range inheritable {
			field := from.Descriptor().Fields().ByName(name)
			if !into.Has(field) && from.Has(field) {
				into.Set(field, from.Get(field))
				merged.inherited[field.JSONName()] = r.field(field.JSONName())
			}
		}
		rules = append(rules, merged)
	}
	return rules
}

// fromBoth reports whether one of two fields is the delegate's own and the other that
// of the rule that delegates: then nobody has written both.
func (r *rule) fromBoth(a, b string) bool {
	_, first := r.inherited[a]
	_, second := r.inherited[b]
	return first != second
}

// intersect sets the matches of a merged rule: each of the leaf's within each of
// the root's that it is compatible with. If one of the leaf's is compatible with
// none, the whole rule has no effect; it is returned.
func (r *rule) intersect(leaf, merged *rule) (outside at, ok bool) {
	root := r.spec.Match
	switch {
	case len(root) == 0:
		merged.matches = leaf.matches
		return at{}, true
	case len(leaf.spec.Match) == 0:
		merged.spec.Match, merged.matches = root, r.matches
		return at{}, true
	}
	merged.spec.Match = nil
	for i, sub := range leaf.spec.Match {
		found := false
		for _, within := range root {
			if !isWithin(within, sub) {
				continue
			}
			found = true
			if len(within.Gateways) > 0 && len(sub.Gateways) == 0 {
				refuseSource(leaf.matches[i], "gateways of the rule which delegates")
			}
			merged.spec.Match = append(merged.spec.Match, mergeMatch(within, sub))
			merged.matches = append(merged.matches, leaf.matches[i])
		}
		if !found {
			return leaf.matches[i], false
		}
	}
	return at{}, true
}

// joined is the name of what has a part from a root and a part from a delegate.
func joined(root, leaf string) string {
	if root == "" || leaf == "" {
		return root + leaf
	}
	return root + "-" + leaf
}

// mergeMatch is the match that has both conditions; where both say something of
// the same, the leaf's is the narrower one.
func mergeMatch(root, leaf *networking.HTTPMatchRequest) *networking.HTTPMatchRequest {
	out := proto.Clone(leaf).(*networking.HTTPMatchRequest)
	out.Name = joined(root.Name, leaf.Name)
	for _, f := range []struct {
		to   **networking.StringMatch
		from *networking.StringMatch
	}{{&out.Uri, root.Uri}, {&out.Scheme, root.Scheme}, {&out.Method, root.Method}, {&out.Authority, root.Authority}} {
		if *f.to == nil {
			*f.to = f.from
		}
	}
	out.Headers = over(root.Headers, leaf.Headers)
	out.WithoutHeaders = over(root.WithoutHeaders, leaf.WithoutHeaders)
	out.QueryParams = over(root.QueryParams, leaf.QueryParams)
	out.SourceLabels = over(root.SourceLabels, leaf.SourceLabels)
	if out.Port == 0 {
		out.Port = root.Port
	}
	if out.StatPrefix == "" {
		out.StatPrefix = root.StatPrefix
	}
	return out
}

// over is a map with the entries of both, those of leaf before those of root.
func over[V any](root, leaf map[string]V) map[string]V {
	out := maps.Clone(root)
	if out == nil {
		return maps.Clone(leaf)
	}
	maps.Copy(out, leaf)
	return out
}

// isWithin reports whether two matches can be merged: whatever both say something of, leaf says it for a part of
// what root says it for.
func isWithin(root, leaf *networking.HTTPMatchRequest) bool {
	return stringWithin(root.Uri, leaf.Uri) && stringWithin(root.Scheme, leaf.Scheme) &&
		stringWithin(root.Method, leaf.Method) && stringWithin(root.Authority, leaf.Authority) &&
		eachWithin(root.Headers, leaf.Headers) && eachWithin(root.WithoutHeaders, leaf.WithoutHeaders) &&
		eachWithin(root.QueryParams, leaf.QueryParams) &&
		root.IgnoreUriCase == leaf.IgnoreUriCase &&
		(root.Port == 0 || leaf.Port == 0 || root.Port == leaf.Port) &&
		(root.SourceNamespace == "" || root.SourceNamespace == leaf.SourceNamespace) &&
		gatewaysWithin(root.Gateways, leaf.Gateways) &&
		labelsWithin(root.SourceLabels, leaf.SourceLabels)
}

func eachWithin(root, leaf map[string]*networking.StringMatch) bool {
	for name, match := range leaf {
		if other, ok := root[name]; ok && !stringWithin(other, match) {
			return false
		}
	}
	return true
}

func gatewaysWithin(root, leaf []string) bool {
	return len(root) == 0 || !slices.ContainsFunc(leaf, func(g string) bool { return !slices.Contains(root, g) })
}

func labelsWithin(root, leaf map[string]string) bool {
	for name, value := range leaf {
		if other, ok := root[name]; ok && other != value {
			return false
		}
	}
	return true
}

// stringWithin compares two matches as Istio does: what a regular expression
// matches is not compared, so that it stands only alone.
func stringWithin(root, leaf *networking.StringMatch) bool {
	if root == nil || leaf == nil {
		return true
	}
	switch r := root.MatchType.(type) {
	case *networking.StringMatch_Exact:
		l, ok := leaf.MatchType.(*networking.StringMatch_Exact)
		return ok && l.Exact == r.Exact
	case *networking.StringMatch_Prefix:
		switch l := leaf.MatchType.(type) {
		case *networking.StringMatch_Exact:
			return strings.HasPrefix(l.Exact, r.Prefix)
		case *networking.StringMatch_Prefix:
			return strings.HasPrefix(l.Prefix, r.Prefix)
		}
	}
	return false
}
