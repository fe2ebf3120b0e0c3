package istio

import (
	"fmt"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/controlplane/istio/internal/gatewayapi"
)

// gatewayRule translates a rule for a port: one route for each match, or two
// where a match stands for two in Envoy.
func (r *registry) gatewayRule(g *gatewayRoute, rule *gatewayRule, index int, port uint32) []rankedRoute {
	name := rule.name
	if name == "" {
		name = strconv.Itoa(index)
	}
	name = g.at.obj.namespace + "/" + g.at.obj.name + "/" + name
	filters := gatewayFilters(rule.filters, rule.at.field("filters"))
	checkReplacement(rule, filters)
	var routes []rankedRoute
	for _, m := range rule.matches {
		for _, match := range splitPrefix(m.match, filters) {
			add := func(route *routev3.Route) {
				routes = append(routes, rankedRoute{
					sourcedRoute: sourcedRoute{route: route, at: m.at, target: rule.at.field("backendRefs")},
					rank:         m.rank, obj: g.at.obj,
				})
			}
			route := &routev3.Route{Name: name, Match: match}
			// Before the route, so that it takes its share of the requests.
			if share := r.gatewayAction(g, rule, filters, port, route); share != nil {
				failing := proto.CloneOf(match)
				failing.RuntimeFraction = &corev3.RuntimeFractionalPercent{DefaultValue: share}
				add(&routev3.Route{Name: name, Match: failing, Action: g.noBackend()})
			}
			add(route)
		}
	}
	return routes
}

// gatewayAction sets what a route does. It returns the share of the requests that
// have no backend, nil for none of those that the route is for.
func (r *registry) gatewayAction(g *gatewayRoute, rule *gatewayRule, filters *filterSet, port uint32, route *routev3.Route) *typev3.FractionalPercent {
	ops := filters.ops
	action := &routev3.RouteAction{}
	found := r.backends(g, rule, action, &ops)
	gatewayTimeouts(rule, action)
	var share *typev3.FractionalPercent
	switch {
	case filters.redirect != nil:
		if len(rule.backends) > 0 {
			filters.redirectAt.refuse("cannot be set together with %q", "backendRefs")
		}
		route.Action = &routev3.Route_Redirect{Redirect: gatewayRedirect(filters, route.Match, port)}
	case found.weight > 0:
		filters.rewrite(route.Match, action)
		action.RequestMirrorPolicies = r.gatewayMirrors(g, filters.mirrors)
		route.Action = &routev3.Route_Route{Route: action}
		share = found.lostShare()
	default:
		if found.lost == 0 {
			rule.at.field("backendRefs").warnf(lintNoBackend, "there is no backend with a weight: every request is answered with %d", g.noBackend().DirectResponse.Status)
		}
		route.Action = g.noBackend()
	}
	route.RequestHeadersToAdd, route.RequestHeadersToRemove = ops.requestAdd, ops.requestRemove
	route.ResponseHeadersToAdd, route.ResponseHeadersToRemove = ops.responseAdd, ops.responseRemove
	if filters.cors != nil {
		route.TypedPerFilterConfig = map[string]*anypb.Any{corsFilter: filters.cors}
	}
	return share
}

// noBackend answers requests that have nowhere to go: with 500, and for gRPC with
// what becomes UNAVAILABLE.
func (g *gatewayRoute) noBackend() *routev3.Route_DirectResponse {
	status := uint32(500)
	if g.grpc {
		status = 503
	}
	return &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: status}}
}

// backendWeights are the sums of the weights of backends: of those that there are,
// and of those that there are not.
type backendWeights struct{ weight, lost uint64 }

// lostShare is the share of the requests that is for backends which there are not,
// nil for none.
func (w backendWeights) lostShare() *typev3.FractionalPercent {
	if w.lost == 0 {
		return nil
	}
	const million = 1_000_000
	sum := w.weight + w.lost
	return &typev3.FractionalPercent{
		Numerator: uint32(max(1, (w.lost*million+sum/2)/sum)), Denominator: typev3.FractionalPercent_MILLION,
	}
}

