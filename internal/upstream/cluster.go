package upstream

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/retry"
)

// Cluster is one running cluster. Safe for concurrent use.
type Cluster struct {
	name    string
	manager *Manager
	set     *balancer.Set
	gates   [2]*breaker.Gate

	// holders is guarded by manager.mu.
	holders int

	sweeper sweeper
	// tracked is guarded by applyMu; the capacities that were reported, or nil.
	tracked   [2]*observe.Capacity
	reweigher reweigher

	// left is whether nobody holds the cluster any more.
	left atomic.Bool

	// connected is whether there was ever a connection for calls, checked whether
	// an active health check has ever ended.
	connected, checked atomic.Bool

	// state is replaced as a whole by apply.
	state atomic.Pointer[clusterState]
	// generation counts the changes after which connections must be new ones.
	generation atomic.Uint64

	// load counts calls for the control plane; nil while it does not ask.
	load atomic.Pointer[loadTable]

	// names resolves the names of a cluster of type DNS, nil for others. It is
	// replaced under applyMu.
	names atomic.Pointer[resolution]

	// applyMu lets one update run at a time.
	applyMu sync.Mutex
	// secrets is guarded by applyMu.
	secrets discovery.SecretSources
}

type clusterState struct {
	config    *discovery.Cluster
	endpoints *discovery.Assignment
	err       error
	tls       *clientTLS
	// matches are the TLS of some endpoints, as config.TLSMatches are.
	matches   []*clientTLS
	transport *transports
	errorRate *breaker.ErrorRate
	throttle  *retry.Throttle // nil without one
	leaves    []*Cluster      // of an aggregate, in order
	local     *discovery.Assignment
	secrets   discovery.Secrets
}

// is reports whether the state is what would come of applying these, so that there is
// nothing to do. After an error everything is to be applied anew.
func (s *clusterState) is(r *discovery.ClusterResult, leaves []*Cluster, local *discovery.Assignment) bool {
	return s.err == nil && r.Err == nil && s.config != nil && s.config == r.Cluster && s.endpoints == r.Endpoints &&
		(s.local == local || s.config.Balancer.ZoneAware == nil) && slices.Equal(s.leaves, leaves) && maps.Equal(s.secrets, r.Secrets)
}

func newCluster(m *Manager, name string) *Cluster {
	c := &Cluster{name: name, manager: m}
	c.set = balancer.NewSet(balancer.Config{}, c.arrive)
	for i := range c.gates {
		c.gates[i] = breaker.NewGate(breaker.DefaultLimits)
	}
	c.sweeper.cluster, c.reweigher.cluster = c, c
	c.state.Store(&clusterState{err: errors.New("no configuration yet")})
	return c
}

// apply takes over a new configuration, with the leaves of an aggregate and the
// endpoints of the cluster that the caller is of. Parts that did not change, which are
// the same pointers, cost nothing. It reports whether there was anything to do.
func (c *Cluster) apply(r discovery.ClusterResult, leaves []*Cluster, local *discovery.Assignment) (applied bool) {
	var ended []balancer.Ejection
	defer func() { c.ejectionsChanged(ended) }() // without the lock
	c.applyMu.Lock()
	defer c.applyMu.Unlock()
	old := c.state.Load()
	if old.is(&r, leaves, local) {
		return false
	}
	c.left.Store(false)
	if r.Err != nil || r.Cluster == nil {
		if r.Err == nil {
			r.Err = errors.New("no configuration")
		}
		next := *old
		next.err, next.leaves = r.Err, nil // which nobody holds for it any more
		c.state.Store(&next)
		return true
	}
	next := &clusterState{
		config: r.Cluster, endpoints: r.Endpoints, leaves: leaves, local: local, secrets: r.Secrets,
		tls: old.tls, matches: old.matches, transport: old.transport, errorRate: old.errorRate, throttle: old.throttle,
	}
	if next.endpoints == nil {
		next.endpoints = &discovery.Assignment{Name: r.Cluster.Name}
	}
	c.secrets.Update(r.Secrets)
	// After an error everything is applied anew: what is there may be half of it.
	changed := old.config != next.config || old.err != nil
	if changed {
		c.applyLimits(next.config)
		next.errorRate = c.nextErrorRate(old, next.config)
		next.throttle = nextThrottle(old.throttle, next.config.RetryThrottle)
		tls, matches, err := c.clusterTLS(next.config)
		if err != nil {
			// A cluster without its identity is not usable; plaintext would be
			// a way round its policy (gRFC A29).
			next.err = fmt.Errorf("cluster %q: %w", c.name, err)
		} else {
			next.tls, next.matches, next.transport = tls, matches, newTransports(c.manager)
		}
	}
	handsOver := len(old.leaves) > 0 && len(leaves) == 0 && next.err == nil
	if handsOver {
		// It was an aggregate and is to have endpoints itself: calls go to the leaves until
		// they are there.
		interim := *next
		interim.leaves = old.leaves
		c.state.Store(&interim)
	} else {
		c.state.Store(next)
	}
	if changed && old.config != nil {
		c.reconfigure(connectionsDiffer(old.config, next.config))
	}
	if next.err != nil {
		return true
	}
	config := c.zoneAware(next.config.Balancer, local)
	if changed || old.endpoints != next.endpoints || config.ZoneAware != nil && old.local != local {
		ended = c.updateEndpoints(next)
	}
	if handsOver {
		c.state.Store(next)
	}
	c.reweigher.follow(&next.config.Balancer)
	ended = append(ended, c.setOutlier(next.config.Outlier)...)
	if !c.manager.idle {
		c.checkHealth(next.config.HealthCheck)
	}
	c.track(next.config.TrackRemaining)
	c.followLoad(next.config.LoadReports)
	for e := range c.Made {
		e.followBreaker()
	}
	return true
}

// updateEndpoints takes over the endpoints of a state and returns the ejections that
// end with those that are gone. The caller holds applyMu.
func (c *Cluster) updateEndpoints(state *clusterState) []balancer.Ejection {
	c.followNames(state)
	config := c.zoneAware(state.config.Balancer, state.local)
	if state.endpoints.OverprovisioningFactor != 0 {
		config.OverprovisioningFactor = state.endpoints.OverprovisioningFactor
	}
	localities := c.names.Load().localities(state.endpoints.Localities)
	_, removed := c.set.Update(config, config.Subsetting.Choose(c.manager.options.client(), localities))
	for _, h := range removed {
		c.endpoint(h).drain() // even if it is new: a call may have picked it a moment ago
	}
	return ejectedAmong(removed)
}

// reconfigure makes the endpoints follow a new configuration, with new
// connections if the old ones must not be used any more.
func (c *Cluster) reconfigure(renew bool) {
	if renew {
		c.generation.Add(1)
	}
	for e := range c.Made {
		if renew {
			e.renew()
		} else {
			e.reconfigure()
		}
	}
}

func (c *Cluster) applyLimits(config *discovery.Cluster) {
	for i, gate := range c.gates {
		gate.SetLimits(config.Limits[i])
		if b := config.RetryBudget[i]; b != nil {
			gate.SetRetryBudget(b.Percent, b.MinConcurrency, true)
		} else {
			gate.SetRetryBudget(0, 0, false)
		}
	}
}

// nextErrorRate keeps the breaker, and what it has counted, while its settings
// stay the same.
func (c *Cluster) nextErrorRate(old *clusterState, config *discovery.Cluster) *breaker.ErrorRate {
	if config.Breaker == nil {
		return nil
	}
	if old.errorRate != nil {
		old.errorRate.SetSettings(*config.Breaker)
		return old.errorRate
	}
	hooks := c.manager.options.Hooks
	return breaker.NewErrorRate(c.name, *config.Breaker, func(from, to breaker.State) {
		if hooks.BreakerChanged != nil {
			hooks.BreakerChanged(observe.BreakerEvent{Cluster: c.name, From: from.String(), To: to.String()})
		}
	})
}

// nextThrottle keeps the throttle, and what it has counted, while its settings
// stay the same.
func nextThrottle(old *retry.Throttle, settings *retry.ThrottleSettings) *retry.Throttle {
	switch {
	case settings == nil:
		return nil
	case old != nil && old.Settings() == *settings:
		return old
	}
	return retry.NewThrottle(*settings)
}

