package upstream

import (
	"math"

	"github.com/inboardmesh/inboard/breaker"
)

// missingLocked is how many connections those who wait need.
func (p *pool) missingLocked() int {
	waiting := max(len(p.waiters)-p.arriving, 0)
	if p.key.protocol == wireHTTP1 || waiting == 0 {
		return waiting
	}
	for c := range p.conns {
		if c.closedDoorLocked() {
			return 0
		}
		// Calls that are about to reserve their places may have done so already:
		// whether those who wait have one is known when these are through, and when
		// a new connection has been offered.
		if c.http2 && (c.promised > 0 || !c.offered) && !c.draining {
			places := p.unreservedLocked(c)
			if limit := p.maxRequests(); limit > 0 {
				places = min(places, int(limit)-int(c.requests))
			}
			waiting -= max(places, 0)
		}
	}
	capacity := p.capacityLocked()
	return (max(waiting, 0) + capacity - 1) / capacity
}

// capacityLocked is how many of those who wait a connection will serve that is being made:
// as many streams as the cluster allows, and the peer, which says so over each connection,
// and as many requests as one may carry. Before the peer has said anything that is any
// number, or what HTTP/1.1 has if that is settled by the handshake.
func (p *pool) capacityLocked() int {
	if p.key.protocol == wireHTTP1 {
		return 1
	}
	capacity := math.MaxInt32
	if p.places > 0 {
		capacity = p.places
	}
	if limit := p.endpoint.cluster.MaxStreams(); limit > 0 && p.key.protocol == wireHTTP2 {
		capacity = min(capacity, limit)
	}
	if limit := p.maxRequests(); limit > 0 {
		capacity = min(capacity, int(min(limit, math.MaxInt32)))
	}
	return capacity
}

// dialMissingLocked starts as many dials as there are waiters that nothing
// under way will serve. It reports whether the connection limit kept it from
// that: the waiters then get connections that other calls give back.
func (p *pool) dialMissingLocked() (overflow bool) {
	want := p.missingLocked()
	if want == 0 && len(p.waiters) > 0 {
		p.boundWaitLocked()
	}
	for p.dialing < want {
		open := p.openLocked()
		if limit := p.hostLimit(); limit > 0 && open >= limit {
			return true
		}
		if !PermitConnection(p.gate, open) {
			return true
		}
		if !p.startLocked() {
			p.failLocked(ErrClosed, len(p.waiters))
			return false
		}
	}
	return false
}

// reconnect makes a connection that nobody waits for, if there is none.
func (p *pool) reconnect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || p.draining || len(p.conns)+p.dialing > 0 {
		return
	}
	if PermitConnection(p.gate, p.upgraded) {
		p.startLocked()
	}
}

// PermitConnection takes a permit for one more connection of a pool that has so many open
// already, those included whose last calls run. The first is made in spite of the limit,
// or its calls would wait for ever (as in Envoy's connection pools). It counts, too.
func PermitConnection(gate *breaker.Gate, open int) bool {
	if gate.TryConnection() {
		return true
	}
	if open > 0 {
		return false
	}
	gate.AddConnection()
	return true
}

// startLocked begins to make a connection, for which there is a permit. It reports false
// if the manager is closed.
func (p *pool) startLocked() bool {
	p.dialing++
	number := p.dials.Add(1)
	if !p.endpoint.cluster.manager.background(func() { p.dial(number) }) {
		p.dialing--
		p.gate.ReleaseConnection()
		return false
	}
	return true
}

// openLocked is how many connections there are, or will be soon. An upgraded one is as
// good as in use, for as long as it is open.
func (p *pool) openLocked() int { return len(p.conns) + p.dialing + p.upgraded }

// hostLimit is how many connections the endpoint may have, 0 without a limit.
func (p *pool) hostLimit() int {
	if config := p.endpoint.cluster.Config(); config != nil {
		return int(config.HostConnections[p.key.priority])
	}
	return 0
}
