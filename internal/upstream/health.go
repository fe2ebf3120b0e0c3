package upstream

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/health"
	"github.com/inboardmesh/inboard/observe"
)

// checkHealth makes all endpoints follow a configuration of active health checks;
// nil ends them.
func (c *Cluster) checkHealth(config *health.Config) {
	for h := range c.set.Hosts() {
		if config != nil {
			c.endpoint(h).checks.follow(config)
		} else if e := made(h); e != nil {
			e.checks.follow(nil)
		}
	}
	if config == nil {
		c.checked.Store(false)
	}
}

// healthCheck checks one endpoint, for HTTP and gRPC alike. It has a timer, and a
// goroutine while a check is under way.
//
// An endpoint that is added to a cluster which is being checked is not used before
// it has passed a check, as in Envoy. Envoy does not use a cluster at all before
// the first check of its endpoints has ended; here they are used meanwhile, because
// calls may be waiting for them.
type healthCheck struct {
	endpoint *Endpoint

	mu sync.Mutex
	// config is guarded by mu; nil while the endpoint is not checked.
	config  *health.Config
	special *balancer.EndpointCheck // guarded by mu; how config applies to the endpoint
	tracker health.Tracker          // guarded by mu
	timer   *time.Timer             // guarded by mu
	// run counts the times that the configuration changed. What a check of an
	// earlier one found is not counted.
	run uint64 // guarded by mu
	// cancel ends the check under way; nil without one.
	cancel context.CancelFunc // guarded by mu
	// kept is the connection of the last check, for the next one; nil while a check
	// is under way.
	kept checkConn // guarded by mu
	// down is whether it was told that the endpoint is not well.
	down bool // guarded by mu
}

// begin begins with an endpoint that is new in its cluster. Nobody picks it yet.
func (h *healthCheck) begin() {
	e := h.endpoint
	state := e.cluster.state.Load()
	if state.config == nil || state.config.HealthCheck == nil || !e.cluster.checked.Load() {
		return
	}
	if special := e.host.Endpoint().Check; special != nil && special.Disabled {
		return
	}
	h.tracker.Start(health.Unhealthy)
	e.host.InitCheck(balancer.Failing)
	if state.config.HealthCheck.ExcludeNew {
		e.host.InitCheck(balancer.Excluded)
	}
}

// stop ends the checks of an endpoint that has left.
func (h *healthCheck) stop() { h.apply(nil, nil, true) }

// follow applies a configuration; nil ends the checks. What was found stays known
// from one configuration to the next.
func (h *healthCheck) follow(config *health.Config) {
	special := h.endpoint.host.Endpoint().Check
	if config != nil && special != nil && special.Disabled {
		config = nil
	}
	h.apply(config, special, false)
}

func (h *healthCheck) apply(config *health.Config, special *balancer.EndpointCheck, left bool) {
	h.mu.Lock()
	if config == h.config && sameCheck(special, h.special) {
		h.mu.Unlock()
		return
	}
	h.config, h.special = config, special
	h.run++
	if h.timer != nil {
		h.timer.Stop()
	}
	if h.cancel != nil {
		h.cancel()
	}
	kept := h.kept
	h.kept = nil
	var event observe.HealthEvent
	told := false
	if config != nil {
		h.laterLocked(config.First(rand.Uint64))
	} else {
		h.tracker = health.Tracker{}
		if !left { // or nobody picks it any more
			h.balanceLocked()
		}
		event, told = h.tellLocked()
	}
	h.mu.Unlock()
	if kept != nil {
		kept.close()
	}
	if told {
		h.changed(event)
	}
}

func sameCheck(a, b *balancer.EndpointCheck) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// laterLocked makes the next check of the run that is under way.
func (h *healthCheck) laterLocked(wait time.Duration) {
	run := h.run
	h.timer = time.AfterFunc(wait, func() {
		// After Close there is nothing to do.
		h.endpoint.cluster.manager.background(func() { h.check(run) })
	})
}

