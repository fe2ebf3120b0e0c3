package upstream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/observe"
)

// overflowError is a call that a limit refused.
type overflowError struct{ resource string }

func (e *overflowError) Error() string {
	return "circuit breaker: too many " + e.resource
}

// pool is the HTTP connections to one endpoint, of one protocol and priority.
//
// A connection is in use by one call (HTTP/1.1) or shared (HTTP/2). A call
// that finds none waits; each wait starts a dial if one is missing, and takes
// whichever comes first, a new connection or one that another call gave back.
type pool struct {
	endpoint *Endpoint
	key      poolKey
	gate     *breaker.Gate

	mu       sync.Mutex
	conns    map[*conn]struct{} // guarded by mu; every open connection
	idle     []*conn            // guarded by mu; HTTP/1.1, last used last
	waiters  []*waiter          // guarded by mu; first come first served
	dialing  int                // guarded by mu
	arriving int                // guarded by mu; HTTP/1.1, made and not offered yet
	places   int                // guarded by mu; requests that the last new connection took at a time
	upgraded int                // guarded by mu; open, and not in conns any more
	dials    atomic.Uint64      // how many have begun so far; written with mu held
	draining bool               // guarded by mu
	ended    bool               // guarded by mu; after close
	expiry   expiry             // guarded by mu
	checking *time.Timer        // guarded by mu; see checkIdle
	door     door               // guarded by mu
}

// conn is one HTTP connection. Its fields are guarded by pool.mu unless they
// are never written after it was added.
type conn struct {
	dialed
	pool   *pool
	opened time.Time
	number uint64 // of its dial

	// promised counts the calls that were given the connection and have not
	// reserved their place on it yet. With the requests in flight they make it
	// busy.
	promised  int
	requests  uint32 // calls that were given it
	listed    bool   // is in pool.idle
	offered   bool   // was offered to those who wait
	arriving  bool   // is one of pool.arriving
	draining  bool
	removed   bool
	lost      bool // see pool.lost
	counted   bool // is one of pool.upgraded
	upgraded  bool // guarded by the manager's mu: an upgrade took it over
	idleSince time.Time
}

// busyLocked reports whether a call has the connection, or is about to.
func (c *conn) busyLocked() bool { return c.promised > 0 || c.cc.InFlight() > 0 }

type waiter struct {
	wanting
	ready chan acquired // buffered: a hand-over never blocks
}

type acquired struct {
	conn *conn
	err  error
}

func newPool(e *Endpoint, key poolKey, draining bool) *pool {
	return &pool{
		endpoint: e, key: key, gate: e.cluster.Gate(key.priority),
		conns: make(map[*conn]struct{}), draining: draining,
	}
}

// get returns a connection with a reservation for one request.
func (p *pool) get(ctx context.Context, want wanting) (*conn, error) {
	for {
		c, err := p.next(ctx, want)
		if err != nil {
			return nil, err
		}
		// Reserve runs the connection's state hook, which takes the lock of the
		// pool: it must be called without.
		reserved := c.cc.Reserve() == nil
		p.mu.Lock()
		c.promised--
		if c.http2 { // the call was counted twice for a moment
			p.offerSharedLocked(c)
			p.dialMissingLocked()
		}
		p.mu.Unlock()
		if reserved {
			return c, nil
		}
		// It broke meanwhile, or its server allows fewer streams than before.
		if !c.http2 || c.cc.Err() != nil {
			p.discard(c)
		}
		if err := p.unsent(c, want); err != nil {
			return nil, err
		}
	}
}

