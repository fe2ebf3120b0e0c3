package explain

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/retry"
)

// Headers are the headers of a request. Explaining changes them as a call would:
// they are a copy.
type Headers interface {
	route.HeaderMap
	Keys() []string
}

// Question is a call that is not made.
type Question struct {
	Protocol observe.Protocol
	// Target is the destination's name.
	Target  string
	Request route.Request
	Headers Headers
	// Facts are what header values can be computed from.
	Facts route.Facts
	// Unhedged says why attempts of the call are not made side by side, "" if they may
	// be. It is asked when the headers are as they are sent.
	Unhedged func() string

	exact bool
	// ends is when the time is over that the application gives, zero for none.
	ends time.Time
}

// New returns an explanation that says what is asked about, and the verdict.
func (q *Question) New(verdict Verdict, reason string) *Explanation {
	return &Explanation{
		Protocol: q.Protocol.String(), Method: q.Request.Method, Host: q.Request.Host, Path: q.Request.Path,
		Target: q.Target, Verdict: verdict, Reason: reason,
	}
}

// choiceKey is where a context has the choice to assume.
type choiceKey struct{}

// WithChoice returns a context for explanations that assume that this one of a
// route's [Explanation.Choices] was drawn, where one is drawn at random. The same cluster can
// be several of them, with headers of their own.
func WithChoice(ctx context.Context, choice int) context.Context {
	return context.WithValue(ctx, choiceKey{}, choice)
}

// exactKey is where a context has whether explanations are compared.
type exactKey struct{}

// Exactly returns a context for explanations that are equal only if nothing is
// different: bodies are whole, and a value that is hidden has a digest.
func Exactly(ctx context.Context) context.Context { return context.WithValue(ctx, exactKey{}, true) }

// chanceKey is where a context has what chance is to do.
type chanceKey struct{}

// WithoutChance returns a context for explanations in which the route with the number
// hit matches, of those that match a share of such requests; -1 lets none of them
// match. See [route.Table.TraceWithout].
func WithoutChance(ctx context.Context, hit int) context.Context {
	return context.WithValue(ctx, chanceKey{}, hit)
}

func traceOf(ctx context.Context, routes *route.Table, req *route.Request) route.Trace {
	if hit, ok := ctx.Value(chanceKey{}).(int); ok {
		return routes.TraceWithout(req, hit)
	}
	return routes.Trace(req)
}

// assume replaces the cluster that was drawn by the one that ctx asks for.
func assume(ctx context.Context, trace *route.Trace) {
	choice, ok := ctx.Value(choiceKey{}).(int)
	if ok && trace.Draws == route.AtRandom {
		trace.Decision.Cluster = &trace.Decision.Route.Forward.Clusters[choice]
	}
}

// By explains what a configuration makes of the call. ctx has the options that the
// application gives to its call.
func (q *Question) By(ctx context.Context, config *pipeline.Config) *Explanation {
	req := &q.Request
	q.exact, _ = ctx.Value(exactKey{}).(bool)
	trace := traceOf(ctx, config.Routes, req)
	assume(ctx, &trace)
	e := q.New(Forward, "")
	if trace.Host == nil {
		e.Verdict, e.Reason = NoRoute, fmt.Sprintf("no virtual host is for %q", req.Host)
		for _, vh := range config.Target.Routes.VirtualHosts {
			e.Hosts = append(e.Hosts, VirtualHost{Name: vh.Name, Domains: vh.Domains})
		}
		return e
	}
	e.VirtualHost = &VirtualHost{Name: trace.Host.Name, Domain: trace.Domain, Domains: trace.Host.Domains}
	for i := range trace.Misses {
		e.NotMatched = append(e.NotMatched, mismatch(i, trace.Host.Routes[i], &trace.Misses[i]))
	}
	if !trace.OK {
		e.Verdict, e.Reason = NoRoute, "no route of the virtual host matches"
		return e
	}
	d := &trace.Decision
	e.Route = &Route{Index: trace.Index, Name: d.Route.Name, Match: describe(&d.Route.Match)}
	session := q.follow(ctx, config.Target.Listener.Filters, d)
	e.Filters = filters(config.Target.Listener.Filters, session, req)
	for _, m := range d.Mutations() {
		e.ResponseHeaders = append(e.ResponseHeaders, q.operations(m.ResponseAdd, m.ResponseRemove, func(string) bool { return true })...)
	}
	if err := config.Err(); err != nil {
		e.Verdict, e.Reason = NoConfig, err.Error()
		return e
	}
	defer q.intercept(e, config.Target.Listener.Filters, session.seen)
	switch r := d.Route; {
	case r.Direct != nil:
		e.Verdict, e.Answer = DirectResponse, q.answer(filter.Direct(r.Direct.Status, r.Direct.Body))
	case r.Redirect != nil:
		e.Verdict, e.Answer = Redirect, q.answer(pipeline.Redirect(d, req, &q.Facts))
	case r.Forward == nil:
		e.Verdict, e.Reason = NoRoute, "the route is for requests that arrive, not for requests that leave"
	default:
		q.forward(ctx, e, config, &trace, session)
	}
	return e
}

