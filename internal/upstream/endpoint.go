package upstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
)

// An endpoint that could not be connected to is avoided while others can be
// reached, for a time that grows with each failure in a row. It is short enough
// that a process which restarts on its old address is found again at once.
const (
	firstBackoff  = 250 * time.Millisecond
	maxBackoff    = 10 * time.Second
	backoffFactor = 1.6
	backoffJitter = 0.2
)

// Endpoint is one address of a cluster with its connections. It lives as long
// as the address is in the cluster: from the first time that somebody asks for it,
// because of a hundred thousand addresses most are never called. Safe for concurrent
// use.
type Endpoint struct {
	cluster *Cluster
	host    *balancer.Host
	address string

	mu       sync.Mutex
	pools    map[poolKey]*pool // guarded by mu
	draining bool              // guarded by mu
	failures int               // guarded by mu; connects failed in a row
	retry    *time.Timer       // guarded by mu; makes the host reachable again
	trying   int               // guarded by mu; connections that HTTP is making
	doors    int               // guarded by mu; pools whose peer takes no requests

	// life ends when the endpoint has left its cluster, or the cluster ends.
	life context.Context
	end  context.CancelFunc

	checks healthCheck
	// errorRate is the endpoint's own breaker, nil without one.
	errorRate atomic.Pointer[endpointBreaker]
	// load counts its calls for the control plane, nil before the first that is
	// counted.
	load atomic.Pointer[Load]
}

// poolKey separates connections that must not be mixed.
type poolKey struct {
	protocol wireProtocol
	priority discovery.RoutingPriority
}

func newEndpoint(c *Cluster, h *balancer.Host) *Endpoint {
	e := &Endpoint{cluster: c, host: h, address: h.Endpoint().Address, pools: make(map[poolKey]*pool)}
	e.life, e.end = context.WithCancel(context.Background())
	e.checks.endpoint = e
	return e
}

// arrive makes the endpoint of a host that is new in the cluster, if it is needed
// before somebody calls it.
func (c *Cluster) arrive(h *balancer.Host) any {
	if config := c.Config(); config == nil || config.HealthCheck == nil {
		return nil
	}
	e := newEndpoint(c, h)
	e.checks.begin()
	return e
}

// endpoint is that of a host.
func (c *Cluster) endpoint(h *balancer.Host) *Endpoint {
	if e := made(h); e != nil {
		return e
	}
	e := h.Attach(newEndpoint(c, h)).(*Endpoint)
	// Only now, so that a change of the configuration finds the endpoint, or is found
	// here.
	e.followBreaker()
	return e
}

// made is the endpoint of a host, nil if nobody has asked for it yet.
func made(h *balancer.Host) *Endpoint {
	e, _ := h.Attached().(*Endpoint)
	return e
}

// Address is the endpoint's "host:port".
func (e *Endpoint) Address() string { return e.address }

// Host is the endpoint as the balancer knows it: Begin and End count the
// requests in flight.
func (e *Endpoint) Host() *balancer.Host { return e.host }

// Hostname is the endpoint's name, "" if it has none.
func (e *Endpoint) Hostname() string { return e.host.Endpoint().Hostname }

// Cluster is the cluster that the endpoint belongs to.
func (e *Endpoint) Cluster() *Cluster { return e.cluster }

// Draining reports whether the endpoint has left its cluster.
func (e *Endpoint) Draining() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.draining
}

// AfterLeaving calls f on a goroutine of its own when the endpoint has left its
// cluster, at once if it has, unless stop is called before.
func (e *Endpoint) AfterLeaving(f func()) (stop func() bool) { return context.AfterFunc(e.life, f) }

// ConnectFailed tells that a connection could not be made, and why. The endpoint is
// avoided for a while, and outlier detection counts one failure: for the connection,
// however many calls wait for it, or have given up to wait.
func (e *Endpoint) ConnectFailed(err error) {
	e.backOff()
	if !e.isOwnFault(err) {
		e.Report(&outcome.Outcome{Kind: outcome.ConnectFailure, Err: err})
	}
}

// exhausted are the errors of a process, or a machine, that cannot have one more
// connection to anybody.
var exhausted = [...]error{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM}