// next takes an available connection or waits for one.
func (p *pool) next(ctx context.Context, want wanting) (*conn, error) {
	security := p.endpoint.Security()
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return nil, ErrClosed
	}
	if want.anew && p.replaceIdleLocked() {
		// It waits for a connection that is made.
	} else if c := p.availableLocked(security); c != nil {
		p.promiseLocked(c)
		p.anticipateLocked()
		p.mu.Unlock()
		return c, nil
	}
	if !p.gate.TryPending() {
		p.mu.Unlock()
		p.overflowed("pending")
		return nil, &overflowError{"pending requests"}
	}
	defer p.gate.ReleasePending()
	w := &waiter{wanting: want, ready: make(chan acquired, 1)}
	p.waiters = append(p.waiters, w)
	overflow := p.dialMissingLocked()
	p.anticipateLocked()
	p.mu.Unlock()
	served := false
	defer func() {
		if !served { // or a hook has panicked
			p.abandon(w)
		}
	}()
	if overflow {
		p.overflowed("connections")
	}
	select {
	case got := <-w.ready:
		served = true
		return got.conn, got.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// availableLocked takes a connection that can carry a request now. One that was
// made under other settings or roots, or has expired, is left to drain.
func (p *pool) availableLocked(security Security) *conn {
	for len(p.idle) > 0 {
		c := p.idle[len(p.idle)-1]
		p.idle, c.listed = p.idle[:len(p.idle)-1], false
		if p.freshLocked(c, security) {
			return c
		}
		p.retireLocked(c)
	}
	for c := range p.conns {
		if !c.http2 {
			continue
		}
		if !p.freshLocked(c, security) {
			p.retireLocked(c)
			continue
		}
		if p.roomLocked(c) {
			return c
		}
	}
	return nil
}

// roomLocked reports whether an HTTP/2 connection can carry one more request.
func (p *pool) roomLocked(c *conn) bool { return p.unreservedLocked(c) > c.promised }

// unreservedLocked is for how many requests an HTTP/2 connection has a place that is
// not reserved.
func (p *pool) unreservedLocked(c *conn) int {
	n := c.cc.Available()
	if limit := p.endpoint.cluster.MaxStreams(); limit > 0 {
		n = min(n, limit-c.cc.InFlight())
	}
	return n
}

// promiseLocked gives a connection to a call. The last one that it may carry
// sets it draining.
func (p *pool) promiseLocked(c *conn) {
	c.promised++
	c.requests++
	if limit := p.maxRequests(); limit > 0 && c.requests >= limit {
		c.draining = true
	}
}

func (p *pool) freshLocked(c *conn, security Security) bool {
	if c.draining || c.removed || !c.security.Same(security) || c.cc.Err() != nil {
		return false
	}
	due := p.dueLocked(c)
	return due.IsZero() || time.Now().Before(due)
}

// retireLocked lets a connection go: at once if it is idle, else when its
// calls have ended. Closing runs the state hook, hence the goroutine.
func (p *pool) retireLocked(c *conn) {
	if c.removed {
		return
	}
	c.draining = true
	if !c.busyLocked() {
		p.endpoint.cluster.manager.background(func() { p.discard(c) })
	}
}

// replaceIdleLocked lets the idle connection go that a call would be given, so that
// there is room for a new one. It reports false if there is none.
func (p *pool) replaceIdleLocked() bool {
	last := len(p.idle) - 1
	if last < 0 {
		return false
	}
	c := p.idle[last]
	p.idle, c.listed = p.idle[:last], false
	p.retireLocked(c)
	return true
}

// dial opens one connection and hands it to those who wait. It ends with the
// connect timeout, or when the manager is closed.
func (p *pool) dial(number uint64) {
	start := time.Now()
	cluster := p.endpoint.cluster
	defer p.endpoint.connecting()()
	d, err := p.endpoint.dial(cluster.manager.ctx, p.key.protocol)
	event := observe.ConnEvent{Cluster: cluster.name, Endpoint: p.endpoint.address, Duration: time.Since(start), Err: err}
	if err != nil {
		if cluster.manager.ctx.Err() == nil {
			p.endpoint.ConnectFailed(err)
		}
		p.mu.Lock()
		p.dialing--
		p.gate.ReleaseConnection()
		if cluster.manager.ctx.Err() != nil {
			p.failLocked(ErrClosed, len(p.waiters))
		}
		p.failDialLocked(err)
		p.dialMissingLocked()
		p.mu.Unlock()
		p.opened(event)
		return
	}
	p.endpoint.Connected()
	c := &conn{dialed: *d, pool: p, opened: time.Now(), number: number}
	p.mu.Lock()
	p.dialing--
	if p.ended || !cluster.manager.opened(c) {
		p.gate.ReleaseConnection()
		p.failLocked(ErrClosed, len(p.waiters))
		p.mu.Unlock()
		_ = c.cc.Close()
		return
	}
	p.conns[c] = struct{}{}
	p.places = c.cc.Available()
	if !c.http2 {
		c.arriving = true
		p.arriving++
	}
	p.endpoint.host.Opened()
	p.mu.Unlock()
	event.TLS, event.PeerID, event.Protocol = c.secured != nil, c.peerID, c.protocol()
	p.opened(event)
	c.cc.onChange(func() { p.changed(c) })
	p.changed(c)
}

func (c *conn) protocol() string {
	if c.http2 {
		return "h2"
	}
	return "http/1.1"
}

// changed takes note of what happened to a connection: it broke, a call ended,
// more streams are allowed. It is the connection's state hook.
func (p *pool) changed(c *conn) {
	p.mu.Lock()
	if c.removed {
		p.mu.Unlock()
		return
	}
	p.arrivedLocked(c)
	p.openedLocked()
	if !c.draining && c.cc.leaving() {
		c.draining = true
		p.failUselessLocked(c, errGoneAway) // the next would go, too
	}
	broken, busy := c.cc.Err() != nil, c.busyLocked()
	if broken {
		p.failUselessLocked(c, fmt.Errorf("%w: %w", errGoneAtOnce, c.cc.Err()))
	}
	switch {
	case broken || !busy && (c.draining || p.draining && len(p.waiters) == 0):
		p.mu.Unlock()
		p.discard(c)
		return
	case c.http2:
		p.offerSharedLocked(c)
	case busy:
		p.mu.Unlock()
		return
	case !c.listed:
		p.offerLocked(c)
	}
	p.dialMissingLocked()
	p.expireLaterLocked(c)
	p.mu.Unlock()
}

// arrivedLocked ends the time in which a new connection is spoken for by those who wait
// and have not been told of it: nobody dials for them once more.
func (p *pool) arrivedLocked(c *conn) {
	if c.arriving {
		c.arriving = false
		p.arriving--
	}
}

// offerLocked hands an idle HTTP/1.1 connection to the first who waits for such. If it
// takes the place of one that is waited for, it goes.
func (p *pool) offerLocked(c *conn) {
	for i, w := range p.waiters {
		if !w.anew || c.requests == 0 {
			p.waiters = slices.Delete(p.waiters, i, i+1)
			p.promiseLocked(c)
			w.ready <- acquired{conn: c}
			return
		}
	}
	if p.draining || p.dialing < p.missingLocked() {
		p.retireLocked(c)
		return
	}
	c.idleSince = time.Now()
	if c.requests == 0 {
		c.cc.rest()
	}
	p.idle, c.listed = append(p.idle, c), true
	p.checkIdleLaterLocked()
}

// offerSharedLocked hands an HTTP/2 connection to as many as it can carry.
func (p *pool) offerSharedLocked(c *conn) {
	c.offered = true
	for !c.draining && len(p.waiters) > 0 && p.roomLocked(c) {
		p.promiseLocked(c)
		p.popWaiterLocked().ready <- acquired{conn: c}
	}
	if !c.busyLocked() {
		if c.requests == 0 {
			c.cc.rest()
		}
		c.idleSince = time.Now()
	}
}

func (p *pool) popWaiterLocked() *waiter {
	if len(p.waiters) == 0 {
		return nil
	}
	w := p.waiters[0]
	p.waiters = p.waiters[1:]
	p.leftLocked()
	return w
}

// failLocked ends the wait of the first n waiters.
func (p *pool) failLocked(err error, n int) {
	for ; n > 0 && len(p.waiters) > 0; n-- {
		p.popWaiterLocked().ready <- acquired{err: err}
	}
}

// failDialLocked ends the wait of those who have waited for a connection that could not be
// made.
func (p *pool) failDialLocked(err error) {
	p.failLocked(&connectError{err}, p.unservedLocked())
}

// unservedLocked is for how many of those who wait a connection was made that does not
// come: none, if others are on their way to all of them.
func (p *pool) unservedLocked() int {
	capacity := p.capacityLocked()
	return min(capacity, max(0, len(p.waiters)-p.dialing*capacity))
}

// abandon takes a waiter out, giving back what it may have been handed.
func (p *pool) abandon(w *waiter) {
	p.mu.Lock()
	if i := slices.Index(p.waiters, w); i >= 0 {
		p.waiters = slices.Delete(p.waiters, i, i+1)
		p.leftLocked()
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	if got := <-w.ready; got.conn != nil {
		p.mu.Lock()
		got.conn.promised--
		p.mu.Unlock()
		p.changed(got.conn)
	}
}

// discard closes a connection and forgets it. One that an upgrade took over is
// the caller's to close, and until then it counts and binds as one that is in use.
func (p *pool) discard(c *conn) {
	p.mu.Lock()
	if c.removed {
		p.mu.Unlock()
		return
	}
	c.removed = true
	p.arrivedLocked(c)
	delete(p.conns, c)
	if c.counted = c.cc.Err() != nil && c.raw.open(); c.counted {
		p.upgraded++
	}
	if c.listed {
		p.idle = slices.DeleteFunc(p.idle, func(other *conn) bool { return other == c })
	}
	p.openedLocked()
	p.mu.Unlock()
	err := c.cc.Err()
	_ = c.cc.Close()
	if c.raw.open() {
		p.endpoint.cluster.manager.tookOver(c)
	}
	c.raw.afterClose(func() { p.closed(c, err) })
}

// closed settles the accounts of a connection that is closed.
func (p *pool) closed(c *conn, err error) {
	p.gate.ReleaseConnection()
	p.endpoint.host.Closed()
	p.endpoint.cluster.manager.gone(c)
	p.mu.Lock()
	if c.counted {
		p.upgraded--
	}
	p.dialMissingLocked()
	p.mu.Unlock()
	if hook := p.endpoint.cluster.manager.options.Hooks.ConnClosed; hook != nil {
		hook(observe.ConnEvent{
			Cluster: p.endpoint.cluster.name, Endpoint: p.endpoint.address, Protocol: c.protocol(),
			TLS: c.secured != nil, PeerID: c.peerID, Err: err, Duration: time.Since(c.opened),
		})
	}
}

// close closes every connection, in use or not, and ends every wait.
func (p *pool) close() {
	p.mu.Lock()
	p.ended = true
	p.failLocked(ErrClosed, len(p.waiters))
	conns := make([]*conn, 0, len(p.conns))
	for c := range p.conns {
		conns = append(conns, c)
	}
	p.expiry.stop()
	p.stopCheckingLocked()
	p.door.stop()
	p.mu.Unlock()
	for _, c := range conns {
		p.discard(c)
	}
}

func (p *pool) maxRequests() uint32 {
	if config := p.endpoint.cluster.Config(); config != nil {
		return config.MaxRequestsPerConnection
	}
	return 0
}

func (p *pool) opened(event observe.ConnEvent) {
	if hook := p.endpoint.cluster.manager.options.Hooks.ConnOpened; hook != nil {
		hook(event)
	}
}

func (p *pool) overflowed(resource string) {
	if hook := p.endpoint.cluster.manager.options.Hooks.Overflowed; hook != nil {
		hook(observe.OverflowEvent{Cluster: p.endpoint.cluster.name, Resource: resource})
	}
}

// connectError is a connection that could not be made.
type connectError struct{ err error }

func (e *connectError) Error() string { return e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }
