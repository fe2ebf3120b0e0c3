package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/deadline"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// errRouteTimeout is the cause of a context that the route's timeout ended.
var errRouteTimeout = errors.New("route timeout")

// errCallTimeout is the same for the time that the application gives to the call.
var errCallTimeout = errors.New("the call's own timeout")

// errPerTryTimeout is the cause of a context that the per-try timeout ended.
var errPerTryTimeout = errors.New("per-try timeout")

// transparentRetries bounds the attempts that are repeated without asking the
// retry policy because it is certain that the peer did not process them (gRFC A6,
// "Transparent Retries").
const transparentRetries = 3

// Adapter is what a protocol brings to a call. Its methods are called by
// [Call.Run] on the goroutine that called it, one at a time.
type Adapter interface {
	// Routed is told the decision once, before the first attempt. It applies
	// rewrites and header mutations.
	Routed(d *route.Decision)
	// Copy has copies of the request sent, see [Call.Mirrors]. It is called at most
	// once, when the first attempt is about to be made.
	Copy()
	// Carrier prepares the headers of an attempt and returns them, so that the
	// observer can add to them.
	Carrier(a *Attempt) observe.Carrier
	// Attempt makes one attempt. It picks the endpoint with a.Pick and returns
	// when there is a response, or none will come. ctx bounds the attempt. A
	// local failure while ctx has ended is reported as any Kind but Response:
	// Run finds out whose time it was.
	Attempt(ctx context.Context, a *Attempt) outcome.Outcome
	// Abandon lets go of what an attempt returned: another one counts.
	Abandon(a *Attempt)
	// Replayable reports whether the request can be sent again, now.
	Replayable() bool
	// Unkept is what says that no retry can send it again because there was too much
	// of it, nil if there was not. What its server has not processed can be sent again
	// nevertheless, if it is Replayable.
	Unkept() error
	// Hedgeable reports whether the request may be sent while another attempt
	// is under way: that its effect is that of one, and that all of it is at
	// hand. If it says so, Attempt and Abandon are called on goroutines of the
	// attempts, side by side.
	Hedgeable() bool
}

// Call is one outbound call. It is used by one goroutine at a time.
type Call struct {
	// Observed is what hooks see. The adapter fills Protocol, Method, Host,
	// Scheme, Path and Streaming before Run.
	Observed observe.Call
	// Decision is what routing said; valid once Run has called Routed.
	Decision route.Decision
	// Answer is set when the mesh itself answers: then Run returns an outcome
	// of Kind Local.
	Answer *filter.Answer
	// Deadline is when the whole call must have ended; zero without a limit.
	Deadline time.Time

	out      *Outbound
	target   *Target
	config   *Config // the version that the call works with
	cluster  *upstream.Cluster
	adapter  Adapter
	filtered *filter.Exchange // nil if no filter ran
	observed context.Context
	ctx      context.Context
	timeout  deadline.Context // ctx, if the call has a timeout
	policy   *retry.Policy
	sequence retry.Sequence
	// now is the time after the last wait, which is recent enough for what
	// follows without one: reading the clock is not cheap.
	now time.Time
	// pick is what endpoints are picked by; its Avoid are the hosts tried.
	pick balancer.PickInfo
	// hashes are what it is hashed to in the clusters of an aggregate that differ in that;
	// nil for nearly all calls, which have no room to spare.
	hashes *upstream.LeafHashes
	// cookies are Set-Cookie headers that the response must carry.
	cookies []string
	// priorities are those that attempts went to, if the policy looks at them.
	priorities []uint32
	headers    *discovery.RetryHeaders // of the policy; nil without
	// options are the application's for this call, nil without any.
	options *CallOptions
	hedge   *retry.Hedge // nil without
	hedging *hedging     // nil unless attempts run beside each other
	// minTime must be left of the call's time for an attempt to begin.
	minTime time.Duration
	// idle ends the call when nothing has moved for so long; 0 does not.
	idle            time.Duration
	routingPriority discovery.RoutingPriority
	ownOptions      bool // options is not shared with other calls

	attempt *Attempt
	first   Attempt // the attempt that most calls need, without an allocation
	// transparent counts the attempts that were repeated without the policy.
	transparent uint8
	isRetry     bool // the next attempt holds a retry permit
	sent        bool // an attempt that was given up may have reached a peer
	timedOut    bool // the last attempt that was given up ran out of its own time
	finished    bool
	hide        bool // the upstream is not told what was rewritten
	ownTime     bool // the application gives the call less time than its route does
	callersTime bool // what ends the call is not its route's timeout, but a deadline that the caller brought
	// mirror is set for a copy of a request, which is no call of the application.
	mirror *Mirror
	place  place
}