func (q *Question) answer(a *filter.Answer) *Answer {
	body := a.Content()
	if q.Protocol == observe.GRPC {
		body = a.Body // which is in its status, whatever HTTP would do with it
	}
	answer := &Answer{Status: a.Status, Location: a.Location, Body: string(body), BodyBytes: len(body)}
	if !q.exact && len(body) > shownBody {
		answer.Body = strings.ToValidUTF8(string(body[:shownBody]), "") + "..."
	}
	for _, h := range a.Headers {
		answer.Headers = append(answer.Headers, h.Name+": "+q.shown(h.Name, h.Value))
	}
	if q.Protocol == observe.GRPC {
		answer.GRPCCode = a.GRPCCode().String()
	}
	return answer
}

// forward explains where a call goes that is forwarded.
func (q *Question) forward(ctx context.Context, e *Explanation, config *pipeline.Config, trace *route.Trace, session *affinity) {
	d, req := &trace.Decision, &q.Request
	forward := d.Route.Forward
	name := d.ClusterName(req)
	if e.Choices, e.Draw = choices(forward, trace, name); e.Draw != nil && session.named {
		e.Draw = &Draw{By: bySession}
	}
	e.Mirrors = mirrors(forward, req, config)
	cluster := config.Clusters[name]
	if cluster == nil {
		e.Verdict, e.Reason = NoCluster, fmt.Sprintf("no route of this table names the cluster %q", name)
		return
	}
	hashed := q.hashing(cluster, forward)
	before := q.headerValues()
	var sent *Sent
	plan := config.Plan(ctx, &pipeline.Planned{
		Protocol: q.Protocol, Decision: d, Pin: session.pin, Request: req, Headers: q.Headers,
		Routed: func() { sent = q.sent(d, before, config.Target.Listener.HideOriginals) },
	})
	q.ends = plan.Ends
	of, drawn := hash(cluster, hashed, &plan)
	turns := turnsOf(cluster, &plan)
	e.Cluster = clusterOf(cluster, &plan, turns)
	e.Cluster.HashOf, e.Cluster.Hash = of, determined(&plan, turns, hashed, drawn)
	session.tell(e, cluster, &plan, turns)
	if _, all := dropped(cluster); plan.Answer != nil && !all {
		e.Verdict, e.Reason, e.Answer, e.Mirrors = FilterAnswer, plan.Answer.Reason, q.answer(plan.Answer), nil
		return
	}
	e.await(cluster, turns, plan.Priority)
	e.Timeouts = timeouts(&plan)
	if c := cluster.Config(); c != nil {
		e.Timeouts.Connect = c.ConnectTimeout
	}
	if plan.Late != nil {
		e.Verdict, e.Reason = NoTime, plan.Late.Error()
		if plan.Passed {
			e.Timeouts = nil
		}
		return
	}
	e.Sent = sent
	if q.Protocol == observe.HTTP { // gRPC has none
		e.Redirects = redirects(forward.InternalRedirect)
	}
	if plan.Policy.MaxRetries > 0 {
		e.Retry = retries(&plan.Policy, plan.Hedge)
		if h := forward.RetryHeaders; h != nil {
			for i := range h.Response {
				e.Retry.Headers = append(e.Retry.Headers, h.Response[i].Name)
			}
		}
		q.hedged(e.Retry)
	} else if _, ok := plan.Hedge.After(&plan.Policy); ok {
		e.Retry = &Retry{NotHedged: "attempts beside the first count as retries"}
	}
}

// hedged says whether the policy's hedging is for the call.
func (q *Question) hedged(r *Retry) {
	if r.Hedge == "" {
		return
	}
	if r.NotHedged = q.Unhedged(); r.NotHedged != "" {
		r.Hedge = ""
	} else if q.Protocol == observe.GRPC {
		r.Hedge += ", unless it is a stream" // which only the one who calls knows
	}
}

func timeouts(plan *pipeline.Plan) *Timeouts {
	t := &Timeouts{
		Call: plan.Limit, TryIdle: plan.Policy.PerTryIdleTimeout, Needed: plan.MinTime,
	}
	// One that is not shorter than the call's has no effect.
	if try := plan.Policy.PerTryTimeout; plan.Limit == 0 || try < plan.Limit {
		t.Try = try
	}
	return t
}

// headerValues are the values of the headers by their names in lower case.
func (q *Question) headerValues() map[string][]string {
	values := make(map[string][]string)
	for _, name := range q.Headers.Keys() {
		name = strings.ToLower(name)
		values[name] = slices.Clone(q.Headers.Values(name))
	}
	return values
}