// backends sets the clusters of a rule.
func (r *registry) backends(g *gatewayRoute, rule *gatewayRule, action *routev3.RouteAction, ops *headerOps) backendWeights {
	var sums backendWeights
	weighted := new(routev3.WeightedCluster)
	for i := range rule.backends {
		b, ba := &rule.backends[i], rule.at.field("backendRefs").index(i)
		name, lost := r.backend(g, b, fmt.Sprintf("its share of the requests is answered with %d", g.noBackend().DirectResponse.Status), ba)
		own := gatewayFilters(b.Filters, ba.field("filters"))
		for _, f := range []struct {
			set  bool
			name string
		}{{own.redirect != nil, "RequestRedirect"}, {own.url != nil, "URLRewrite"}, {own.mirrors != nil, "RequestMirror"}, {own.cors != nil, "CORS"}} {
			if f.set {
				ba.field("filters").errorf("%s is not supported for a backend: set it in the filters of the rule", f.name)
			}
		}
		weight := or(b.Weight, 1)
		if weight < 0 || weight > 1_000_000 {
			ba.field("weight").errorf("%d is not in 0..1000000", weight)
		}
		if weight <= 0 {
			continue
		}
		if lost {
			sums.lost += uint64(weight)
			continue
		}
		sums.weight += uint64(weight)
		weighted.Clusters = append(weighted.Clusters, &routev3.WeightedCluster_ClusterWeight{
			Name:                    name,
			Weight:                  wrapperspb.UInt32(uint32(weight)),
			RequestHeadersToAdd:     own.ops.requestAdd,
			RequestHeadersToRemove:  own.ops.requestRemove,
			ResponseHeadersToAdd:    own.ops.responseAdd,
			ResponseHeadersToRemove: own.ops.responseRemove,
		})
	}
	switch len(weighted.Clusters) {
	case 0:
	case 1:
		only := weighted.Clusters[0]
		action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: only.Name}
		ops.append(headerOps{
			requestAdd: only.RequestHeadersToAdd, requestRemove: only.RequestHeadersToRemove,
			responseAdd: only.ResponseHeadersToAdd, responseRemove: only.ResponseHeadersToRemove,
		})
	default:
		action.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: weighted}
	}
	return sums
}

// backend is the cluster of a reference, "" for one with a problem. lost tells that
// what it names is not there: the Gateway API lets the requests for it fail, and
// those for others pass. consequence is what becomes of it.
func (r *registry) backend(g *gatewayRoute, b *gatewayapi.HTTPBackendRef, consequence string, a at) (cluster string, lost bool) {
	var host string
	group, kind := or(b.Group, coreGroup), or(b.Kind, "Service")
	switch {
	case b.Name == "":
		a.field("name").errorf("is required")
		return "", false
	case group == coreGroup && kind == "Service":
		host = fullHost(b.Name, or(b.Namespace, a.obj.namespace))
		if !isDNSLabel(b.Name) {
			a.field("name").errorf("%q is not the name of a Service", b.Name)
			return "", false
		}
	case group == istioGroup && kind == "Hostname":
		host = b.Name
		if !checkHost(host, a.field("name")) {
			return "", false
		}
	default:
		g.unresolve("InvalidKind", consequence, a.field("kind"), fmt.Sprintf("%q of group %q is not supported: use a Service, or a Hostname of group %q", kind, group, istioGroup))
		return "", true
	}
	if b.Port == nil {
		a.field("port").errorf("is required")
		return "", false
	}
	if len(r.services[host]) == 0 {
		g.unresolve("BackendNotFound", consequence, a.field("name"), fmt.Sprintf("no Service or ServiceEntry has the host %q%s", host, r.nearHosts(host)))
		return "", true
	}
	if s := r.seenFrom(host, a.obj.namespace); !r.takesCalls(s, uint32(*b.Port)) {
		g.unresolve("BackendNotFound", consequence, a.field("port"), s.lacksPort(uint32(*b.Port)))
		return "", true
	}
	return clusterName(uint32(*b.Port), "", host), false
}

// unresolve notes and reports a reference to a backend that is not there.
func (g *gatewayRoute) unresolve(reason, consequence string, a at, message string) {
	if g.unresolved.Reason == "" {
		g.unresolved = RouteCondition{Type: "ResolvedRefs", Reason: reason, Message: message}
	}
	a.warnf(lintUnknownBackend, "%s (%s): %s", message, reason, consequence)
}

// gatewayTimeouts sets the timeouts and retries of a rule. What it does not say
// is as in a VirtualService: no timeout, and Istio's retries.
func gatewayTimeouts(rule *gatewayRule, action *routev3.RouteAction) {
	retry := gatewayRetry(rule.retry, rule.at.field("retry"))
	timeout := durationpb.New(0)
	if t, a := rule.timeouts, rule.at.field("timeouts"); t != nil {
		request := gatewayDuration(t.Request, a.field("request"))
		each := gatewayDuration(t.BackendRequest, a.field("backendRequest"))
		if request > 0 && each > request {
			a.field("backendRequest").errorf("%v is longer than the whole request, %v", each, request)
		}
		timeout = durationpb.New(request)
		if each > 0 {
			retry.PerTryTimeout = durationpb.New(each)
		}
	}
	action.Timeout = timeout
	action.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: timeout}
	action.RetryPolicy = retry
}

// gatewayRetry translates a retry policy. What is not answered at all is
// repeated as by Istio's default, the answers with the given codes are as well.
func gatewayRetry(in *gatewayapi.HTTPRouteRetry, a at) *routev3.RetryPolicy {
	out := retryPolicy(nil, a)
	if in == nil {
		return out
	}
	if in.Attempts != nil {
		if *in.Attempts < 1 {
			a.field("attempts").errorf("%d: use at least 1, or leave retry out", *in.Attempts)
		}
		out.NumRetries = wrapperspb.UInt32(uint32(*in.Attempts))
	}
	for i, code := range in.Codes {
		if code < 400 || code > 599 {
			a.field("codes").index(i).errorf("%d is not in 400..599", code)
		}
		out.RetriableStatusCodes = append(out.RetriableStatusCodes, uint32(code))
	}
	if in.Backoff != nil {
		if backoff := gatewayDuration(in.Backoff, a.field("backoff")); backoff > 0 {
			out.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: durationpb.New(backoff)}
		} else {
			a.field("backoff").errorf("must be at least 1ms")
		}
	}
	return out
}