// Attempt is one attempt of a call.
type Attempt struct {
	Observed observe.Attempt
	// Endpoint is what Pick chose last.
	Endpoint *upstream.Endpoint
	// Deadline is when the attempt must have ended: the earlier of the call's
	// and the per-try timeout's. Zero without a limit.
	Deadline time.Time
	// KeepPerTry leaves the per-try timeout running when Attempt returns: the
	// adapter calls Started later. It is for streams, which are open before
	// their response has begun.
	KeepPerTry bool
	// Reply is the headers of the response, which the adapter sets when there is
	// one; nil without.
	Reply route.Header
	// Local is the adapter's.
	Local any

	// departed is when it was sent, in Unix nanoseconds, if that matters; else 0. begun
	// is whether its response has.
	departed atomic.Int64
	begun    atomic.Bool

	ended bool
	slow  bool // it has taken the per-try timeout, and was let go on
	// lost and paused are guarded by the call's hedging.
	lost   bool
	paused bool // it holds no permits, see Pause

	call *Call
	// cluster is the call's, or one of those that an aggregate consists of.
	cluster *upstream.Cluster
	pick    *balancer.PickInfo
	ctx     context.Context
	admitted
	// answer bounds the wait for the response's headers.
	answer deadline.Attempt
	cancel context.CancelCauseFunc

	// idle are the timers that end it when nothing moves; nil without a limit, as most
	// attempts are.
	idle *idleTimers
}

// Prepare makes c, which must be zero, a call to a target. A call is usually
// part of its adapter, hence no constructor.
func (o *Outbound) Prepare(c *Call, target *Target, adapter Adapter) {
	c.out, c.target, c.adapter = o, target, adapter
}

// Run takes the call to its outcome, attempts and all. With Kind Response the
// last attempt is still open: its response body, or stream, is being read, and
// the adapter must call Finish when that has ended. With any other Kind the
// call has ended, and Err explains the failure.
func (c *Call) Run(ctx context.Context, req *route.Request) outcome.Outcome {
	return c.RunDecided(ctx, req, nil)
}

// RunDecided is Run for a call that was routed already; nil routes it.
func (c *Call) RunDecided(ctx context.Context, req *route.Request, decided *Decided) (o outcome.Outcome) {
	c.Observed.Direction = observe.Outbound
	c.Observed.Target = c.target.name
	c.now = time.Now()
	c.Observed.Start = c.now
	if hook := c.out.hooks.CallStarted; hook != nil {
		ctx = hook(ctx, &c.Observed)
	}
	c.observed = ctx
	done := false
	defer func() {
		if !done { // a panic or Goexit in foreign code: nothing may stay counted
			c.Finish(outcome.Outcome{Kind: outcome.Canceled, Sent: true})
		}
	}()
	o = c.run(ctx, req, decided)
	done = true
	if o.Kind != outcome.Response {
		c.Finish(o)
	}
	return o
}

func (c *Call) run(ctx context.Context, req *route.Request, decided *Decided) outcome.Outcome {
	req.Source = c.out.Caller()
	if decided != nil && decided.err != nil {
		return c.unconfigured(ctx, decided.err)
	}
	if decided != nil {
		return c.routed(ctx, req, decided.config, decided.decision)
	}
	config := c.target.config.Load()
	if config == nil {
		var err error
		if config, err = c.target.Config(ctx); err != nil {
			return c.unconfigured(ctx, err)
		}
		c.now = time.Now()
	}
	decision, ok := config.Routes.Match(req)
	if !ok {
		return c.noRoute(config, req)
	}
	return c.routed(ctx, req, config, decision)
}