// drain lets idle connections go; calls in flight end where they are.
func (c *Cluster) drain() {
	var ended []balancer.Ejection
	defer func() { c.ejectionsChanged(ended) }() // without the lock
	c.applyMu.Lock()
	defer c.applyMu.Unlock()
	c.left.Store(true)
	c.reweigher.stop()
	c.stopNames()
	ended = c.setOutlier(nil)
	c.track([2]bool{})
	for e := range c.Endpoints {
		e.drain()
	}
	c.set.Changed() // for calls that wait in vain from now on
}

func (c *Cluster) close() {
	var ended []balancer.Ejection
	defer func() { c.ejectionsChanged(ended) }() // without the lock
	c.applyMu.Lock()
	defer c.applyMu.Unlock()
	c.reweigher.stop()
	c.stopNames()
	ended = c.setOutlier(nil)
	c.track([2]bool{})
	for e := range c.Endpoints {
		e.close()
	}
}

// Name is the cluster's name.
func (c *Cluster) Name() string { return c.name }

// Generation changes when the cluster's settings ask for new connections.
func (c *Cluster) Generation() uint64 { return c.generation.Load() }

// Err is why the cluster cannot be used, or nil.
func (c *Cluster) Err() error { return c.state.Load().err }

// Config is the configuration in force. It is nil only if Err is not.
func (c *Cluster) Config() *discovery.Cluster { return c.state.Load().config }

// Gate holds the limits of a routing priority.
func (c *Cluster) Gate(p discovery.RoutingPriority) *breaker.Gate { return c.gates[p] }

// ErrorRate is the cluster's error-rate breaker, nil if it has none.
func (c *Cluster) ErrorRate() *breaker.ErrorRate { return c.state.Load().errorRate }

// Throttle is the cluster's throttle of retries, nil if it has none.
func (c *Cluster) Throttle() *retry.Throttle { return c.state.Load().throttle }

// Endpoints calls yield for every endpoint.
func (c *Cluster) Endpoints(yield func(*Endpoint) bool) {
	for h := range c.set.Hosts() {
		if !yield(c.endpoint(h)) {
			return
		}
	}
}

// Made calls yield for the endpoints that somebody has asked for: no other has
// connections, or anything to change.
func (c *Cluster) Made(yield func(*Endpoint) bool) {
	for h := range c.set.Hosts() {
		if e := made(h); e != nil && !yield(e) {
			return
		}
	}
}

// Pick chooses an endpoint, one whose breaker lets nothing pass only if there is no other.
func (c *Cluster) Pick(info balancer.PickInfo) (*Endpoint, error) {
	if config := c.Config(); config != nil && config.EndpointBreaker != nil {
		info.Refuses = Tripped
	}
	info.InFlight = c.inFlight()
	h, err := c.set.Pick(info)
	if err != nil {
		if r := c.names.Load(); r != nil {
			err = errors.Join(err, r.err())
		}
		return nil, err
	}
	return c.endpoint(h), nil
}

// inFlight is the requests in flight on all hosts, if the policy looks at that.
func (c *Cluster) inFlight() (n int64) {
	if config := c.Config(); config != nil && config.Balancer.HashBalanceFactor > 0 {
		for _, gate := range c.gates {
			n += int64(gate.Usage().Requests)
		}
	}
	return n
}

// Dropped draws drop_overloads, one after the other, and returns the category
// that drops this call (gRFC A27).
func (c *Cluster) Dropped() (category string, dropped bool) {
	endpoints := c.state.Load().endpoints
	if endpoints == nil {
		return "", false
	}
	for i := range endpoints.Drops {
		const million = 1_000_000
		if rand.Uint32N(million) < endpoints.Drops[i].PerMillion {
			c.CountDrop(endpoints.Drops[i].Category)
			return endpoints.Drops[i].Category, true
		}
	}
	return "", false
}

// connectionsDiffer reports whether connections made under one configuration
// must not carry calls under the other.
func connectionsDiffer(a, b *discovery.Cluster) bool {
	return a.Protocol != b.Protocol || !a.TLS.Equal(b.TLS)
}
