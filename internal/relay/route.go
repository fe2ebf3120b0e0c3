package relay

import (
	"errors"
	"fmt"
	"net"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

// grpcAttempts is how many attempts a gRPC call has at most (gRFC A6).
const grpcAttempts = 5

// tableEncoder writes one route table.
type tableEncoder struct {
	*encoder

	filters *filters
	// target is the destination, nil for a server; refused are clusters of it.
	target  *discovery.Target
	refused refusedClusters
}

// routeTable writes a route table. It is part of its listener, so that what
// belongs together arrives together.
func (t *tableEncoder) routeTable(table *discovery.RouteTable) (*routev3.RouteConfiguration, error) {
	port := ""
	if t.target != nil {
		_, port, _ = net.SplitHostPort(t.target.Name)
	}
	if changesHeaders(&table.Headers) {
		t.leave("routes", "headers are not changed")
	}
	out := &routev3.RouteConfiguration{Name: table.Name}
	for _, host := range table.VirtualHosts {
		where := fmt.Sprintf("virtual host %q", host.Name)
		if changesHeaders(&host.Headers) {
			t.leave(where, "headers are not changed")
		}
		configs, err := t.filters.routeConfigs(where, host.Filters)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
		vh := &routev3.VirtualHost{
			Name: host.Name, Domains: domains(host.Domains, port, table.IgnorePortInHostMatching), TypedPerFilterConfig: configs,
		}
		for i, r := range host.Routes {
			where := fmt.Sprintf("%s, route %d", where, i)
			if r.Name != "" {
				where = fmt.Sprintf("%s %q", where, r.Name)
			}
			route, err := t.route(where, r)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", where, err)
			}
			if route != nil {
				vh.Routes = append(vh.Routes, route)
			}
		}
		out.VirtualHosts = append(out.VirtualHosts, vh)
	}
	return out, nil
}

func changesHeaders(m *discovery.HeaderMutations) bool {
	return len(m.RequestAdd)+len(m.RequestRemove)+len(m.ResponseAdd)+len(m.ResponseRemove) > 0
}

// route writes one route, nil if no gRPC call takes it. A route that grpc-go
// cannot make as it is configured fails the calls that may be for it: to leave it
// out would send them elsewhere.
func (t *tableEncoder) route(where string, r *discovery.Route) (*routev3.Route, error) {
	authority := ""
	if t.target != nil {
		authority = t.target.Name
	}
	m := routeMatch(&r.Match, authority)
	if m.never {
		return nil, nil
	}
	out := &routev3.Route{Name: r.Name, Match: m.match}
	configs, err := t.filters.routeConfigs(where, r.Filters)
	if err != nil {
		return nil, err
	}
	out.TypedPerFilterConfig = configs
	if changesHeaders(&r.Headers) {
		t.leave(where, "headers are not changed")
	}
	switch {
	case len(m.beyond) > 0:
		err = fmt.Errorf("grpc-go cannot match %s", strings.Join(m.beyond, ", "))
	case r.Forward != nil && t.target != nil:
		action := &routev3.RouteAction{}
		if err = t.forward(where, r.Forward, action); err == nil {
			out.Action = &routev3.Route_Route{Route: action}
		}
	case r.Local && t.target == nil:
		out.Action = &routev3.Route_NonForwardingAction{NonForwardingAction: &routev3.NonForwardingAction{}}
	case r.Redirect != nil:
		err = errors.New("gRPC has no redirects")
	case r.Direct != nil:
		err = errors.New("grpc-go has no direct responses")
	case t.target == nil:
		err = errors.New("a server forwards nothing")
	default:
		err = errors.New("the route is for servers")
	}
	if err != nil {
		t.refuse(where, fmt.Errorf("its calls fail with UNAVAILABLE: %w", err))
		out.Action = failing()
	}
	return out, nil
}

// failing is an action that grpc-go does not have: calls of such a route fail.
func failing() *routev3.Route_DirectResponse {
	return &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 503}}
}

// forward writes a Forward, or says why that cannot be done.
func (t *tableEncoder) forward(where string, f *discovery.Forward, out *routev3.RouteAction) error {
	switch {
	case f.PrefixRewrite != "" || f.PathSubstitution != nil || f.PathFormat != nil:
		return errors.New("grpc-go does not rewrite paths")
	case f.HostRewrite != "" || f.HostFrom != nil:
		return errors.New("grpc-go does not rewrite the authority")
	}
	if err := t.clusters(where, f, out); err != nil {
		return err
	}
	limit := f.Limit(true, t.target.Listener.MaxStreamDuration)
	out.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: durationpb.New(limit)}
	t.retries(where, f, out)
	t.hash(where, f, out)
	idle := t.target.Listener.StreamIdleTimeout > 0
	if f.IdleTimeout != nil {
		idle = *f.IdleTimeout > 0
	}
	for what, is := range map[string]bool{
		"calls that are idle go on":                     idle,
		"grpc_timeout_header_offset is not taken off":   f.GRPCTimeoutHeaderOffset > 0,
		"no copies are sent to other clusters":          len(f.Mirrors) > 0,
		"calls are not hedged":                          f.Hedge != nil,
		"attempts are made however little time is left": f.MinTime > 0,
		"all calls have the same priority":              f.Priority != discovery.PriorityDefault,
		"redirects are not followed":                    f.InternalRedirect != nil,
		"the cluster is drawn at random":                f.WeightHeader != "" || f.WeightHash != nil,
		"attempts are not counted in headers":           f.AttemptCount || f.AttemptCountInResponse || f.TimeoutRetry,
	} {
		if is {
			t.leave(where, "%s", what)
		}
	}
	return nil
}

