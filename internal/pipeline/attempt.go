package pipeline

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// admitted is the permits that an attempt holds. They are released exactly
// once, when the attempt's response body or stream has ended.
type admitted struct {
	gate      *breaker.Gate
	errorRate breaker.Permit // zero without an error-rate breaker
	endpoint  breaker.Permit // zero without one of the endpoint
	load      *upstream.Load // nil unless the control plane asks
	host      *balancer.Host
	isRetry   bool
}

// try makes one attempt. It must be below retry, so that each attempt needs its
// own permits, and above the balancer, so that a refused attempt does not
// disturb the endpoints' counters.
func (c *Call) try() outcome.Outcome {
	if c.hedging != nil {
		return c.hedging.round()
	}
	a, o, refused := c.begin()
	if refused {
		return o
	}
	return a.run()
}

// begin starts an attempt, which becomes the call's, or says why it is refused.
func (c *Call) begin() (a *Attempt, o outcome.Outcome, refused bool) {
	a = &c.first
	if c.attempt != nil {
		a = new(Attempt) // the observer and gRPC's picker may still hold the last one
		c.now = time.Now()
	}
	c.attempt = a
	c.Observed.Attempts++
	a.call = c
	a.isRetry = c.isRetry
	if c.hedging != nil {
		own := c.pick // the call's may change while the attempt picks
		own.Avoid = slices.Clip(own.Avoid)
		a.pick = &own
	} else {
		a.pick = &c.pick
	}
	a.choose()
	a.Observed = observe.Attempt{Call: &c.Observed, Number: c.Observed.Attempts, Cluster: a.cluster.Name(), Start: c.now}
	a.Observed.Hedge = c.hedging != nil && len(c.hedging.running) > 0
	if o, refused := a.admit(); refused {
		return a, o, true
	}
	a.bound()
	a.watchIdle()
	a.Observed.Headers = c.adapter.Carrier(a)
	if hook := c.out.hooks.AttemptStarted; hook != nil && c.mirror == nil {
		a.ctx = hook(a.ctx, &a.Observed)
	}
	return a, outcome.Outcome{}, false
}

// run takes an attempt that has begun to its outcome.
func (a *Attempt) run() outcome.Outcome {
	if err := a.call.cluster.Await(a.ctx); err != nil {
		o := outcome.Outcome{Kind: outcome.NoEndpoint, Err: err}
		a.settle(&o)
		return o
	}
	o := a.call.adapter.Attempt(a.ctx, a)
	if !a.KeepPerTry && !a.lift() && o.Kind == outcome.Response && !o.GRPC {
		// The headers came at the very limit: the context, under which the body would
		// be read, has ended. A gRPC reply is here whole.
		a.call.adapter.Abandon(a)
		a.Reply = nil
		o = outcome.Outcome{Kind: outcome.PerTryTimeout, Sent: true, Err: errPerTryTimeout}
	}
	answered := o.Kind == outcome.Response
	if a.settle(&o); answered && o.Kind != outcome.Response && !o.GRPC {
		a.call.adapter.Abandon(a)
		a.Reply = nil
	}
	if o.Kind == outcome.Response && !a.KeepPerTry {
		a.begun.Store(true)
	}
	return o
}

// Started ends the per-try timeout: response headers have arrived. Attempt's
// return does the same unless KeepPerTry is set. It reports whether they were in
// time; if not, the attempt's context has ended or is about to.
func (a *Attempt) Started() bool {
	if !a.begun.Load() {
		a.begun.Store(true)
	}
	return a.lift()
}

func (a *Attempt) lift() bool { return !a.answer.Started() || a.answer.Lift() }

// Answered says that the response, whose headers have come, is a good one: to breakers
// that want to know whether there are any, however long its body takes.
func (a *Attempt) Answered() {
	a.errorRate.Answered()
	a.admitted.endpoint.Answered()
}

// Whole is when the call ends, with all its attempts and the response; zero if nothing
// says so.
func (a *Attempt) Whole() time.Time { return a.call.Deadline }

