package istio

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/controlplane/istio/internal/gatewayapi"
)

// mirrorPolicy is a policy of Envoy for a cluster. A copy is never traced, and a
// share of nil is all.
func mirrorPolicy(cluster string, share *typev3.FractionalPercent) *routev3.RouteAction_RequestMirrorPolicy {
	policy := &routev3.RouteAction_RequestMirrorPolicy{Cluster: cluster, TraceSampled: wrapperspb.Bool(false)}
	if share != nil {
		policy.RuntimeFraction = &corev3.RuntimeFractionalPercent{DefaultValue: share}
	}
	return policy
}

// mirrors translates the mirrors of a rule: the older field, with a share beside
// it, or the newer ones, each with its own.
func (r *registry) mirrors(from *rule, port uint32) []*routev3.RouteAction_RequestMirrorPolicy {
	http := from.spec
	share := mirrorShare(from)
	if http.Mirror == nil {
		for _, name := range []string{"mirrorPercent", "mirrorPercentage"} {
			if from.field(name).written() {
				from.field(name).refuse("has no effect without a mirror: set mirror, or percentage in mirrors")
			}
		}
	} else if from.field("mirrors").written() && !from.fromBoth("mirror", "mirrors") {
		from.field("mirrors").refuse("cannot be set together with %q", "mirror")
	}
	var policies []*routev3.RouteAction_RequestMirrorPolicy
	if http.Mirror != nil {
		policies = append(policies, mirrorPolicy(r.destination(http.Mirror, port, from.field("mirror")), share))
	}
	for i, m := range http.Mirrors {
		a := from.field("mirrors").index(i)
		cluster := r.destination(m.Destination, port, a.field("destination"))
		policies = append(policies, mirrorPolicy(cluster, percentage(m.Percentage, a.field("percentage"))))
	}
	return policies
}

// mirrorShare is the share beside the older field, in its two spellings.
func mirrorShare(from *rule) *typev3.FractionalPercent {
	share := percentage(from.spec.MirrorPercentage, from.field("mirrorPercentage"))
	old := from.spec.MirrorPercent //nolint:staticcheck // the deprecated field is still in use
	a := from.field("mirrorPercent")
	switch {
	case old == nil:
	case share != nil:
		a.refuse("cannot be set together with %q", "mirrorPercentage")
	case old.Value > 100:
		a.errorf("%d is not in 0..100", old.Value)
	default:
		return &typev3.FractionalPercent{Numerator: old.Value}
	}
	return share
}

// gatewayMirror is one RequestMirror filter.
type gatewayMirror struct {
	filter *gatewayapi.HTTPRequestMirrorFilter
	at     at
}

// gatewayMirrors translates the RequestMirror filters of a rule.
// One to what is not there copies nothing.
func (r *registry) gatewayMirrors(g *gatewayRoute, mirrors []gatewayMirror) []*routev3.RouteAction_RequestMirrorPolicy {
	var policies []*routev3.RouteAction_RequestMirrorPolicy
	for _, m := range mirrors {
		ref := m.filter.BackendRef
		cluster, lost := r.backend(g, &gatewayapi.HTTPBackendRef{
			Group: ref.Group, Kind: ref.Kind, Name: ref.Name, Namespace: ref.Namespace, Port: ref.Port,
		}, "nothing is copied", m.at.field("backendRef"))
		if share := m.share(); !lost {
			policies = append(policies, mirrorPolicy(cluster, share))
		}
	}
	return policies
}

func (m *gatewayMirror) share() *typev3.FractionalPercent {
	const million = 1_000_000
	percent, fraction := m.filter.Percent, m.filter.Fraction
	switch {
	case percent != nil && fraction != nil:
		m.at.field("fraction").refuse("cannot be set together with %q", "percent")
	case percent != nil && (*percent < 0 || *percent > 100):
		m.at.field("percent").errorf("%d is not in 0..100", *percent)
	case percent != nil:
		return &typev3.FractionalPercent{Numerator: uint32(*percent)}
	case fraction != nil:
		of := or(fraction.Denominator, 100)
		if fraction.Numerator < 0 || of <= 0 || fraction.Numerator > of {
			m.at.field("fraction").errorf("%d of %d is not in 0..1", fraction.Numerator, of)
			return nil
		}
		return &typev3.FractionalPercent{
			Numerator:   uint32(int64(fraction.Numerator) * million / int64(of)),
			Denominator: typev3.FractionalPercent_MILLION,
		}
	}
	return nil
}
