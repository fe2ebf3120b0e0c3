package breaker

import (
	"math"
	"sync"
	"sync/atomic"
)

// Gate counts what one cluster has in flight at one routing priority and
// enforces its [Limits]. The zero value refuses everything; use [NewGate].
//
// Each Try takes a permit if one is free and never waits, and Add takes one in any
// case; each successful Try, and each Add, is followed by exactly one Release of the
// same kind, whatever became of the
// attempt: success, error, timeout, cancellation or panic (so: in a defer). A
// Release without its Try panics, since a lost or a doubled count would move the
// limit for ever.
//
// A limit of 0 refuses everything, as Envoy does; the largest uint32 is no
// limit in practice. Limits may change at any time: what is in flight finishes,
// and what is new is refused until the count is below the new limit.
//
// All methods are safe for concurrent use, take no lock and allocate nothing,
// except those that set limits, which take a lock that permits do not.
type Gate struct {
	config atomic.Pointer[gateConfig]
	mu     sync.Mutex // held while config is replaced

	// Every counter has its own cache lines: all cores write them.
	_           cacheLine
	connections counter
	pending     counter
	requests    counter
	retries     counter
}

type gateConfig struct {
	limits Limits
	budget retryBudget
}

// retryBudget replaces the limit on retries if enabled.
type retryBudget struct {
	enabled        bool
	percent        float64
	minConcurrency uint32
}

// Usage is what a [Gate] counts at a moment.
type Usage struct {
	Connections, Pending, Requests, Retries uint32
}

// NewGate returns a gate with nothing in flight and without a retry budget.
func NewGate(limits Limits) *Gate {
	g := &Gate{}
	g.config.Store(&gateConfig{limits: limits})
	return g
}

// SetLimits replaces the limits.
func (g *Gate) SetLimits(limits Limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := g.current()
	next.limits = limits
	g.config.Store(&next)
}

// SetRetryBudget bounds the retries in flight by the larger of minConcurrency
// and percent of the requests that are active or pending, in place of
// Limits.MaxRetries ("Envoy RetryBudget"). A percent that is negative or not a
// number counts as 0. With enabled false the other arguments mean nothing and
// Limits.MaxRetries applies.
func (g *Gate) SetRetryBudget(percent float64, minConcurrency uint32, enabled bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := g.current()
	next.budget = retryBudget{}
	if enabled {
		next.budget = retryBudget{enabled: true, percent: percent, minConcurrency: minConcurrency}
	}
	g.config.Store(&next)
}

// current returns a copy of the configuration.
func (g *Gate) current() gateConfig {
	if c := g.config.Load(); c != nil {
		return *c
	}
	return gateConfig{}
}

// TryConnection takes a permit for a connection (Limits.MaxConnections).
func (g *Gate) TryConnection() bool {
	return g.connections.take(g.current().limits.MaxConnections)
}

// AddConnection takes a permit for a connection in spite of the limit. As long as there
// are more than it allows, no further one passes [Gate.TryConnection].
func (g *Gate) AddConnection() { g.connections.add() }

// ReleaseConnection gives the permit of a connection back.
func (g *Gate) ReleaseConnection() { g.connections.release("Connection") }

// TryPending takes a permit to wait for a connection (Limits.MaxPendingRequests).
func (g *Gate) TryPending() bool {
	return g.pending.take(g.current().limits.MaxPendingRequests)
}

// ReleasePending gives the permit to wait back.
func (g *Gate) ReleasePending() { g.pending.release("Pending") }

// TryRequest takes a permit for an attempt in flight (Limits.MaxRequests).
func (g *Gate) TryRequest() bool {
	return g.requests.take(g.current().limits.MaxRequests)
}

// ReleaseRequest gives the permit of an attempt back.
func (g *Gate) ReleaseRequest() { g.requests.release("Request") }

// TryRetry takes a permit for a retry, which lasts from the decision to retry
// to the end of the attempt. With a retry budget that decides, otherwise
// Limits.MaxRetries.
func (g *Gate) TryRetry() bool {
	c := g.current()
	if !c.budget.enabled {
		return g.retries.take(c.limits.MaxRetries)
	}
	return g.retries.take(c.budget.limit(uint64(g.requests.load()) + uint64(g.pending.load())))
}

// ReleaseRetry gives the permit of a retry back.
func (g *Gate) ReleaseRetry() { g.retries.release("Retry") }

// Usage returns the counts. They are read one after the other, not at once.
func (g *Gate) Usage() Usage {
	return Usage{
		Connections: g.connections.load(),
		Pending:     g.pending.load(),
		Requests:    g.requests.load(),
		Retries:     g.retries.load(),
	}
}

// Remaining returns how much may be added to each count, which are read as by Usage.
// With a retry budget, that of the retries is the budget's.
func (g *Gate) Remaining() Usage {
	c, used := g.current(), g.Usage()
	retries := c.limits.MaxRetries
	if c.budget.enabled {
		retries = c.budget.limit(uint64(used.Requests) + uint64(used.Pending))
	}
	left := func(limit, used uint32) uint32 { return limit - min(limit, used) }
	return Usage{
		Connections: left(c.limits.MaxConnections, used.Connections),
		Pending:     left(c.limits.MaxPendingRequests, used.Pending),
		Requests:    left(c.limits.MaxRequests, used.Requests),
		Retries:     left(retries, used.Retries),
	}
}

// limit returns how many retries may be in flight beside so many requests.
func (b retryBudget) limit(inFlight uint64) uint32 {
	share := b.percent / 100 * float64(inFlight)
	switch {
	case share >= math.MaxUint32:
		return math.MaxUint32
	case share >= float64(b.minConcurrency):
		return uint32(share)
	}
	return b.minConcurrency
}

const cacheLineSize = 64

type cacheLine [cacheLineSize]byte

// counter is a number of permits taken.
type counter struct {
	n atomic.Uint32
	_ [cacheLineSize - 4]byte
}

func (c *counter) load() uint32 { return c.n.Load() }

// take adds one below the limit. It compares and swaps, since an addition that
// has to be undone would make others be refused in between.
func (c *counter) take(limit uint32) bool {
	for {
		n := c.n.Load()
		if n >= limit {
			return false
		}
		if c.n.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// add adds one, whatever the limit.
func (c *counter) add() { c.n.Add(1) }

func (c *counter) release(kind string) {
	if c.n.Add(^uint32(0)) == math.MaxUint32 {
		panic("breaker: Release" + kind + " without Try" + kind) //nolint:forbidigo // misuse by the caller, which no input can cause
	}
}
