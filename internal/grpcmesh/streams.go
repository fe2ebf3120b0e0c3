package grpcmesh

import (
	"slices"

	"google.golang.org/grpc/connectivity"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/upstream"
)

// A channel has one connection to an endpoint, unless the cluster limits the calls
// that a connection carries at a time: then it has as many as it needs. gRPC itself
// makes calls wait that its peer does not allow yet.

// take counts a call on a connection that is ready and has room. The caller holds
// policy.mu.
func (c *subConn) take() {
	c.requests++
	c.active.Add(1)
}

// chooseLocked returns the sub-connection for a call to an endpoint: one that is
// ready and has room, else one that will be; nil if there is none. It is one without
// room if no more can be had by waiting. full is whether a call that ends would make
// room for this one: then it waits in line.
func (p *policy) chooseLocked(endpoint *upstream.Endpoint, t *turn) (c *subConn, full bool) {
	conns := p.conns[endpoint]
	limit := int64(endpoint.Cluster().MaxStreams())
	if len(conns) == 1 && (limit == 0 || conns[0].state != connectivity.Ready) {
		return conns[0], false
	}
	c, room := roomAmong(conns, limit)
	if limit == 0 || room && p.admitsLocked(endpoint, t) {
		return c, false
	}
	return c, slices.ContainsFunc(conns, func(c *subConn) bool { return c.state == connectivity.Ready })
}

// roomAmong looks for a connection that is ready and has room; room is whether c is
// one.
func roomAmong(conns []*subConn, limit int64) (c *subConn, room bool) {
	var ready, later *subConn
	for _, c := range conns {
		switch {
		case c.state == connectivity.Ready && (limit == 0 || c.active.Load() < limit):
			return c, true
		case c.state == connectivity.Ready:
			ready = c
		case later == nil || later.err != nil:
			later = c
		}
	}
	if ready != nil && later != nil && later.err != nil {
		return ready, false // no other can be had
	}
	return later, false
}

// anotherLocked reports whether a connection to an endpoint may be added to those
// that there are, and whether it holds a permit. The first is made in spite of the
// limit, or calls would wait for ever.
func (p *policy) anotherLocked(endpoint *upstream.Endpoint) (gated, ok bool) {
	have, cluster := len(p.conns[endpoint]), endpoint.Cluster()
	if config := cluster.Config(); have > 0 && config != nil {
		if limit := config.HostConnections[discovery.PriorityDefault]; limit > 0 && have >= int(limit) {
			return false, false
		}
	}
	gated = cluster.Gate(discovery.PriorityDefault).TryConnection()
	return gated, gated || have == 0
}

func releaseGate(endpoint *upstream.Endpoint, gated bool) {
	if gated {
		endpoint.Cluster().Gate(discovery.PriorityDefault).ReleaseConnection()
	}
}

// release gives back the permit of a connection that is let go.
func (c *subConn) release(endpoint *upstream.Endpoint) {
	releaseGate(endpoint, c.gated)
	c.gated = false
}
