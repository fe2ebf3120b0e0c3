package pipeline

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/retry"
)

// CallOptions is what an application wants of one call. Every zero value leaves
// the matter to the control plane, whose configuration is also the ceiling: a
// call gets no more time, no more retries and no other limits than its route
// and its cluster allow.
type CallOptions struct {
	// Timeout bounds the call from its beginning, with filters, attempts and redirects.
	// The route's timeout and the context's deadline apply beside it. A negative one has
	// passed already.
	Timeout time.Duration
	// PerTryTimeout ends one attempt. It can only shorten the route's.
	PerTryTimeout time.Duration
	// MinTime refuses an attempt for which less than this is left of the call's
	// time: what cannot finish is better not begun. The larger of it and the
	// route's applies.
	MinTime time.Duration
	// MaxRetries is how many attempts may follow the first; nil leaves that to
	// the route, whose policy is the most there can be. A route without a policy
	// allows none.
	MaxRetries *uint32
	// RetryOn are further conditions for a retry. The application knows better
	// than the control plane whether this call may be repeated.
	RetryOn retry.Conditions
	// RetriableStatusCodes are further statuses for the condition
	// retry.OnRetriableStatusCodes.
	RetriableStatusCodes []int
	// RetriableHeaderNames are further response headers for the condition
	// retry.OnRetriableHeaders: it holds if one of them is there.
	RetriableHeaderNames []string
	// Hedge replaces the route's hedging. The attempts that it adds are retries:
	// they are bounded as those are. What must not be repeated is not hedged.
	Hedge *retry.Hedge
	// HashKey takes the place of what the route's hash policy would hash, for
	// clusters whose balancer hashes; "" leaves it to the policy.
	HashKey string
	// Locality is preferred as long as it has an endpoint that may be used and was
	// not tried. What is empty in it stands for any: a region alone prefers all of
	// its zones. The zero value prefers none.
	Locality balancer.Locality
	// Priority is discovery.PriorityHigh to count against the limits of that
	// priority; the zero value leaves it to the route.
	Priority discovery.RoutingPriority
}

type optionsKey struct{}

// WithOptions returns a context whose calls have these options, in place of
// those that ctx has. They must not be changed afterwards.
func WithOptions(ctx context.Context, o CallOptions) context.Context {
	return context.WithValue(ctx, optionsKey{}, &o)
}

// optionsOf is the options of a context, nil without any.
func optionsOf(ctx context.Context) *CallOptions {
	o, _ := ctx.Value(optionsKey{}).(*CallOptions)
	return o
}

// keyed reports whether the application gives the key that is hashed.
func (o *CallOptions) keyed() bool { return o != nil && o.HashKey != "" }

// controlPrefix begins the names of Envoy's headers, all of them.
const controlPrefix = "x-envoy-"

// timeoutControl is the header that has the timeout of a call, see controlTimeout.
const timeoutControl = "x-envoy-upstream-rq-timeout-ms"

// controls are the request headers of Envoy's router by which a caller controls
// how its call is retried, and how long an attempt may take.
var controls = [...]struct {
	name  string
	apply func(o *CallOptions, value string)
}{
	{"x-envoy-retry-on", func(o *CallOptions, v string) { o.RetryOn |= knownConditions(v) }},
	{"x-envoy-retry-grpc-on", func(o *CallOptions, v string) { o.RetryOn |= knownConditions(v) }},
	{"x-envoy-max-retries", func(o *CallOptions, v string) {
		if n, err := strconv.ParseUint(v, 10, 32); err == nil {
			o.MaxRetries = new(uint32(n))
		}
	}},
	{"x-envoy-retriable-status-codes", func(o *CallOptions, v string) {
		for code := range strings.SplitSeq(v, ",") {
			if n, err := strconv.ParseUint(strings.TrimSpace(code), 10, 16); err == nil {
				o.RetriableStatusCodes = append(slices.Clip(o.RetriableStatusCodes), int(n))
			}
		}
	}},
	{"x-envoy-retriable-header-names", func(o *CallOptions, v string) {
		for name := range strings.SplitSeq(v, ",") {
			if name = strings.TrimSpace(name); name != "" {
				o.RetriableHeaderNames = append(slices.Clip(o.RetriableHeaderNames), name)
			}
		}
	}},
	{"x-envoy-hedge-on-per-try-timeout", func(o *CallOptions, v string) {
		switch v {
		case "true":
			o.Hedge = &retry.Hedge{OnPerTryTimeout: true}
		case "false":
			o.Hedge = &retry.Hedge{}
		}
	}},
	{"x-envoy-upstream-rq-per-try-timeout-ms", func(o *CallOptions, v string) { o.PerTryTimeout = shorter(o.PerTryTimeout, milliseconds(v)) }},
}