// Firm makes the per-try timeout, if there is one, the deadline that the attempt's
// context reports. The adapter calls it first of all in Attempt, if it does not
// lift the timeout before it returns.
func (a *Attempt) Firm() {
	if a.answer.Started() {
		a.answer.Firm()
	}
}

// settle finds out whose time it was, if the attempt ended because time was up.
// The peer, which was told the deadline, may have noticed first; that must make
// no difference, hence one gRPC status for all who were too late: grpc-go says
// CANCELLED of an attempt whose context was canceled, which is a retry condition.
func (a *Attempt) settle(o *outcome.Outcome) {
	defer func() {
		if o.GRPC && (o.Kind == outcome.PerTryTimeout || o.Kind == outcome.Timeout) {
			o.Code = uint32(codes.DeadlineExceeded)
		}
	}()
	switch {
	case o.Kind == outcome.BodyFailure || a.ctx == nil:
	case isBroken(o) && a.call.out.Closed() && a.ctx.Err() == nil:
		o.Kind, o.Err = outcome.Closed, upstream.ErrClosed // and not what that did to a connection
	case o.Kind == outcome.Response && !isTooLate(o):
	case a.ctx.Err() != nil:
		o.Kind, o.Err = endedBy(a.ctx), context.Cause(a.ctx)
	case (o.Kind == outcome.Canceled || o.Kind == outcome.Response) && !a.Deadline.IsZero() && !time.Now().Before(a.Deadline):
		o.Kind, o.Err = outcome.Timeout, a.call.timeUp()
		if a.Deadline != a.call.Deadline {
			o.Kind, o.Err = outcome.PerTryTimeout, errPerTryTimeout
		}
	}
}

// isBroken reports whether an attempt may have failed of a connection's end. gRPC says
// UNAVAILABLE, also of one that had begun to be answered.
func isBroken(o *outcome.Outcome) bool {
	return o.Kind != outcome.Response && o.Kind != outcome.Local || o.GRPC && o.Err != nil && codes.Code(o.Code) == codes.Unavailable
}

// isTooLate reports whether an answer says that the time was over.
func isTooLate(o *outcome.Outcome) bool {
	if o.GRPC {
		return codes.Code(o.Code) == codes.DeadlineExceeded
	}
	return o.Status == http.StatusGatewayTimeout
}

// admit takes the permits of the attempt, or says why it is refused.
func (a *Attempt) admit() (o outcome.Outcome, refused bool) {
	cluster := a.cluster
	if a.call.out.Closed() {
		a.releaseRetry()
		return outcome.Outcome{Kind: outcome.Closed, Err: upstream.ErrClosed}, true
	}
	if err := cluster.Err(); err != nil {
		a.releaseRetry()
		return outcome.Outcome{Kind: outcome.NoConfig, Err: err}, true
	}
	if cluster != a.call.cluster {
		if category, dropped := cluster.Dropped(); dropped {
			a.releaseRetry()
			return a.call.drop(category), true
		}
	}
	if breaker := cluster.ErrorRate(); breaker != nil {
		permit, err := breaker.Allow()
		if err != nil {
			a.releaseRetry()
			a.Overflowed("breaker")
			return outcome.Outcome{Kind: outcome.Overflow, Err: err}, true
		}
		a.errorRate = permit
	}
	gate := cluster.Gate(a.call.priority())
	if !gate.TryRequest() {
		a.releaseRetry()
		a.errorRate.Done(outcome.Ignored)
		a.Overflowed("requests")
		cluster.CountDrop("")
		return outcome.Outcome{Kind: outcome.Overflow, Err: errRequests}, true
	}
	a.gate = gate
	return outcome.Outcome{}, false
}

