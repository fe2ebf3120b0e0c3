package pipeline

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/retry"
)

// keptKey is where a context has what is kept of the targets that were looked at.
type keptKey struct{}

// kept are targets that were looked at. Safe for concurrent use.
type kept struct {
	mu    sync.Mutex
	found map[keptTarget]peeked // guarded by mu; nil after the release
}

type keptTarget struct {
	outbound *Outbound
	name     string
}

// peeked is what was found of a target.
type peeked struct {
	config  *Config
	release func()
	err     error
}

// Keeping returns a context in which [Outbound.Peek] asks for each target once, and
// finds the same until release, which must be called: for many questions about
// what does not change.
func Keeping(ctx context.Context) (_ context.Context, release func()) {
	k := &kept{found: make(map[keptTarget]peeked)}
	return context.WithValue(ctx, keptKey{}, k), func() {
		k.mu.Lock()
		all := k.found
		k.found = nil
		k.mu.Unlock()
		for _, p := range all {
			p.release()
		}
	}
}

// Caller is what this process is called, which routes and hashes may look at; "" if that
// is not known.
func (o *Outbound) Caller() string { return o.upstreams.Name() }

// Peek returns the configuration of a target, to look at: the one in force, or of
// a target that is not called one that is followed until release, which must be
// called. The wait and the errors are those of [Target.Config].
func (o *Outbound) Peek(ctx context.Context, name string) (config *Config, release func(), err error) {
	k, keeping := ctx.Value(keptKey{}).(*kept)
	if !keeping {
		return o.peek(ctx, name)
	}
	of := keptTarget{o, name}
	k.mu.Lock()
	p, ok := k.found[of]
	k.mu.Unlock()
	if ok {
		return p.config, func() {}, p.err
	}
	p.config, p.release, p.err = o.peek(ctx, name)
	if errors.Is(p.err, discovery.ErrNotFound) {
		p.release = func() {}
	} else if p.err != nil {
		return nil, nil, p.err
	}
	k.mu.Lock()
	_, ok = k.found[of]
	if ok = ok || k.found == nil; !ok {
		k.found[of] = p
	}
	k.mu.Unlock()
	if ok { // somebody else was faster, or nothing is kept any more
		return p.config, p.release, p.err
	}
	return p.config, func() {}, p.err
}

func (o *Outbound) peek(ctx context.Context, name string) (config *Config, release func(), err error) {
	o.mu.RLock()
	t := o.targets[name]
	closed := o.closed
	o.mu.RUnlock()
	if t == nil && !closed {
		spare := o.upstreams.Spare()
		apart := NewOutbound(o.source, spare, &observe.Hooks{})
		release = func() {
			apart.Close()
			spare.Close()
		}
		if config, err = apart.Target(name).Config(ctx); err != nil {
			release()
			return nil, nil, err
		}
		return o.withRunning(config), release, nil
	}
	if t == nil {
		t = o.Target(name) // which says that the mesh is closed
	}
	if config, err = t.Config(ctx); err != nil {
		return nil, nil, err
	}
	return config, func() {}, nil
}

// withRunning is a configuration with those of its clusters that are called for
// another target, so that what is seen of them is their state.
func (o *Outbound) withRunning(config *Config) *Config {
	shown := *config
	shown.Clusters = maps.Clone(config.Clusters)
	for name := range shown.Clusters {
		if running := o.upstreams.Running(name); running != nil {
			shown.Clusters[name] = running
		}
	}
	return &shown
}

// Err is why no call can be made by the configuration, nil if calls can.
func (c *Config) Err() error { return c.filtersErr }

// Plan is what bounds and repeats a call: what its route says, within which the
// application has its own say.
type Plan struct {
	Protocol observe.Protocol
	// Limit is for the whole call, 0 without a limit. MinTime must be left for an
	// attempt to begin.
	Limit, MinTime time.Duration
	Policy         retry.Policy
	// Hedge is nil without hedging.
	Hedge    *retry.Hedge
	Priority discovery.RoutingPriority
	// Pick is by what the endpoint of the first attempt is picked. Keyed is whether the
	// application gives the key that is hashed.
	// Hashes are what the call is hashed to in the clusters of an aggregate that differ.
	Pick   balancer.PickInfo
	Keyed  bool
	Hashes upstream.LeafHashes
	// Answer is what the call gets because of its session, nil if it is forwarded.
	Answer *filter.Answer
	// Late is why nothing would be sent: too little of the call's time is left. Passed
	// is whether none was given.
	Late   error
	Passed bool
	// Ends is when the time is over that the application gives, which includes what
	// delays the call before it is forwarded; zero if it gives none.
	Ends time.Time
}

// Planned is a call that is not made.
type Planned struct {
	Protocol observe.Protocol
	// Decision forwards it to a cluster of the configuration, Pin is the endpoint of its
	// session.
	Decision *route.Decision
	Pin      filter.Pin
	Request  *route.Request
	// Headers are those of Request: what the application controls the call by is taken
	// out of them. Routed is called next and makes them what would be sent.
	Headers route.HeaderMap
	Routed  func()
}

// Plan returns the plan of a call. It does what [Call.Run] does, in its order.
func (c *Config) Plan(ctx context.Context, p *Planned) Plan {
	call := &Call{
		Decision: *p.Decision, cluster: c.Clusters[p.Decision.ClusterName(p.Request)], now: time.Now(),
		options: optionsOf(ctx), filtered: &filter.Exchange{Pin: p.Pin},
	}
	call.Observed.Protocol, call.Observed.Start = p.Protocol, call.now
	call.plan(p.Request)
	ends := call.ownEnd()
	if deadline, ok := ctx.Deadline(); ok && (ends.IsZero() || deadline.Before(ends)) {
		ends = deadline
	}
	call.steer(p.Request)
	call.Control(p.Headers)
	p.Routed()
	call.customize()
	answer := call.pin()
	call.bound(ctx, c)
	defer call.timeout.Stop()
	plan := Plan{
		Protocol: p.Protocol, Limit: call.limit(c), MinTime: call.minTime, Policy: *call.policy, Hedge: call.hedge,
		Priority: call.routingPriority,
		Pick:     call.pick, Keyed: call.options.keyed(), Answer: answer, Passed: call.passed(), Ends: ends,
	}
	if call.hashes != nil {
		plan.Hashes = *call.hashes
	}
	if left, late := call.late(0); late {
		plan.Late = call.tooLate(left.Round(time.Millisecond)) // the same, however long explaining takes
	}
	return plan
}