// check makes one check, counts what it found and sees to the next.
func (h *healthCheck) check(run uint64) {
	cluster := h.endpoint.cluster
	h.mu.Lock()
	if h.run != run {
		h.mu.Unlock()
		return
	}
	config := h.config
	p := probe{endpoint: h.endpoint, config: config, conn: h.kept}
	p.address, p.hostname = h.addressLocked()
	ctx, cancel := context.WithTimeout(cluster.manager.ctx, config.Timeout)
	defer cancel()
	h.kept, h.cancel = nil, cancel
	h.mu.Unlock()

	start := time.Now()
	found := p.run(ctx)
	if p.conn != nil && config.CloseConnection {
		p.conn.close()
		p.conn = nil
	}

	h.mu.Lock()
	if h.run != run || cluster.manager.ctx.Err() != nil { // nobody wants to know any more
		h.mu.Unlock()
		if p.conn != nil {
			p.conn.close()
		}
		return
	}
	h.kept, h.cancel = p.conn, nil
	cluster.checked.Store(true)
	change := h.tracker.Done(config, found.result)
	if found.excluded && found.result == health.Failure {
		h.tracker.Exclude()
	}
	h.balanceLocked()
	event, told := h.tellLocked()
	h.laterLocked(config.Next(change, cluster.connected.Load(), rand.Uint64))
	h.mu.Unlock()

	if hook := cluster.manager.options.Hooks.HealthChecked; hook != nil {
		hook(observe.HealthCheck{
			Cluster: cluster.name, Endpoint: h.endpoint.address, Result: found.result.String(),
			Err: found.err, Duration: time.Since(start),
		})
	}
	if told {
		h.changed(event)
	}
	if change.Success {
		if e, ok := cluster.set.Recovered(h.endpoint.host); ok {
			cluster.ejectionChanged(e)
		}
	}
}

// addressLocked is where to ask, and the endpoint's own name for that.
func (h *healthCheck) addressLocked() (address, hostname string) {
	host, port := splitAddress(h.endpoint.address)
	if h.config.Port != 0 {
		port = h.config.Port
	}
	if s := h.special; s != nil {
		hostname = s.Hostname
		if s.Host != "" {
			host = s.Host
		}
		if s.Port != 0 {
			port = s.Port
		}
	}
	return joinAddress(host, port), hostname
}

// balanceLocked tells the balancer what is known.
func (h *healthCheck) balanceLocked() {
	check := balancer.NotChecked
	switch h.tracker.State() {
	case health.Unknown:
	case health.Healthy:
		check = balancer.Passing
	case health.Reduced:
		check = balancer.PassingDegraded
	case health.Unhealthy:
		check = balancer.Failing
		if h.tracker.Excluded() {
			check = balancer.Excluded
		}
	}
	h.endpoint.cluster.set.SetCheck(h.endpoint.host, check)
}

// tellLocked returns what is to be told, without the lock, if that is news.
func (h *healthCheck) tellLocked() (event observe.HealthEvent, told bool) {
	down := h.tracker.State() == health.Unhealthy
	if down == h.down {
		return event, false
	}
	h.down = down
	return observe.HealthEvent{Cluster: h.endpoint.cluster.name, Endpoint: h.endpoint.address, Healthy: !down}, true
}

func (h *healthCheck) changed(event observe.HealthEvent) {
	if hook := h.endpoint.cluster.manager.options.Hooks.HealthChanged; hook != nil {
		hook(event)
	}
}

// Checked returns what the active health checks of the endpoint have found,
// [health.Unknown] before the first has ended; ok is false if it is not checked.
func (e *Endpoint) Checked() (found health.State, ok bool) {
	h := &e.checks
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.config == nil {
		return health.Unknown, false
	}
	if !h.tracker.Heard() && !h.tracker.Excluded() {
		return health.Unknown, true // whatever it counts as meanwhile
	}
	return h.tracker.State(), true
}

// FailNow makes the endpoint fail its active health checks at once, if it has any:
// it said so in the answer to a call (x-envoy-immediate-health-check-fail). It is
// used again when it has passed its checks.
func (e *Endpoint) FailNow() {
	h := &e.checks
	h.mu.Lock()
	if h.config == nil || !h.tracker.Exclude() {
		h.mu.Unlock()
		return
	}
	h.balanceLocked()
	event, told := h.tellLocked()
	h.mu.Unlock()
	if told {
		h.changed(event)
	}
}
