package mesh

import (
	"context"
	"net/http"

	"google.golang.org/grpc"

	"github.com/inboardmesh/inboard/internal/explain"
)

// Verdict is what would become of a call.
type Verdict string

// The verdicts.
const (
	// VerdictForward is a call that goes to an endpoint of the chosen cluster, if no
	// filter answers before.
	VerdictForward = Verdict(explain.Forward)
	// VerdictNoEndpoint is a call that would be forwarded, and fails at this moment,
	// because the chosen cluster has no endpoint that can be picked.
	VerdictNoEndpoint = Verdict(explain.NoEndpoint)
	// VerdictOverflow is a call that would be forwarded, and fails at this moment with
	// nothing sent, because the error-rate breaker of the chosen cluster is open, or one
	// of its limits is reached: Reason says which.
	VerdictOverflow = Verdict(explain.Overflow)
	// VerdictNoTime is a call that would be forwarded, and fails with nothing sent,
	// because too little of its time is left, or an injected delay takes all of it: see
	// [CallOptions].
	VerdictNoTime = Verdict(explain.NoTime)
	// VerdictDirectResponse is a call that the configuration answers.
	VerdictDirectResponse = Verdict(explain.DirectResponse)
	// VerdictRedirect is a call that is answered with another location.
	VerdictRedirect = Verdict(explain.Redirect)
	// VerdictFilter is a call that a filter of the route answers, always: an injected
	// fault, CORS a preflight, or a strict session whose endpoint is gone or cannot be used
	// at this moment. Nothing is sent. If it answers a share of the calls
	// only, or those of whom more is not known, Reason says so.
	VerdictFilter = Verdict(explain.FilterAnswer)
	// VerdictNoRoute is a call that fails, because no route is for it.
	VerdictNoRoute = Verdict(explain.NoRoute)
	// VerdictNoCluster is a call that fails, because its route leads to a cluster
	// that is not there or cannot be used.
	VerdictNoCluster = Verdict(explain.NoCluster)
	// VerdictNoConfig is a call that fails, because its target's configuration
	// cannot be had.
	VerdictNoConfig = Verdict(explain.NoConfig)
	// VerdictAroundMesh is a call that passes round the mesh.
	VerdictAroundMesh = Verdict(explain.AroundMesh)
	// VerdictRefused is a call to a host that is unknown, which the outbound policy
	// refuses.
	VerdictRefused = Verdict(explain.Refused)
)

// Explain says what [Mesh.Transport] would do with a request, and why: by the
// matcher that routes, and from the clusters as they are at this moment. Nothing
// is sent to an endpoint, nothing is counted, and the request, whose body is not
// read, is not changed.
//
// What depends on chance is drawn anew each time: of several clusters the
// explanation names the one that it drew, with the weights of all. Filters are
// described and not run, but for sessions, whose endpoint and cluster are followed; where
// another one would change the route, the explanation is of the route before.
//
// The configuration of a host that this process does not call is asked of the
// control plane for as long as the answer takes. The request's context bounds the
// wait; without a deadline it is 15 s. That there is no configuration is an answer
// and no error; the error is for a request that the transport would not take.
func (m *Mesh) Explain(req *http.Request) (*Explanation, error) {
	e, err := m.transport.Explain(req)
	if err != nil {
		return nil, err
	}
	return explanationOf(e), nil
}

// ExplainRPC is [Mesh.Explain] for a gRPC call: what a channel to a target,
// "mesh:///HOST:PORT", with [Mesh.DialOptions] would do with a call of a method,
// "/package.Service/Method". The metadata are the outgoing ones of ctx, which also
// bounds the wait for a configuration. Of the options the authority is looked at.
func (m *Mesh) ExplainRPC(ctx context.Context, target, method string, opts ...grpc.CallOption) (*Explanation, error) {
	e, err := m.grpc.Explain(ctx, target, method, opts...)
	if err != nil {
		return nil, err
	}
	return explanationOf(e), nil
}