// isOwnFault reports whether a connection could not be made because of this process:
// it has no more sockets, its identity has not come or has expired, or the cluster's
// settings cannot be used.
func (e *Endpoint) isOwnFault(err error) bool {
	for _, own := range exhausted {
		if errors.Is(err, own) {
			return true
		}
	}
	state := e.cluster.state.Load()
	if state.err != nil {
		return true
	}
	t := state.tlsOf(e)
	return t != nil && t.identity != nil && t.own() == nil
}

// backOff tells the balancer to avoid the endpoint for a while.
func (e *Endpoint) backOff() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.retry != nil || e.draining {
		return
	}
	backoff := float64(firstBackoff)
	for range min(e.failures, 16) {
		backoff *= backoffFactor
	}
	backoff = min(backoff, float64(maxBackoff)) * (1 - backoffJitter + 2*backoffJitter*rand.Float64())
	e.failures++
	e.host.SetReachable(false)
	e.retry = time.AfterFunc(time.Duration(backoff), e.retryNow)
}

// retryNow ends a back-off. Where traffic waits for a connection, one is made.
func (e *Endpoint) retryNow() {
	e.mu.Lock()
	e.retry = nil
	e.host.SetReachable(e.trying == 0 && e.doors == 0)
	var pools []*pool
	if e.host.Standby() && !e.draining {
		pools = e.poolsLocked()
	}
	e.mu.Unlock()
	for _, p := range pools {
		p.reconnect()
	}
}

// connecting is for HTTP's connections while they are made; ended must be called. After
// one that failed, only who had it made waits for the next: the endpoint is avoided
// until it is known whether that fails, too. (gRPC's channels see to that themselves.)
func (e *Endpoint) connecting() (ended func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.trying++
	if e.failures > 0 {
		e.host.SetReachable(false)
	}
	connected := e.host.Connecting()
	return func() {
		connected()
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.trying--; e.trying == 0 && e.retry == nil {
			e.host.SetReachable(e.doors == 0) // connected, or a back-off has ended meanwhile
		}
	}
}

// Connected ends the back-off that ConnectFailed began.
func (e *Endpoint) Connected() {
	e.cluster.connected.Store(true)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reachableLocked()
}

func (e *Endpoint) reachableLocked() {
	e.failures = 0
	if e.retry != nil {
		e.retry.Stop()
		e.retry = nil
	}
	e.host.SetReachable(e.doors == 0)
}

// shut counts a pool more or less whose peer takes no requests: the endpoint is avoided
// while others can be reached.
func (e *Endpoint) shut(doors int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.doors += doors
	e.host.SetReachable(e.doors == 0 && e.trying == 0 && e.retry == nil)
}

// pool returns the connections of one protocol and priority.
func (e *Endpoint) pool(key poolKey) *pool {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.pools[key]
	if p == nil {
		p = newPool(e, key, e.draining)
		e.pools[key] = p
	}
	return p
}

// drain lets the connections go when their calls have ended. Calls that were
// routed here before still find their way.
func (e *Endpoint) drain() {
	e.checks.stop()
	e.mu.Lock()
	e.draining = true
	defer e.end() // without the lock
	e.reachableLocked()
	pools := e.poolsLocked()
	e.mu.Unlock()
	for _, p := range pools {
		p.drain()
	}
	e.errorRate.Load().leave()
}

// renew replaces the connections: new calls get new ones, made under the
// configuration of now.
func (e *Endpoint) renew() {
	e.mu.Lock()
	pools := e.poolsLocked()
	clear(e.pools)
	e.mu.Unlock()
	for _, p := range pools {
		p.drain()
	}
}

// reconfigure makes the connections follow the configuration of now.
func (e *Endpoint) reconfigure() {
	e.mu.Lock()
	pools := e.poolsLocked()
	e.mu.Unlock()
	for _, p := range pools {
		p.reconfigure()
	}
}

func (e *Endpoint) close() {
	e.checks.stop()
	e.mu.Lock()
	e.draining = true
	defer e.end() // without the lock
	e.reachableLocked()
	pools := e.poolsLocked()
	e.mu.Unlock()
	for _, p := range pools {
		p.close()
	}
	e.errorRate.Load().leave()
}

func (e *Endpoint) poolsLocked() []*pool {
	pools := make([]*pool, 0, len(e.pools))
	for _, p := range e.pools {
		pools = append(pools, p)
	}
	return pools
}