// bound sets the per-try timeout. One that is not shorter than the route's
// timeout has no effect (Envoy router docs).
func (a *Attempt) bound() {
	c := a.call
	a.ctx, a.Deadline = c.ctx, c.Deadline
	limit := c.policy.PerTryTimeout
	if h := c.hedging; h != nil {
		ctx, cancel := context.WithCancelCause(c.ctx)
		stop := context.AfterFunc(c.out.life, func() { cancel(upstream.ErrClosed) })
		a.ctx, a.cancel = ctx, func(cause error) { stop(); cancel(cause) }
		if h.policy.OnPerTryTimeout && h.policy.Delay <= 0 {
			limit = 0 // it starts another attempt instead
		}
	}
	if limit <= 0 {
		return
	}
	deadline := a.Observed.Start.Add(limit)
	if !c.Deadline.IsZero() && !deadline.Before(c.Deadline) {
		return
	}
	a.Deadline = deadline
	a.answer.Start(a.ctx, deadline, errPerTryTimeout)
	a.ctx = &a.answer
}

// Alone reports whether no other attempt of the call can run at the same time.
func (a *Attempt) Alone() bool { return a.call.hedging == nil }

// Pick chooses an endpoint of the call's cluster. Calling it again chooses
// another one, for when the first turned out not to be connectable before
// anything was sent. Of an aggregate the attempt may come to another cluster by it;
// [PickKind] says what an error is.
func (a *Attempt) Pick() (*upstream.Endpoint, error) {
	if a.host != nil {
		a.unpick()
		if err := a.move(outcome.Failure); err != nil { // nothing there could be connected to
			return nil, err
		}
	}
	endpoint, permit, err := a.pickAnywhere()
	if err != nil {
		return nil, err
	}
	return a.take(endpoint, permit)
}

// Elsewhere is Pick for an attempt whose endpoint has left its cluster. Without another
// one it keeps that, which may still serve it.
func (a *Attempt) Elsewhere() (*upstream.Endpoint, error) {
	endpoint, permit, err := a.pickAnywhere()
	if err != nil {
		return nil, err
	}
	a.unpick()
	return a.take(endpoint, permit)
}

// take makes an endpoint that of the attempt.
func (a *Attempt) take(endpoint *upstream.Endpoint, permit breaker.Permit) (*upstream.Endpoint, error) {
	a.lock()
	defer a.unlock()
	if a.ended { // it lost meanwhile
		permit.Done(outcome.Ignored)
		return nil, errLost
	}
	a.admitted.endpoint = permit
	a.Endpoint, a.host = endpoint, endpoint.Host()
	a.host.Begin()
	a.load = endpoint.Issued()
	a.Observed.Endpoint = endpoint.Address()
	a.Observed.Locality = a.host.Locality().String()
	return endpoint, nil
}

// unpick takes back the endpoint that could not be connected to.
func (a *Attempt) unpick() {
	a.lock()
	host, permit, load := a.host, a.admitted.endpoint, a.load
	if a.ended {
		host = nil // given back already
	}
	a.host, a.Endpoint, a.admitted.endpoint, a.load = nil, nil, breaker.Permit{}, nil
	a.unlock()
	if host == nil {
		return
	}
	load.Withdraw()
	permit.Done(outcome.Failure)
	a.pick.Avoid, a.pick.Beyond = avoiding(a.pick.Avoid, host), true
	host.End()
}

// pickAdmitted chooses an endpoint of a cluster whose own breaker lets the attempt pass.
// Those that are open are chosen last; of those that probe, it may take some to find one.
func (a *Attempt) pickAdmitted(cluster *upstream.Cluster, info balancer.PickInfo) (*upstream.Endpoint, breaker.Permit, error) {
	const tries = 4
	info.Now = a.Observed.Start
	if hashes := a.call.hashes; hashes != nil {
		hashes.In(cluster, &info)
	}
	for try := 1; ; try++ {
		endpoint, err := cluster.Pick(info)
		if err != nil {
			return nil, breaker.Permit{}, err
		}
		permit, err := endpoint.Allow()
		if err == nil {
			return endpoint, permit, nil
		}
		if try == tries {
			a.call.overflowed(cluster, "breaker")
			return nil, breaker.Permit{}, fmt.Errorf("endpoint %s: %w", endpoint.Address(), err)
		}
		info.Avoid = append(slices.Clip(info.Avoid), endpoint.Host())
	}
}