// explanationOf is an explanation in the words of this package.
func explanationOf(e *explain.Explanation) *Explanation {
	return &Explanation{
		Protocol: e.Protocol, Method: e.Method, Host: e.Host, Path: e.Path,
		Target: e.Target, Verdict: Verdict(e.Verdict), Reason: e.Reason,
		VirtualHost: pointed(e.VirtualHost, func(h explain.VirtualHost) ExplainedVirtualHost { return ExplainedVirtualHost(h) }),
		Hosts:       each(e.Hosts, func(h explain.VirtualHost) ExplainedVirtualHost { return ExplainedVirtualHost(h) }),
		NotMatched:  each(e.NotMatched, func(m explain.Mismatch) ExplainedMismatch { return ExplainedMismatch(m) }),
		Route:       pointed(e.Route, func(r explain.Route) ExplainedRoute { return ExplainedRoute(r) }),
		Answer:      pointed(e.Answer, func(a explain.Answer) ExplainedAnswer { return ExplainedAnswer(a) }),
		Filters:     each(e.Filters, func(f explain.Filter) ExplainedFilter { return ExplainedFilter(f) }),
		Choices:     each(e.Choices, func(c explain.Choice) ExplainedChoice { return ExplainedChoice(c) }),
		Draw:        pointed(e.Draw, func(d explain.Draw) ExplainedDraw { return ExplainedDraw(d) }),
		Mirrors:     each(e.Mirrors, func(m explain.Mirror) ExplainedMirror { return ExplainedMirror(m) }),
		Cluster:     pointed(e.Cluster, explainedCluster),
		Sent:        pointed(e.Sent, func(s explain.Sent) ExplainedSent { return ExplainedSent(s) }),
		Timeouts: pointed(e.Timeouts, func(t explain.Timeouts) ExplainedTimeouts {
			return ExplainedTimeouts{
				Call: ExplainedDuration(t.Call), Try: ExplainedDuration(t.Try), TryIdle: ExplainedDuration(t.TryIdle),
				Connect: ExplainedDuration(t.Connect), Needed: ExplainedDuration(t.Needed),
			}
		}),
		ResponseHeaders: e.ResponseHeaders, Redirects: e.Redirects,
		Retry: pointed(e.Retry, func(r explain.Retry) ExplainedRetry {
			return ExplainedRetry{
				Max: r.Max, On: r.On, Statuses: r.Statuses, Headers: r.Headers,
				BackoffBase: ExplainedDuration(r.BackoffBase), BackoffMax: ExplainedDuration(r.BackoffMax),
				RateLimited: r.RateLimited, OtherPriorities: r.OtherPriorities, Omitted: r.Omitted,
				OtherEndpoints: r.OtherEndpoints, Hedge: r.Hedge, NotHedged: r.NotHedged,
			}
		}),
	}
}

func explainedCluster(c explain.Cluster) ExplainedCluster {
	return ExplainedCluster{
		Name: c.Name, Error: c.Error, Policy: c.Policy, HashOf: c.HashOf, Hash: c.Hash, Protocol: c.Protocol, ZoneAware: c.ZoneAware,
		MutualTLS: c.MutualTLS, Peers: c.Peers,
		Endpoints: each(c.Endpoints, func(e explain.Endpoint) ExplainedEndpoint { return ExplainedEndpoint(e) }),
		Limits:    pointed(c.Limits, explainedLimits),
		Pool:      c.Pool,
		Breaker:   c.Breaker,
		Drops:     each(c.Drops, func(d explain.Drop) ExplainedDrop { return ExplainedDrop(d) }),
		Outlier:   c.Outlier, Detectors: c.Detectors, SlowStart: c.SlowStart, Checks: c.Checks, Panic: c.Panic,
		PanicThreshold: c.PanicThreshold, Subsetting: c.Subsetting, Shares: c.Shares,
		Leaves: each(c.Leaves, func(l explain.Leaf) ExplainedLeaf {
			return ExplainedLeaf{
				Name: l.Name, Error: l.Error, Policy: l.Policy, Protocol: l.Protocol, ZoneAware: l.ZoneAware,
				Limits:  pointed(l.Limits, explainedLimits),
				Pool:    l.Pool,
				Breaker: l.Breaker,
				Drops:   each(l.Drops, func(d explain.Drop) ExplainedDrop { return ExplainedDrop(d) }),
				Outlier: l.Outlier, Detectors: l.Detectors, SlowStart: l.SlowStart, Checks: l.Checks, Panic: l.Panic,
				PanicThreshold: l.PanicThreshold, Subsetting: l.Subsetting,
				Refuses: l.Refuses,
			}
		}),
	}
}

func explainedLimits(l explain.Limits) ExplainedLimits {
	return ExplainedLimits{
		Priority: l.Priority, Connections: ExplainedLimit(l.Connections), Pending: ExplainedLimit(l.Pending),
		Requests: ExplainedLimit(l.Requests), Retries: ExplainedLimit(l.Retries),
	}
}

// each converts a list; nil stays nil.
func each[A, B any](list []A, convert func(A) B) []B {
	if list == nil {
		return nil
	}
	out := make([]B, len(list))
	for i := range list {
		out[i] = convert(list[i])
	}
	return out
}

// pointed converts what is pointed to; nil stays nil.
func pointed[A, B any](p *A, convert func(A) B) *B {
	if p == nil {
		return nil
	}
	return new(convert(*p))
}
