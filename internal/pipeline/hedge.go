package pipeline

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// errLost ends an attempt beside which another one had the answer.
var errLost = errors.New("another attempt was faster")

// hedging is the attempts of a call that run beside each other, each on a
// goroutine of its own. The call's goroutine begins and ends them all: limits,
// counters and hooks are told there, in order. An attempt that is still running
// when it loses only has its response to let go of, which its own goroutine does.
type hedging struct {
	call   *Call
	policy *retry.Hedge
	after  time.Duration
	// results has room for all attempts of a round, so that none waits.
	results chan result
	running []*Attempt
	// stopped is set when no attempt may be added any more.
	stopped bool

	// mu guards what an attempt's goroutine shares with the call's: which
	// endpoint it has, and whether it has lost.
	mu sync.Mutex
}

// result is how an attempt ended.
type result struct {
	attempt *Attempt
	outcome outcome.Outcome
	// returned is false if it panicked, with this value, or called Goexit.
	returned bool
	panicked any
}

// startHedging makes the call one whose attempts run beside each other, if the
// route or the application says so and the protocol knows that it may be.
func (c *Call) startHedging() {
	after, ok := c.hedge.After(c.policy)
	if !ok || c.policy.MaxRetries == 0 || !c.adapter.Hedgeable() {
		return
	}
	attempts := int(min(c.policy.MaxRetries, maxBeside)) + 1
	c.hedging = &hedging{
		call: c, policy: c.hedge, after: after, results: make(chan result, attempts), running: make([]*Attempt, 0, attempts),
	}
}

// maxBeside bounds the attempts that run beside a first one. The retries that
// are left are made one after the other.
const maxBeside = 15

// round makes one attempt, and others beside it as time passes. It returns the
// first good answer, or what the last of them failed of: then that is the call's
// attempt, as after try.
func (h *hedging) round() outcome.Outcome {
	c := h.call
	done := false
	defer func() {
		if !done { // a panic or Goexit: nothing may stay counted
			h.lose(nil)
		}
	}()
	_, o, begun := h.launch()
	if !begun {
		done = true
		return o
	}
	timer := time.NewTimer(h.after)
	defer timer.Stop()
	for {
		select {
		case r := <-h.results:
			h.running = slices.DeleteFunc(h.running, func(a *Attempt) bool { return a == r.attempt })
			if !r.returned {
				c.attempt = r.attempt
				if r.panicked != nil {
					panic(r.panicked) //nolint:forbidigo // it is foreign code's, and belongs on the caller's goroutine
				}
				runtime.Goexit()
			}
			o = r.outcome
			if c.headers != nil {
				c.readReply(r.attempt, &o)
			}
			if len(h.running) == 0 || h.decides(&o) {
				c.attempt = r.attempt
				h.lose(h.ended())
				done = true
				return o
			}
			h.discard(r.attempt, &o)
			if h.policy.Delay > 0 && c.policy.Retryable(&o) {
				timer.Reset(0) // the next need not wait for a failure (gRFC A6)
			}
		case <-timer.C:
			h.another()
			timer.Reset(h.after)
		case <-c.ctx.Done():
			o = *h.ended()
			h.lose(&o)
			done = true
			return o
		case <-c.out.life.Done():
			// Most attempts end with their connections. One may be held up in what the
			// application gave for it, as its GetBody.
			o = outcome.Outcome{Kind: outcome.Closed, Err: upstream.ErrClosed, Sent: true}
			h.lose(&o)
			done = true
			return o
		}
	}
}

// ended is how the attempts end that run when the call's context does: whoever of them
// noticed it first, it was not faster than the others. Before that it is nil.
func (h *hedging) ended() *outcome.Outcome {
	ctx := h.call.ctx
	if ctx.Err() == nil {
		return nil
	}
	return &outcome.Outcome{Kind: endedBy(ctx), Err: context.Cause(ctx), Sent: true}
}

// decides reports whether an outcome is the call's although other attempts still
// run: an answer that is good, or as bad as it will get. A request that an attempt could
// not have, as its GetBody failed, says nothing of those that have theirs.
func (h *hedging) decides(o *outcome.Outcome) bool {
	switch o.Kind {
	case outcome.Response:
		return !h.call.policy.Retryable(o)
	case outcome.Timeout:
		return o.Sent || h.call.ctx.Err() != nil // or there was no time to send it, see Depart
	case outcome.Canceled:
		return true
	}
	return false
}

