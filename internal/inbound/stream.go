package inbound

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// streamCheck is for how long at most a connection that carries no requests, or none any
// more, outlives what let it in: its policy, or the trust in its peer; and one over which
// nothing is asked for, the trust in its peer. It is closed within streamCheck and, if its
// peer is not trusted any more, refusedLife.
const streamCheck = 5 * time.Second

// errAboutRequests is a chain that cannot be enforced at a listener of ListenTCP.
var errAboutRequests = errors.New("its filters decide about requests, and a server of TCP has none: let the port of its Service or ServiceEntry have a protocol of TCP")

// ListenTCP is [Listeners.Listen] for a server of a protocol of its own: what decides
// about requests would decide nothing there, so that it accepts nothing as long as its
// configuration has such filters.
func (l *Listeners) ListenTCP(ctx context.Context, inner net.Listener) (*Listener, error) {
	ln := newListener(l, inner)
	ln.streams = true
	return l.listen(ctx, ln)
}

// follow keeps what a connection that carries no requests was let in for, so that it
// is asked for again: nobody else does, as there is nothing to serve over it. It
// reports false if there is nobody to ask any more.
func (ln *Listener) follow(conn net.Conn, c *Connection) bool {
	tracked := trackedOf(conn)
	if tracked == nil {
		return false
	}
	tracked.stream.Store(c)
	return ln.watchStreams()
}

// watchStreams starts to look after the connections of which no request asks whether they
// may stay, unless somebody does.
func (ln *Listener) watchStreams() bool {
	l := ln.owner
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	if !ln.watched {
		ln.watched = true
		l.watches.Go(ln.checkAlways)
	}
	return true
}

// checkAlways ends with the listener and its last connection, or with the mesh.
func (ln *Listener) checkAlways() {
	tick := time.NewTicker(streamCheck)
	defer tick.Stop()
	for ticked := false; ; {
		s, changed := ln.state.Watch()
		for _, c := range ln.connections() {
			known := c.stream.Load()
			switch {
			case known != nil && !ln.mayStay(c, known):
				_ = c.Close() // the application's reads and writes end with it
			case known == nil && ticked: // there may be many of them, and changes may come fast
				ln.checkIdle(s, c)
			}
		}
		select {
		case <-changed:
			ticked = false
		case <-tick.C:
			ticked = true
		case <-ln.forgotten:
			return
		case <-ln.owner.ended:
			return
		}
	}
}

// mayStay reports whether a connection that carries no requests would be accepted now.
func (ln *Listener) mayStay(tracked *trackedConn, c *Connection) bool {
	s := ln.state.Load()
	var chain *Chain
	switch {
	case s.err != nil:
	case c.TLS == nil:
		chain = s.plaintext
	default:
		chain = ln.trusted(s, tracked, tracked.remote, c.TLS)
	}
	if chain == nil {
		if hook := ln.owner.options.Hooks.HandshakeFailed; hook != nil && (s.err != nil || c.TLS == nil) {
			hook(observe.HandshakeEvent{Listener: ln.name, PeerAddress: tracked.remote, Err: s.refusal(c)})
		}
		return false
	}
	if !chain.Config.TCP && !ln.streams && chain.Filters.Guarded() && !ln.serves.Load() {
		// It was let in without requests, and there are policies about them now.
		return false
	}
	return ln.Allows(chain, c)
}

// refusal is why a connection that was accepted would not be any more.
func (s *state) refusal(c *Connection) error {
	reason, err := meshtls.NotServed, s.err
	if err == nil && c.TLS == nil {
		reason, err = meshtls.PlaintextRefused, errors.New("the policy has changed")
	}
	return &meshtls.HandshakeError{Reason: reason, Err: err}
}
