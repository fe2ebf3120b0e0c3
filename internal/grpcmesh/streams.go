package grpcmesh

import (
	"math"

	"google.golang.org/grpc/connectivity"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/upstream"
)

// A channel has one connection to an endpoint, unless the cluster limits the calls
// that a connection carries at a time, or in all: then it has as many as it needs. gRPC
// itself makes calls wait that its peer does not allow yet.
//
// Each counts against the cluster's limit from when it is told to connect until it is
// closed, however long the last calls take of one that was let go. At the limit no
// further one is made, unless the channel has none to the endpoint, and calls wait. So
// does a connection pool of Envoy's, of which each of its threads has one.

// take counts a call on a connection that is ready and has room. The caller holds
// policy.mu.
func (c *subConn) take() *load {
	c.requests++
	c.load.active.Add(1)
	return c.load
}

// chooseLocked returns the sub-connection for a call to an endpoint: one that is ready
// and has room, nil if there is none. The call then waits for one, unless it would wait
// for such as cannot be connected: failed is one of them.
func (p *policy) chooseLocked(endpoint *upstream.Endpoint, t *turn) (c, failed *subConn) {
	limits := limitsOf(endpoint)
	for _, c := range p.conns[endpoint] {
		if limits.room(c) > 0 {
			if p.admitsLocked(endpoint, t) {
				return c, nil
			}
			return nil, nil
		}
	}
	return nil, p.failedLocked(endpoint)
}

// failedLocked returns a sub-connection to an endpoint that could not be connected, if
// there are no others.
func (p *policy) failedLocked(endpoint *upstream.Endpoint) (failed *subConn) {
	for _, c := range p.conns[endpoint] {
		if c.err == nil {
			return nil
		}
		failed = c
	}
	return failed
}

// connLimits are how many calls a connection carries, at a time and in all; 0 is any
// number.
type connLimits struct{ streams, requests int64 }

func limitsOf(endpoint *upstream.Endpoint) connLimits {
	cluster := endpoint.Cluster()
	l := connLimits{streams: int64(cluster.MaxStreams())}
	if config := cluster.Config(); config != nil {
		l.requests = int64(config.MaxRequestsPerConnection)
	}
	return l
}

// room is how many calls more a connection can carry now.
func (l connLimits) room(c *subConn) int64 {
	if c.state != connectivity.Ready {
		return 0
	}
	return max(min(left(l.streams, c.load.active.Load()), left(l.requests, int64(c.requests))), 0)
}

// capacity is how many calls a new connection can carry.
func (l connLimits) capacity() int64 { return min(left(l.streams, 0), left(l.requests, 0)) }

func left(limit, used int64) int64 {
	if limit == 0 {
		return math.MaxInt32
	}
	return limit - used
}

// dialLocked makes as many connections as the calls in line need, of which none is under
// way. overflow is whether a limit has kept it from that: the calls then wait for what
// other calls leave. Nothing waits for a back-off as long as another connection may be
// tried. If the channel is closed, nobody waits any more.
func (p *policy) dialLocked(endpoint *upstream.Endpoint, l *line) (overflow bool) {
	capacity := limitsOf(endpoint).capacity()
	want := (int64(l.waiting.Len()) + capacity - 1) / capacity
	for _, failed := range [...]bool{false, true} {
		for _, c := range p.conns[endpoint] {
			if want > 0 && c.state != connectivity.Ready && (c.err != nil) == failed {
				if want--; !p.connectLocked(endpoint, c) {
					return true
				}
			}
		}
	}
	for ; want > 0; want-- {
		if !p.permitsLocked(endpoint) {
			return true
		}
		c, err := p.connLocked(endpoint)
		if err != nil {
			gateOf(endpoint).ReleaseConnection()
			for l.waiting.Len() > 0 {
				p.nextLocked(l, true)
			}
			return false
		}
		c.counted = true
		c.sc.Connect()
	}
	return false
}

// connectLocked tells a sub-connection to connect, unless it does already. It reports
// false if a limit is in the way.
func (p *policy) connectLocked(endpoint *upstream.Endpoint, c *subConn) bool {
	if c.counted || c.state != connectivity.Idle {
		return true
	}
	if c.counted = p.permitsLocked(endpoint); c.counted {
		c.sc.Connect()
	}
	return c.counted
}

// permitsLocked takes a permit for one more connection to an endpoint, if the limits allow
// one.
func (p *policy) permitsLocked(endpoint *upstream.Endpoint) bool {
	open := p.parting[endpoint]
	for _, c := range p.conns[endpoint] {
		if c.counted {
			open++
		}
	}
	if config := endpoint.Cluster().Config(); open > 0 && config != nil {
		if limit := config.HostConnections[discovery.PriorityDefault]; limit > 0 && open >= int(limit) {
			return false
		}
	}
	return upstream.PermitConnection(gateOf(endpoint), open)
}

// gateOf counts the connections to an endpoint. They are shared by calls of all
// priorities.
func gateOf(endpoint *upstream.Endpoint) *breaker.Gate {
	return endpoint.Cluster().Gate(discovery.PriorityDefault)
}

// partLocked follows when a sub-connection has lost its connection, or takes no calls any
// more: the connection counts until it is closed.
func (p *policy) partLocked(endpoint *upstream.Endpoint, c *subConn) {
	if !c.counted {
		return
	}
	c.counted = false
	conn := c.connecting.conn.Swap(nil)
	if conn == nil || !conn.afterClose(func() { p.parted(endpoint) }) {
		gateOf(endpoint).ReleaseConnection()
		return
	}
	if p.parting == nil {
		p.parting = make(map[*upstream.Endpoint]int)
	}
	p.parting[endpoint]++
}

// parted takes note that a connection is closed of which partLocked has told: there may be
// another one now.
func (p *policy) parted(endpoint *upstream.Endpoint) {
	gateOf(endpoint).ReleaseConnection()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parting[endpoint]--; p.parting[endpoint] == 0 {
		delete(p.parting, endpoint)
	}
	p.callLocked(endpoint)
}