// discard ends a failed attempt: the others are in its place already.
func (h *hedging) discard(a *Attempt, o *outcome.Outcome) {
	c := h.call
	if c.throttled(o) || o.Kind == outcome.Overflow || o.Kind == outcome.NoEndpoint || o.Kind == outcome.Timeout || o.Kind == outcome.BodyFailure {
		h.stopped = true
	}
	if wait, forbidden, ok := retry.Pushback(o); ok && (forbidden || wait > 0) {
		h.stopped = true // the server asks for less (gRFC A6)
	}
	c.abandon(a, o)
}

// another starts an attempt beside those that run, if one may be added.
func (h *hedging) another() {
	c := h.call
	if h.policy.OnPerTryTimeout && h.policy.Delay <= 0 {
		for _, a := range h.running {
			a.slow = true
		}
	}
	if h.stopped || len(h.running) > maxBeside || !c.adapter.Replayable() || !c.cluster.Throttle().Allows() {
		return
	}
	if _, late := c.late(0); late || !c.sequence.Hedge(c.Observed.Protocol == observe.GRPC, h.policy.MaxAttempts) {
		h.stopped = true
		return
	}
	if !c.cluster.Gate(c.priority()).TryRetry() {
		h.stopped = true
		c.overflowed(c.cluster, "retries")
		return
	}
	for _, a := range h.running {
		if host := a.goneTo(); host != nil {
			c.avoid(host)
		}
	}
	c.isRetry = true
	if a, o, begun := h.launch(); !begun {
		h.stopped = true
		if a != nil {
			a.end(&o, time.Now())
		}
	}
}

// launch begins an attempt, or says why there is none, and then gives back the
// permit that it would have held as a retry: a is nil if nobody was asked for it.
func (h *hedging) launch() (a *Attempt, o outcome.Outcome, begun bool) {
	c := h.call
	if !c.out.enter() {
		if c.isRetry {
			c.cluster.Gate(c.priority()).ReleaseRetry()
		}
		return nil, outcome.Outcome{Kind: outcome.Closed, Err: upstream.ErrClosed}, false
	}
	defer func() { // also if a hook panics: Close waits for what has entered
		if !begun {
			c.out.leave()
		}
	}()
	a, o, refused := c.begin()
	if refused {
		return a, o, false
	}
	h.running = append(h.running, a)
	go func() { // ends with the attempt's context; Outbound.Close waits for it
		defer c.out.leave()
		r := result{attempt: a}
		defer func() {
			if !r.returned {
				r.panicked = recover()
			}
			h.deliver(r)
		}()
		r.outcome = a.run()
		r.returned = true
	}()
	return a, outcome.Outcome{}, true
}

// deliver hands a result to the call, or lets go of it if that has moved on.
func (h *hedging) deliver(r result) {
	h.mu.Lock()
	lost := r.attempt.lost
	if !lost {
		h.results <- r
	}
	h.mu.Unlock()
	if lost && r.returned {
		h.call.adapter.Abandon(r.attempt)
	}
}

// lose ends the attempts that still run. o is how, if not by losing.
func (h *hedging) lose(o *outcome.Outcome) {
	defer h.loseDelivered()
	running := h.running
	h.running = running[:0]
	h.loseEach(running, o, time.Now())
}

// loseEach ends the attempts in their order: all, although a hook may panic.
func (h *hedging) loseEach(running []*Attempt, o *outcome.Outcome, now time.Time) {
	if len(running) == 0 {
		return
	}
	defer h.loseEach(running[1:], o, now)
	a := running[0]
	h.mu.Lock()
	a.lost = true
	h.mu.Unlock()
	ending := outcome.Outcome{Kind: outcome.Canceled, Sent: true, Err: errLost}
	switch {
	case o != nil:
		ending = *o
	case a.slow:
		// It had its time: that another had more luck does not excuse it.
		ending.Kind = outcome.PerTryTimeout
	}
	h.call.sent = true
	a.end(&ending, now)
}

// loseDelivered lets go of what was delivered before it lost.
func (h *hedging) loseDelivered() {
	for {
		select {
		case r := <-h.results:
			if r.returned {
				h.call.adapter.Abandon(r.attempt)
			}
		default:
			return
		}
	}
}

// goneTo is the host that an attempt has picked, nil before that.
func (a *Attempt) goneTo() *balancer.Host {
	a.lock()
	defer a.unlock()
	return a.host
}

// lock and unlock are for what the goroutine of an attempt shares with the
// call's, if they are not the same.
func (a *Attempt) lock() {
	if h := a.call.hedging; h != nil {
		h.mu.Lock()
	}
}

func (a *Attempt) unlock() {
	if h := a.call.hedging; h != nil {
		h.mu.Unlock()
	}
}