// Closed reports whether the mesh is being closed: the attempt must not be sent.
func (a *Attempt) Closed() bool { return a.call.out.Closed() }

// Priority is the routing priority, which selects the limits.
func (a *Attempt) Priority() discovery.RoutingPriority { return a.call.priority() }

// Cluster is the cluster that the attempt goes to: of an aggregate, the one with
// the endpoint.
func (a *Attempt) Cluster() *upstream.Cluster { return a.cluster }

// Overflowed reports that a limit which the adapter watches refused the attempt.
func (a *Attempt) Overflowed(resource string) { a.call.overflowed(a.cluster, resource) }

// Retries is how many times the retry policy has granted another attempt before
// this one. Attempts that are repeated without asking it do not count (gRFC A6).
func (a *Attempt) Retries() int { return a.call.sequence.Attempts() - 1 }

// AfterTimeout reports whether the attempt before ended with the per-try timeout.
func (a *Attempt) AfterTimeout() bool { return a.call.timedOut }

// end ends the attempt, once. The call's goroutine does, or who finishes the
// call.
func (a *Attempt) end(o *outcome.Outcome, now time.Time) {
	if a.ended {
		return
	}
	a.lock()
	a.ended = true
	host, endpoint := a.host, a.Endpoint
	a.unlock()
	c := a.call
	a.lift()
	a.excuse(o, now)
	a.idle.stop()
	a.answer.Stop()
	if a.cancel != nil {
		a.cancel(context.Canceled)
	}
	gate := a.gate
	a.giveBack(host, endpoint, o, now)
	if gate == nil {
		return // it was refused: nobody was told of its start
	}
	a.Observed.Outcome = *o
	a.Observed.End = now
	if hook := c.out.hooks.AttemptEnded; hook != nil && c.mirror == nil {
		hook(a.ctx, &a.Observed)
	}
}

// giveBack tells of the attempt's end whoever counts it, and gives its permits back:
// each of them, although the others run hooks, which may panic or end the goroutine.
func (a *Attempt) giveBack(host *balancer.Host, endpoint *upstream.Endpoint, o *outcome.Outcome, now time.Time) {
	verdict := o.Verdict()
	own := verdict
	if timedOut := o.Kind == outcome.Timeout || o.Kind == outcome.PerTryTimeout; timedOut && !o.Sent {
		own = outcome.Ignored // the wait was for a place in the pool, or for a connection
	}
	if a.gate != nil {
		if !a.paused {
			defer a.gate.ReleaseRequest()
		}
		if verdict == outcome.Success {
			a.call.cluster.Throttle().Succeeded()
		}
	}
	defer a.releaseRetry()
	defer a.errorRate.Done(verdict)
	defer a.admitted.endpoint.Done(own)
	if host != nil {
		host.End()
		a.load.Done(o)
		report(endpoint, o)
		a.told(host, o, now)
	}
}

// end ends what the call holds: all of it, although a hook may panic.
func (c *Call) end(o *outcome.Outcome, now time.Time) {
	defer c.filtered.End()
	defer c.timeout.Stop()
	defer c.out.lasting.remove(c)
	if c.attempt != nil {
		c.attempt.end(o, now)
	}
}

// report tells the endpoint how the attempt on it ended. That it could not be
// connected to is told by who tried: once, for however many attempts.
func report(endpoint *upstream.Endpoint, o *outcome.Outcome) {
	if o.Kind != outcome.ConnectFailure {
		endpoint.Report(o)
	}
}

func (a *Attempt) releaseRetry() {
	if a.isRetry {
		a.isRetry = false
		a.call.cluster.Gate(a.call.priority()).ReleaseRetry()
	}
}
