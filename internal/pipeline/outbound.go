// Package pipeline takes one outbound call from its target's name to its
// outcome: it pins the configuration, routes, runs filters, bounds the time,
// admits, picks and tries again. It knows no protocol: an [Adapter] per
// protocol makes the attempts.
//
// The order of the layers, outermost first: observe the call; pin the
// configuration; route; filters; overall timeout; retry; limits and error-rate
// breaker; pick; per-try timeout; observe the attempt. "Above" is nearer the
// application.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/filter/cors"
	"github.com/inboardmesh/inboard/internal/filter/fault"
	"github.com/inboardmesh/inboard/internal/filter/session"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/internal/watch"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
)

const (
	// configWait bounds the wait for the first configuration of a target when
	// the caller has no deadline of its own. It is the time after which a
	// resource counts as absent (gRFC A57).
	configWait = 15 * time.Second
	// unknownLifetime is how long an unused target that the control plane does
	// not know is remembered.
	unknownLifetime = 10 * time.Minute
)

// errForgotten is the state of a target that nobody used. Whoever holds it still
// goes on to its successor.
var errForgotten = errors.New("forgotten, as it was not used")

// Outbound holds the targets that this process calls. Safe for concurrent use.
type Outbound struct {
	source    discovery.Source
	upstreams *upstream.Manager
	hooks     *observe.Hooks
	faults    fault.Faults
	mirrors   mirrors

	mu      sync.RWMutex
	targets map[string]*Target // guarded by mu
	closed  bool               // guarded by mu
	sweeper *time.Timer        // guarded by mu

	// life ends with Stop, and beside counts the goroutines that no caller waits for:
	// Close does.
	life    context.Context //nolint:containedctx // it bounds what no caller's context does
	stop    context.CancelFunc
	beside  sync.WaitGroup
	lasting lasting
}

// NewOutbound returns an Outbound without targets. It does not own source and
// upstreams.
func NewOutbound(source discovery.Source, upstreams *upstream.Manager, hooks *observe.Hooks) *Outbound {
	o := &Outbound{source: source, upstreams: upstreams, hooks: hooks, targets: make(map[string]*Target)}
	o.life, o.stop = context.WithCancel(context.Background())
	o.lasting.life, o.faults.Closing = o.life, o.life.Done()
	return o
}

// Target returns the destination with this name ("host:port"), subscribing to
// it on first use.
func (o *Outbound) Target(name string) *Target {
	o.mu.RLock()
	t := o.targets[name]
	o.mu.RUnlock()
	if t != nil {
		return t
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if t := o.targets[name]; t != nil {
		return t
	}
	t = &Target{name: name, out: o}
	t.used.Store(time.Now().Unix())
	if o.closed {
		t.state.Store(targetState{err: upstream.ErrClosed})
		return t
	}
	o.targets[name] = t
	if o.sweeper == nil {
		o.sweeper = time.AfterFunc(unknownLifetime, o.sweep)
	}
	// The source never notifies on the caller's goroutine, so holding the lock
	// here cannot deadlock; it keeps Close from missing the subscription.
	t.stop = o.source.WatchTarget(name, t.update)
	return t
}

// buildFilter makes a filter that runs on the way out.
func (o *Outbound) buildFilter(config discovery.FilterConfig) (filter.Filter, error) {
	switch config := config.(type) {
	case *discovery.Fault:
		return o.faults.Filter(config), nil
	case *discovery.CORS:
		return cors.New(config), nil
	case *discovery.StatefulSession:
		return session.New(config), nil
	}
	return nil, errors.New("not supported on the way out")
}

// TargetBytes is Target for a name that was put together for this call: to find a
// target that is there costs no allocation.
func (o *Outbound) TargetBytes(name []byte) *Target {
	o.mu.RLock()
	t := o.targets[string(name)]
	o.mu.RUnlock()
	if t != nil {
		return t
	}
	return o.Target(string(name))
}

// sweep forgets unknown targets that nobody asked for in a while.
func (o *Outbound) sweep() {
	var gone []*Target
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return
	}
	limit := time.Now().Add(-unknownLifetime).Unix()
	for name, t := range o.targets {
		if t.config.Load() == nil && !t.watched.Load() && t.used.Load() < limit {
			delete(o.targets, name)
			gone = append(gone, t)
		}
	}
	o.sweeper = nil
	if len(o.targets) > 0 {
		o.sweeper = time.AfterFunc(unknownLifetime, o.sweep)
	}
	o.mu.Unlock()
	for _, t := range gone {
		t.close(errForgotten)
	}
}

// Stop ends all waits of calls that are not for a peer, and keeps them from making
// further attempts: they fail with [upstream.ErrClosed]. It is the first part of Close.
func (o *Outbound) Stop() {
	o.stop()
	o.upstreams.Ending()
}

// Source is what this process is called by hash policies that look at who calls, "" if
// that is not known.
func (o *Outbound) Source() string { return o.upstreams.Name() }

// Closed reports whether the mesh is being closed, or has been.
func (o *Outbound) Closed() bool { return o.life.Err() != nil }

// Close ends the calls whose response is open, and the copies of requests that are
// under way, and waits for them; it unsubscribes from every target. Later calls fail.
// Those that wait for a peer end with its connections.
func (o *Outbound) Close() {
	o.Stop()
	o.mirrors.close()
	o.mu.Lock()
	o.closed = true
	targets := o.targets
	o.targets = nil
	if o.sweeper != nil {
		o.sweeper.Stop()
	}
	o.mu.Unlock()
	for _, t := range targets {
		t.close(upstream.ErrClosed)
	}
	o.lasting.close()
	o.beside.Wait()
}