func (c *Call) unconfigured(ctx context.Context, err error) outcome.Outcome {
	e := c.target.ConfigError(ctx, err)
	return outcome.Outcome{Kind: e.Kind, Err: e}
}

// noRoute fails a call without a route, and tells whether the host or the rest of the
// request is why.
func (c *Call) noRoute(config *Config, req *route.Request) outcome.Outcome {
	if trace := config.Routes.Trace(req); trace.Host == nil {
		return c.fail(outcome.NoRoute, errors.New("no virtual host is for "+strconv.Quote(req.Host)))
	}
	return c.fail(outcome.NoRoute, errors.New("no route matches "+req.Method+" "+strconv.Quote(req.Host+req.Path)))
}

func (c *Call) decide(req *route.Request, decision route.Decision) {
	c.Decision = decision
	c.Observed.Route = decision.Route.Name
	c.Observed.Cluster = decision.ClusterName(req)
}

// routed goes on with a call when its route is known.
func (c *Call) routed(ctx context.Context, req *route.Request, config *Config, decision route.Decision) outcome.Outcome {
	c.decide(req, decision)
	c.config = config
	c.hide = config.Target.Listener.HideOriginals
	c.options = optionsOf(ctx)
	if o, ended := c.filter(ctx, config, req); ended {
		return o
	}
	switch r := c.Decision.Route; {
	case r.Direct != nil:
		return c.answer(filter.Direct(r.Direct.Status, r.Direct.Body))
	case r.Redirect != nil:
		facts := c.Facts()
		return c.answer(Redirect(&c.Decision, req, &facts))
	case r.Forward == nil:
		return c.fail(outcome.NoRoute, errors.New("the route is for requests that arrive, not for requests that leave"))
	}
	c.cluster = config.Clusters[c.Observed.Cluster]
	if c.cluster == nil {
		return c.fail(outcome.NoConfig, errors.New("no route of this table names such a cluster"))
	}
	if category, dropped := c.cluster.Dropped(); dropped {
		return c.drop(category)
	}
	c.plan(req)
	c.steer(req)
	c.adapter.Routed(&c.Decision)
	c.customize()
	if answer := c.pin(); answer != nil {
		return c.answer(answer)
	}
	c.bound(ctx, config)
	c.sequence = c.policy.Start()
	if left, late := c.late(0); late {
		return c.fail(outcome.Timeout, c.tooLate(left))
	}
	if len(c.Decision.Route.Forward.Mirrors) > 0 && c.ctx.Err() == nil {
		c.adapter.Copy()
	}
	if c.hedge != nil {
		c.startHedging()
	}
	return c.attempts()
}

// plan takes what the route and the application say about retries and time.
func (c *Call) plan(req *route.Request) {
	forward := c.Decision.Route.Forward
	c.policy, c.headers, c.hedge = forward.Retry, forward.RetryHeaders, forward.Hedge
	if c.policy == nil || c.headers != nil && !mayRetry(c.headers, req) {
		c.policy = &noRetries
	}
	c.routingPriority, c.minTime = forward.Priority, forward.MinTime
}

// Facts are what is known of the call. No connection brought it.
func (c *Call) Facts() route.Facts {
	f := route.Facts{Protocol: "HTTP/1.1", Start: c.Observed.Start}
	if c.Observed.Protocol == observe.GRPC {
		f.Protocol = "HTTP/2"
	}
	return f
}

// HideOriginals reports whether the upstream is not to be told what was
// rewritten.
func (c *Call) HideOriginals() bool { return c.hide }

// Last is the attempt whose outcome Run returned, or the one under way. It is nil
// before the first.
func (c *Call) Last() *Attempt {
	a := c.attempt
	if a == nil {
		return nil
	}
	a.lock()
	defer a.unlock()
	if a.lost {
		return nil // its goroutine may still be at it
	}
	return a
}