// clusters writes the choice of a cluster.
func (t *tableEncoder) clusters(where string, f *discovery.Forward, out *routev3.RouteAction) error {
	weighted := &routev3.WeightedCluster{}
	for i := range f.Clusters {
		c := &f.Clusters[i]
		switch {
		case c.Header != "":
			return fmt.Errorf("grpc-go does not take the cluster from header %q", c.Header)
		case c.HostRewrite != "":
			return errors.New("grpc-go does not rewrite the authority")
		case changesHeaders(&c.Headers):
			t.leave(where, "headers are not changed")
		}
		configs, err := t.filters.routeConfigs(where, c.Filters)
		if err != nil {
			return err
		}
		weighted.Clusters = append(weighted.Clusters, &routev3.WeightedCluster_ClusterWeight{
			Name: t.refused.name(c.Name), Weight: wrapperspb.UInt32(c.Weight), TypedPerFilterConfig: configs,
		})
	}
	if one := weighted.GetClusters(); len(one) == 1 && len(one[0].GetTypedPerFilterConfig()) == 0 {
		out.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: one[0].GetName()}
		return nil
	}
	out.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: weighted}
	return nil
}

// grpcConditions are those that grpc-go repeats calls for.
const grpcConditions = retry.OnGRPCCancelled | retry.OnGRPCDeadlineExceeded | retry.OnGRPCInternal |
	retry.OnGRPCResourceExhausted | retry.OnGRPCUnavailable

// retries writes the retry policy. grpc-go repeats what never left it, or was
// never processed, by itself.
func (t *tableEncoder) retries(where string, f *discovery.Forward, out *routev3.RouteAction) {
	p := f.Retry
	if p == nil || p.MaxRetries == 0 {
		return
	}
	if on := p.On & grpcConditions; on != 0 {
		out.RetryPolicy = &routev3.RetryPolicy{
			RetryOn:    on.String(),
			NumRetries: wrapperspb.UInt32(p.MaxRetries),
		}
		if p.Backoff.Base > 0 {
			out.RetryPolicy.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{
				BaseInterval: durationpb.New(p.Backoff.Base), MaxInterval: duration(max(p.Backoff.Max, 0)),
			}
		}
	}
	const covered = retry.OnConnectFailure | retry.OnRefusedStream
	if rest := p.On &^ (grpcConditions | covered); rest != 0 {
		t.leave(where, "calls are not repeated for %s", rest)
	}
	if p.MaxRetries >= grpcAttempts {
		t.leave(where, "a call has %d attempts at most", grpcAttempts)
	}
	if p.PerTryTimeout > 0 || p.PerTryIdleTimeout > 0 {
		t.leave(where, "attempts have no time limit of their own")
	}
	if p.RateLimited != nil || f.RetryHeaders != nil {
		t.leave(where, "headers of the response do not decide about retries")
	}
	if p.OmitCanary || len(p.OmitMetadata) > 0 || p.PriorityUpdates > 0 || p.AvoidPreviousHosts {
		t.leave(where, "a retry may go to any endpoint")
	}
}

// hash writes the hash policies.
func (t *tableEncoder) hash(where string, f *discovery.Forward, out *routev3.RouteAction) {
	policies := f.Hash
	for i := range f.Clusters {
		if c := t.target.Clusters[f.Clusters[i].Name].Cluster; c != nil && c.Hash != nil {
			policies = c.Hash // it stands in for those of routes
		}
	}
	for i := range policies {
		p := &policies[i]
		h := &routev3.RouteAction_HashPolicy{Terminal: p.Terminal}
		switch {
		case p.Header != "":
			header := &routev3.RouteAction_HashPolicy_Header{HeaderName: p.Header}
			if r := p.HeaderRewrite; r != nil {
				// What grpc-go replaces by is in Go's form, not in Envoy's.
				header.RegexRewrite = &matcherv3.RegexMatchAndSubstitute{Pattern: regex(r.Source), Substitution: r.Replacement}
			}
			h.PolicySpecifier = &routev3.RouteAction_HashPolicy_Header_{Header: header}
		case p.Channel:
			h.PolicySpecifier = &routev3.RouteAction_HashPolicy_FilterState_{
				FilterState: &routev3.RouteAction_HashPolicy_FilterState{Key: "io.grpc.channel_id"},
			}
		case p.Query != "":
			continue // a gRPC call has none
		default:
			t.leave(where, "only headers and the channel are hashed")
			continue
		}
		out.HashPolicy = append(out.HashPolicy, h)
	}
}