// enter counts a goroutine in, unless the mesh was closed. It is followed by leave.
func (o *Outbound) enter() bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.closed {
		return false
	}
	o.beside.Add(1)
	return true
}

func (o *Outbound) leave() { o.beside.Done() }

// Target is one destination. Safe for concurrent use.
type Target struct {
	name string
	out  *Outbound
	stop func()

	// config is the configuration in force, nil while there is none. It is the
	// fast road to what state says.
	config atomic.Pointer[Config]
	state  watch.Value[targetState]
	// changing is held while either changes; over is set when that is for good, and
	// guarded by it. An update may be on its way when the source is told to stop.
	changing sync.Mutex
	over     bool
	used     atomic.Int64 // Unix seconds of the last wait
	// watched keeps it from being forgotten: somebody waits for its changes.
	watched atomic.Bool
}

type targetState struct {
	config *Config
	err    error
}

// Config is one version of a target's configuration, compiled. A call loads it
// once and keeps it until it ends.
type Config struct {
	Target   *discovery.Target
	Routes   *route.Table
	Clusters map[string]*upstream.Cluster

	// filters are nil if there are none, or if they cannot be run: then
	// filtersErr says why, and every call fails.
	filters    *filter.Chain
	filtersErr error
}

func (c *Config) compileFilters(build filter.Build) {
	c.filters, c.filtersErr = filter.Compile(c.Target.Listener.Filters, c.Target.Routes, build)
}

// Name is the target's name.
func (t *Target) Name() string { return t.name }

// update takes over what the source published. It runs on the source's
// goroutine, off the way of any request.
func (t *Target) update(u discovery.Update[*discovery.Target]) {
	t.changing.Lock()
	defer t.changing.Unlock()
	if t.over {
		return
	}
	old := t.config.Load()
	switch {
	case u.Value == nil:
		t.config.Store(nil)
		t.state.Store(targetState{err: u.Err})
	case old != nil && old.Target == u.Value:
		return // only the ambient error changed
	default:
		next := &Config{Target: u.Value}
		switch {
		case old == nil || old.Target.Routes != u.Value.Routes:
			next.Routes = route.Compile(u.Value.Routes)
			next.compileFilters(t.out.buildFilter)
		case old.Target.Listener != u.Value.Listener:
			next.Routes = old.Routes
			next.compileFilters(t.out.buildFilter)
		default:
			next.Routes, next.filters, next.filtersErr = old.Routes, old.filters, old.filtersErr
		}
		renewed := old != nil && t.out.upstreams.Renew(old.Clusters, u.Value.Clusters)
		if renewed {
			next.Clusters = old.Clusters
		} else {
			next.Clusters = t.out.upstreams.Hold(u.Value.Clusters)
		}
		t.config.Store(next)
		t.state.Store(targetState{config: next})
		if renewed {
			return
		}
	}
	if old != nil {
		// Only now, so that a cluster in both is never without a holder.
		t.out.upstreams.Release(old.Clusters)
	}
}

func (t *Target) close(err error) {
	t.stop()
	t.changing.Lock()
	t.over = true
	old := t.config.Swap(nil)
	t.state.Store(targetState{err: err})
	t.changing.Unlock()
	if old != nil {
		t.out.upstreams.Release(old.Clusters)
	}
}

// Configured reports whether there is a configuration, so that Config does not wait.
func (t *Target) Configured() bool { return t.config.Load() != nil }

// Config returns the configuration in force. Before the first has arrived it
// waits, until the context ends or, without a deadline, for 15 s. A name that
// the control plane does not know fails at once with [discovery.ErrNotFound], and one
// whose configuration cannot be used with [discovery.ErrUnusable].
func (t *Target) Config(ctx context.Context) (*Config, error) {
	if c := t.config.Load(); c != nil {
		return c, nil
	}
	t.used.Store(time.Now().Unix())
	if o := optionsOf(ctx); o != nil && o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Timeout)
		defer cancel()
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, configWait)
		defer cancel()
	}
	for {
		state, changed := t.state.Watch()
		switch {
		case state.config != nil:
			return state.config, nil
		case errors.Is(state.err, discovery.ErrNotFound), errors.Is(state.err, upstream.ErrClosed):
			return nil, state.err
		case errors.Is(state.err, discovery.ErrUnusable):
			return nil, fmt.Errorf("no configuration: %w", state.err)
		case errors.Is(state.err, errForgotten):
			return t.out.Target(t.name).Config(ctx)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if state.err == nil {
				return nil, fmt.Errorf("no configuration yet: %w", context.Cause(ctx))
			}
			return nil, fmt.Errorf("no configuration: %w (%w)", state.err, context.Cause(ctx))
		}
	}
}

// Watch returns the configuration in force, nil without one, and a channel that
// is closed when it changes. A target that was watched is followed until Close.
func (t *Target) Watch() (*Config, <-chan struct{}) {
	t.watched.Store(true)
	state, changed := t.state.Watch()
	return state.config, changed
}

// ConfigError says what it means for a call that there is no configuration.
func (t *Target) ConfigError(ctx context.Context, err error) *meshfail.Error {
	kind := outcome.NoConfig
	switch {
	case errors.Is(err, discovery.ErrNotFound):
		kind = outcome.UnknownHost
	case errors.Is(err, upstream.ErrClosed):
		kind = outcome.Closed
	case errors.Is(ctx.Err(), context.Canceled):
		kind = outcome.Canceled
	}
	return &meshfail.Error{Kind: kind, Target: t.name, Err: err}
}