// Upstream is the address of the endpoint of the last attempt, "" before one.
func (c *Call) Upstream() string {
	if c.attempt == nil {
		return ""
	}
	return c.attempt.Observed.Endpoint
}

// filter runs the filters. They are above retry, so that they see a call once,
// and above the timeout's start only in that a delay uses up the caller's time,
// and the application's for the call, and not the route's.
func (c *Call) filter(ctx context.Context, config *Config, req *route.Request) (o outcome.Outcome, ended bool) {
	if config.filters == nil {
		if config.filtersErr != nil {
			return c.fail(outcome.NoConfig, config.filtersErr), true
		}
		return outcome.Outcome{}, false
	}
	if config.filters.Idle(&c.Decision) {
		return outcome.Outcome{}, false
	}
	if end := c.ownEnd(); !end.IsZero() {
		bounded, cancel := context.WithDeadlineCause(ctx, end, errCallTimeout)
		defer cancel()
		ctx = bounded
	}
	c.filtered = &filter.Exchange{Request: *req, Facts: c.Facts(), Routes: config.Routes, Decision: c.Decision}
	answer, err := config.filters.Run(ctx, c.filtered)
	c.now = time.Now()
	switch {
	case err != nil && c.out.Closed():
		return c.closed(), true
	case err != nil:
		return c.fail(endedBy(ctx), err), true
	case answer != nil:
		return c.answer(answer), true
	case c.filtered.Decision.Route == nil:
		return c.noRoute(config, req), true
	}
	c.decide(req, c.filtered.Decision)
	return outcome.Outcome{}, false
}

// Filtered is what the filters have left of the call: what they want to do with
// the response, above all. It is nil if none ran.
func (c *Call) Filtered() *filter.Exchange {
	if c.filtered != nil {
		c.filtered.Upstream, c.filtered.Further = c.Upstream(), nil
		if c.attempt != nil && c.attempt.Endpoint != nil {
			c.filtered.Further = c.attempt.Endpoint.Host().Endpoint().Additional
		}
	}
	return c.filtered
}

// attempts makes attempts until one is final.
func (c *Call) attempts() outcome.Outcome {
	for {
		o := c.try()
		if !c.again(&o) {
			return c.final(o)
		}
	}
}

// Resume goes on with a call whose open attempt, from which nothing has reached
// the application yet, turned out to have ended with o: it tries again if it
// may. The result is to be read as that of Run.
func (c *Call) Resume(o outcome.Outcome) outcome.Outcome {
	c.attempt.settle(&o)
	if c.again(&o) {
		o = c.attempts()
	} else {
		o = c.final(o)
	}
	if o.Kind != outcome.Response {
		c.Finish(o)
	}
	return o
}

// again decides whether another attempt follows the one that ended with o, and
// waits until it is due. When the wait is cut short, o becomes the reason.
func (c *Call) again(o *outcome.Outcome) bool {
	if o.Kind == outcome.Timeout || o.Kind == outcome.Canceled || c.out.Closed() {
		return false
	}
	if c.isTransparent(o) {
		if c.ctx.Err() != nil {
			return false
		}
		c.abandon(c.attempt, o)
		c.isRetry = false
		return true
	}
	if c.headers != nil {
		c.readReply(c.attempt, o)
	}
	throttled := c.throttled(o)
	delay, ok := c.sequence.Next(o)
	if !ok || throttled || c.ctx.Err() != nil {
		return false
	}
	if _, late := c.late(delay); late {
		return false
	}
	if err := c.adapter.Unkept(); err != nil {
		c.overflowed(c.cluster, "replay")
		if o.Err != nil {
			o.Err = fmt.Errorf("%w (not retried: %w)", o.Err, err)
		}
		return false
	}
	if !c.adapter.Replayable() {
		return false
	}
	gate := c.cluster.Gate(c.priority())
	// If this was a retry, it is over: its permit must not stand in the way of
	// the next one.
	c.attempt.releaseRetry()
	if !gate.TryRetry() {
		// The response that is there is given back (Envoy, retry overflow).
		c.overflowed(c.cluster, "retries")
		return false
	}
	defer func() { // also if a hook panics
		if !c.isRetry {
			gate.ReleaseRetry()
		}
	}()
	c.isRetry = false
	c.abandon(c.attempt, o)
	if err := c.sleep(delay); err != nil {
		kind := endedBy(c.ctx)
		if errors.Is(err, upstream.ErrClosed) {
			kind = outcome.Closed
		}
		*o = outcome.Outcome{Kind: kind, Err: err, Sent: c.sent}
		return false
	}
	c.isRetry = true
	return true
}