// sent applies the rewrites and header operations, as the adapters do. before is
// what the caller has set.
func (q *Question) sent(d *route.Decision, before map[string][]string, hide bool) *Sent {
	out := d.Forward(q.Headers, &q.Request, &q.Facts, hide)
	s := &Sent{Host: q.Request.Host, Path: q.Request.Path, EndpointHost: out.EndpointHost}
	if out.Host != "" {
		s.Host = out.Host
	}
	if out.Path != "" {
		s.Path = out.Target()
	}
	for _, name := range q.Headers.Keys() {
		name = strings.ToLower(name)
		if old, ok := before[name]; !ok || !slices.Equal(old, q.Headers.Values(name)) {
			s.Set = append(s.Set, name)
		}
		delete(before, name)
	}
	slices.Sort(s.Set)
	s.Removed = slices.Sorted(maps.Keys(before))
	changed := func(name string) bool { return slices.Contains(s.Set, name) || slices.Contains(s.Removed, name) }
	for _, m := range d.Mutations() {
		s.Headers = append(s.Headers, q.operations(m.RequestAdd, m.RequestRemove, changed)...)
	}
	s.Headers = append(s.Headers, q.empty(d)...)
	return s
}

func choices(forward *discovery.Forward, trace *route.Trace, chosen string) ([]Choice, *Draw) {
	if trace.Draws == route.NoDraw {
		return []Choice{{Cluster: chosen, Weight: 1, Percent: 100, Chosen: true}}, nil
	}
	all := make([]Choice, len(forward.Clusters))
	for i := range forward.Clusters {
		c := &forward.Clusters[i]
		all[i] = Choice{
			Cluster: c.Name, Weight: c.Weight, Percent: 100 * float64(c.Weight) / float64(trace.Total),
			Chosen: c == trace.Decision.Cluster,
		}
		if c.Header != "" {
			all[i].Cluster = "named by the header " + c.Header
		}
	}
	by := map[route.Draws]string{route.AtRandom: "random", route.ByHeader: "header", route.ByHash: "hash"}
	return all, &Draw{By: by[trace.Draws], Number: trace.Number, Total: trace.Total}
}

func mirrors(forward *discovery.Forward, req *route.Request, config *pipeline.Config) []Mirror {
	var all []Mirror
	for i := range forward.Mirrors {
		m := &forward.Mirrors[i]
		name := m.Cluster
		if m.Header != "" {
			if name = strings.Join(req.Header.Values(m.Header), ","); name == "" {
				continue // it is not copied
			}
		}
		all = append(all, Mirror{Cluster: name, Percent: percent(m.PerMillion), Missing: config.Clusters[name] == nil})
	}
	return all
}

// hashOf says what of a request is hashed.
func hashOf(policies []discovery.HashPolicy) []string {
	var all []string
	for i := range policies {
		switch p := &policies[i]; {
		case p.Header != "":
			all = append(all, "header "+p.Header)
		case p.Cookie != "":
			all = append(all, "cookie "+p.Cookie)
		case p.Query != "":
			all = append(all, "query "+p.Query)
		case p.Source:
			all = append(all, "this process")
		case p.Channel:
			all = append(all, "the channel")
		}
	}
	return all
}

// retries describes a policy with its defaults.
func retries(p *retry.Policy, h *retry.Hedge) *Retry {
	base := p.Backoff.Base
	if base == 0 {
		base = 25 * time.Millisecond
	}
	most := p.Backoff.Max
	if most == 0 {
		most = 10 * base
	}
	hedge := ""
	if _, ok := h.After(p); ok {
		hedge = hedging(h)
	}
	omitted := make([]string, 0, len(p.OmitMetadata)+1)
	if p.OmitCanary {
		omitted = append(omitted, "canary")
	}
	for _, key := range slices.Sorted(maps.Keys(p.OmitMetadata)) {
		omitted = append(omitted, key+"="+p.OmitMetadata[key])
	}
	var headers []string
	if p.RateLimited != nil {
		for i := range p.RateLimited.Headers {
			headers = append(headers, p.RateLimited.Headers[i].Name)
		}
	}
	return &Retry{
		RateLimited: headers, OtherPriorities: p.PriorityUpdates, Omitted: omitted,
		Max: p.MaxRetries, On: p.On.String(), Statuses: p.RetriableStatusCodes,
		BackoffBase: base, BackoffMax: most, OtherEndpoints: p.AvoidPreviousHosts, Hedge: hedge,
	}
}

// inWords is the status of an answer.
func (a *Answer) inWords() string {
	if a.GRPCCode != "" {
		return "gRPC " + a.GRPCCode
	}
	return fmt.Sprintf("status %d", a.Status)
}

func percentOf(perMillion uint32) string { return fmt.Sprintf("%.4g%%", percent(perMillion)) }

func percent(perMillion uint32) float64 { return float64(perMillion) / 10_000 }