// knownConditions reads the conditions of a header. Unlike in configuration,
// what is unknown is passed over, as by Envoy: the caller may be ahead of us.
func knownConditions(v string) retry.Conditions {
	var set retry.Conditions
	for name := range strings.SplitSeq(v, ",") {
		if c, err := retry.ParseConditions(name); err == nil {
			set |= c
		}
	}
	return set
}

// milliseconds is 0, which is no limit, for what cannot be read.
func milliseconds(v string) time.Duration {
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Millisecond
}

// Control takes the headers by which the application controls this call out of
// h, which is what will be sent: no next hop sees them. The adapter calls it in
// Routed when there is a header of which [IsControl] is true. Values that cannot
// be read are as none.
func (c *Call) Control(h route.HeaderMap) {
	for _, control := range controls {
		values := h.Values(control.name)
		if len(values) == 0 {
			continue
		}
		control.apply(c.own(), strings.TrimSpace(values[0]))
		h.Del(control.name)
	}
	if values := h.Values(timeoutControl); len(values) > 0 {
		c.controlTimeout(milliseconds(strings.TrimSpace(values[0])))
		h.Del(timeoutControl)
	}
}

// controlTimeout bounds the call by a header, whose time begins as Envoy's does: with the
// router, behind the filters. As there 0 is no limit, yet the route's stays, and so does
// the application's own.
func (c *Call) controlTimeout(limit time.Duration) {
	if o := c.own(); limit > 0 && o.Timeout >= 0 {
		o.Timeout = shorter(o.Timeout, c.now.Sub(c.Observed.Start)+limit)
	}
}

// IsControl reports whether a header is one by which an application controls its
// own call, see [Call.Control]. A server removes them from what arrives: whoever
// sent it does not control what is called on its behalf. It is quick for the
// names of others.
func IsControl(name string) bool {
	if len(name) <= len(controlPrefix) || name[0]|0x20 != 'x' || !strings.EqualFold(name[:len(controlPrefix)], controlPrefix) {
		return false
	}
	for i := range controls {
		if strings.EqualFold(controls[i].name, name) {
			return true
		}
	}
	return strings.EqualFold(timeoutControl, name)
}

// own returns the call's options to be changed: those of a context are shared.
func (c *Call) own() *CallOptions {
	if !c.ownOptions {
		o := CallOptions{}
		if c.options != nil {
			o = *c.options
		}
		c.options, c.ownOptions = &o, true
	}
	return c.options
}

// customize applies the options of the call, within what the route allows.
func (c *Call) customize() {
	o := c.options
	if o == nil {
		return
	}
	c.minTime = max(c.minTime, o.MinTime)
	if o.Locality != (balancer.Locality{}) {
		c.pick.Prefer = &o.Locality
	}
	if o.Priority == discovery.PriorityHigh {
		c.routingPriority = discovery.PriorityHigh
	}
	if o.Hedge != nil {
		c.hedge = o.Hedge
	}
	p := *c.policy
	if n := o.MaxRetries; n != nil {
		p.MaxRetries = min(p.MaxRetries, *n)
	}
	p.On |= o.RetryOn
	if t := o.PerTryTimeout; t > 0 && (p.PerTryTimeout <= 0 || t < p.PerTryTimeout) {
		p.PerTryTimeout = t
	}
	if len(o.RetriableStatusCodes) > 0 {
		p.RetriableStatusCodes = slices.Concat(p.RetriableStatusCodes, o.RetriableStatusCodes)
	}
	if len(o.RetriableHeaderNames) > 0 {
		c.headers = withNames(c.headers, o.RetriableHeaderNames)
	}
	c.policy = &p
}

// withNames adds headers that need only be present.
func withNames(h *discovery.RetryHeaders, names []string) *discovery.RetryHeaders {
	var all discovery.RetryHeaders
	if h != nil {
		all = *h
	}
	all.Response = slices.Clip(all.Response)
	for _, name := range names {
		all.Response = append(all.Response, discovery.HeaderMatch{
			Name: strings.ToLower(name), Kind: discovery.HeaderPresent, Present: true,
		})
	}
	return &all
}
