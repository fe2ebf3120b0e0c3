package upstream

import (
	"errors"
	"time"

	"github.com/inboardmesh/inboard/outcome"
)

// door is what a pool knows of a peer that takes no request at all over the HTTP/2
// connection that it has, as one with too much to do may say (RFC 9113, section 6.5.2).
// Another connection would be no better: who waits, waits until the peer takes requests,
// but not for longer than for a connection. Meanwhile the balancer prefers other endpoints.
type door struct {
	closed bool        // somebody has found it closed
	timer  *time.Timer // ends the wait; nil if nobody waits
}

func (d *door) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

var errClosedDoor = errors.New("http2: the peer takes no requests (its MAX_CONCURRENT_STREAMS is 0)")

// closedDoorLocked reports whether the peer of an HTTP/2 connection takes no request.
func (c *conn) closedDoorLocked() bool {
	return c.http2 && c.offered && !c.draining && !c.removed && !c.busyLocked() && c.cc.Available() <= 0 && c.cc.Err() == nil
}

// closedDoorLocked reports whether there is such a connection, and none whose calls may
// leave a place.
func (p *pool) closedDoorLocked() bool {
	closed := false
	for c := range p.conns {
		if c.http2 && !c.draining && c.busyLocked() {
			return false
		}
		closed = closed || c.closedDoorLocked()
	}
	return closed
}

// boundWaitLocked sees to it that those who wait do not wait for a closed door for ever.
func (p *pool) boundWaitLocked() {
	if p.ended || p.door.timer != nil || !p.closedDoorLocked() {
		return
	}
	p.door.timer = time.AfterFunc(p.endpoint.ConnectTimeout(), p.giveUp)
	if !p.door.closed {
		p.door.closed = true
		p.endpoint.shut(1)
	}
}

// giveUp ends the wait for a door that is closed still.
func (p *pool) giveUp() {
	p.mu.Lock()
	p.door.timer = nil
	failed := !p.ended && len(p.waiters) > 0 && p.closedDoorLocked()
	if failed {
		p.failLocked(&connectError{errClosedDoor}, len(p.waiters))
	}
	p.mu.Unlock()
	if failed {
		p.endpoint.Report(&outcome.Outcome{Kind: outcome.ConnectFailure, Err: errClosedDoor})
	}
}

// openedLocked takes note of a door that is closed no more, or is gone with its
// connection.
func (p *pool) openedLocked() {
	if p.door.closed && !p.closedDoorLocked() {
		p.door.closed = false
		p.door.stop()
		p.endpoint.shut(-1)
	}
}