// filterSet is the filters of a rule or of a backend.
type filterSet struct {
	ops        headerOps
	redirect   *gatewayapi.HTTPRequestRedirectFilter
	redirectAt at
	url        *gatewayapi.HTTPURLRewriteFilter
	urlAt      at
	mirrors    []gatewayMirror
	cors       *anypb.Any
}

// gatewayFilters reads filters: each kind at most once, but for mirrors, and of its
// kind only.
func gatewayFilters(filters []gatewayapi.HTTPRouteFilter, a at) *filterSet {
	set := new(filterSet)
	seen := make(map[string]bool)
	for i := range filters {
		f, fa := &filters[i], a.index(i)
		if seen[f.Type] && f.Type != "RequestMirror" {
			fa.field("type").errorf("%q is there twice", f.Type)
			continue
		}
		seen[f.Type] = true
		fields := map[string]bool{
			"requestHeaderModifier": f.RequestHeaderModifier != nil, "responseHeaderModifier": f.ResponseHeaderModifier != nil,
			"requestRedirect": f.RequestRedirect != nil, "urlRewrite": f.URLRewrite != nil,
			"requestMirror": f.RequestMirror != nil, "cors": f.CORS != nil,
		}
		name := filterFields[f.Type]
		for _, other := range sortedKeys(fields) {
			switch {
			case other == name && !fields[other]:
				fa.field(name).errorf("is required by type %s", f.Type)
			case other != name && fields[other] && name != "":
				fa.field(other).refuse("has no effect with type %s: remove it", f.Type)
			}
		}
		switch f.Type {
		case "RequestHeaderModifier":
			set.ops.requestAdd, set.ops.requestRemove = gatewayHeaderOps(f.RequestHeaderModifier, true, fa.field(name))
		case "ResponseHeaderModifier":
			set.ops.responseAdd, set.ops.responseRemove = gatewayHeaderOps(f.ResponseHeaderModifier, false, fa.field(name))
		case "RequestRedirect":
			set.redirect, set.redirectAt = f.RequestRedirect, fa.field(name)
		case "RequestMirror":
			if f.RequestMirror != nil {
				set.mirrors = append(set.mirrors, gatewayMirror{f.RequestMirror, fa.field(name)})
			}
		case "URLRewrite":
			set.url, set.urlAt = f.URLRewrite, fa.field(name)
		case "CORS":
			set.cors = gatewayCORS(f.CORS, fa.field(name))
		default:
			fa.field("type").errorf("%q is not supported: use one of %s", f.Type, strings.Join(sortedKeys(filterFields), ", "))
		}
	}
	if set.redirect != nil && set.url != nil {
		set.redirectAt.refuse("cannot be set together with %q", "urlRewrite")
	}
	return set
}

// filterFields are the fields of the supported types of filters.
var filterFields = map[string]string{
	"RequestHeaderModifier": "requestHeaderModifier", "ResponseHeaderModifier": "responseHeaderModifier",
	"RequestRedirect": "requestRedirect", "URLRewrite": "urlRewrite", "RequestMirror": "requestMirror", "CORS": "cors",
}

func gatewayHeaderOps(in *gatewayapi.HTTPHeaderFilter, request bool, a at) ([]*corev3.HeaderValueOption, []string) {
	if in == nil {
		return nil, nil
	}
	var out []*corev3.HeaderValueOption
	add := func(list []gatewayapi.HTTPHeader, action corev3.HeaderValueOption_HeaderAppendAction, a at) {
		for i, h := range list {
			if !isHeaderName(h.Name) || isAuthority(h.Name) {
				remedy := ""
				if request && isAuthority(h.Name) {
					remedy = ": use a URLRewrite filter with a hostname"
				}
				a.index(i).field("name").errorf("%q is not a header that can be changed%s", h.Name, remedy)
				continue
			}
			// A percent sign would begin one of Envoy's commands.
			value := strings.ReplaceAll(h.Value, "%", "%%")
			checkHeaderText(h.Value, a.index(i).field("value"))
			out = append(out, &corev3.HeaderValueOption{
				Header: &corev3.HeaderValue{Key: h.Name, Value: value}, AppendAction: action,
			})
		}
	}
	add(in.Set, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD, a.field("set"))
	add(in.Add, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD, a.field("add"))
	return out, headerNames(in.Remove, a.field("remove"))
}

// gatewayHost is a host name for the authority.
func gatewayHost(host *string, a at) string {
	if host == nil {
		return ""
	}
	if !isDNSSubdomain(*host) {
		a.errorf("%q is not a host name", *host)
	}
	return *host
}