var noRetries = retry.Policy{}

// abandon ends an attempt that another follows.
func (c *Call) abandon(a *Attempt, o *outcome.Outcome) {
	c.sent = c.sent || o.Sent
	c.timedOut = o.Kind == outcome.PerTryTimeout
	c.remember(a, o)
	now := time.Now()
	defer a.end(o, now)  // whatever panics
	c.adapter.Abandon(a) // before its context ends, which would cost its connection
}

// isTransparent reports whether the attempt may be repeated whatever the policy
// says, because the peer cannot have acted on it (nothing was written, or the peer
// said so itself), or because to act on it twice does no harm and its connection
// was dying, as any that was idle may be.
func (c *Call) isTransparent(o *outcome.Outcome) bool {
	limit, throttle := uint8(0), c.cluster.Throttle()
	switch o.Kind {
	case outcome.ResetBeforeRequest:
		limit = transparentRetries
	case outcome.RefusedStream:
		// It has cost the peer something, which says so because it has too much to do.
		if throttle.Allows() {
			limit = 1
		}
	case outcome.Reset:
		// A peer that ends what it has just been asked looks the same. One that does so
		// with everything gets it twice, as from net/http, and not with a throttle.
		if o.Repeatable && throttle.Allows() {
			limit = 1
		}
	}
	if c.transparent >= limit || !c.adapter.Replayable() {
		return false
	}
	c.transparent++
	if o.Kind == outcome.Reset {
		throttle.Failed() // this one may have cost the peer all that a retry costs
	}
	return true
}

// final decides what the caller gets for the last outcome.
func (c *Call) final(o outcome.Outcome) outcome.Outcome {
	if o.Kind == outcome.Response || o.Kind == outcome.Local {
		return o
	}
	return c.failOutcome(o)
}

func (c *Call) priority() discovery.RoutingPriority { return c.routingPriority }

// drop answers a call that drop_overloads of an assignment refuse.
func (c *Call) drop(category string) outcome.Outcome {
	return c.answer(&filter.Answer{Status: http.StatusServiceUnavailable, Reason: "drop_overload " + category})
}

func (c *Call) answer(a *filter.Answer) outcome.Outcome {
	c.Answer = a
	o := outcome.Outcome{Kind: outcome.Local, Status: a.Status}
	if c.Observed.Protocol == observe.GRPC {
		o = outcome.Outcome{Kind: outcome.Local, GRPC: true, Code: uint32(a.GRPCCode())}
	}
	return o
}

func (c *Call) overflowed(cluster *upstream.Cluster, resource string) {
	if hook := c.out.hooks.Overflowed; hook != nil {
		hook(observe.OverflowEvent{Cluster: cluster.Name(), Resource: resource})
	}
}

// Finish ends the call: its last attempt's permits are released, its context
// ends, hooks are told. Only the first call has an effect. It is safe to call
// from another goroutine than Run's, once Run has returned.
func (c *Call) Finish(o outcome.Outcome) {
	if c.finished {
		return
	}
	c.finished = true
	now := time.Now()
	c.end(&o, now)
	c.Observed.Outcome = o
	c.Observed.End = now
	if c.mirror != nil {
		c.mirror.ended(c)
		return
	}
	if hook := c.out.hooks.CallEnded; hook != nil {
		hook(c.observed, &c.Observed)
	}
}

// Closing is closed when the mesh is being closed.
func (c *Call) Closing() <-chan struct{} { return c.out.life.Done() }

// Context bounds the call: it ends with the caller's context or with the
// route's timeout. It is nil before routing.
func (c *Call) Context() context.Context { return c.ctx }
