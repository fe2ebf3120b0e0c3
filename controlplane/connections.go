package controlplane

import (
	"container/list"
	"context"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

const (
	// maxIdle is how long a connection may be open without a call before it is asked
	// to go.
	maxIdle = time.Minute
	// idleEnd is the same before it is closed, asked or not: gRPC takes a stream for a
	// call of which nothing but the headers has come.
	idleEnd = maxIdle + 30*time.Second
	// roomAge is how long a connection must have been without a call to make room for
	// another one: as long as somebody who is in earnest may need to begin one.
	roomAge = time.Second
	// maxHealthWatches bounds who watches the health. Nobody has to say who he is for
	// that, and it never ends.
	maxHealthWatches = 1000
	// maxStatusConnections bounds the connections of the status listener.
	maxStatusConnections = 100
	// spareFiles is how many of the files that the process may open are not for the
	// connections of clients.
	spareFiles = 256
)

// connections bounds how many connections there are. If there are as many as are
// allowed, the one that has been without a call for longest makes room for a new one;
// if all have calls, or have just come, the new one is closed. Safe for concurrent use.
type connections struct {
	logger *slog.Logger

	mu      sync.Mutex
	most    int        // guarded by mu
	open    int        // guarded by mu
	idle    list.List  // guarded by mu; of *connection without a call, the longest first
	watches int        // guarded by mu; calls that watch the health
	short   int        // guarded by mu; calls that are no streams
	counts  connCounts // guarded by mu
	// toldFull is when it was last logged that one was refused.
	toldFull time.Time // guarded by mu
}

// connCounts count connections since the server was made: all that were taken in,
// those of them that were ended because they had no call, and those that were refused.
type connCounts struct{ total, idle, refused uint64 }

func newConnections(most int, logger *slog.Logger) *connections {
	return &connections{most: most, logger: logger}
}

// state returns how many are open, and allowed, and the counts.
func (c *connections) state() (open, most int, counts connCounts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open, c.most, c.counts
}

// fit lowers the bound to what the process may have open. It returns the new bound if
// that is lower.
func (c *connections) fit(files uint64) (most int, lowered bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	room := uint64(1)
	if files > 2*spareFiles {
		room = files - spareFiles
	} else if files > 1 {
		room = files / 2
	}
	if uint64(c.most) <= room {
		return c.most, false
	}
	c.most = int(room)
	return c.most, true
}

// bounded is a listener whose connections are bounded.
type bounded struct {
	net.Listener
	all *connections

	fresh map[*connection]struct{} // guarded by all.mu; those that had no call yet
	ended bool                     // guarded by all.mu
}

func (c *connections) bound(listener net.Listener) *bounded {
	return &bounded{Listener: listener, all: c, fresh: make(map[*connection]struct{})}
}

// end closes the connections that had no call yet, and those that still come. Servers
// wait for them to become one when they end: those that say nothing would take all the
// time that a handshake may.
func (b *bounded) end() {
	b.all.mu.Lock()
	b.ended = true
	fresh := slices.Collect(maps.Keys(b.fresh))
	for _, conn := range fresh {
		conn.cut = true
		b.all.removeLocked(conn)
	}
	b.all.mu.Unlock()
	for _, conn := range fresh {
		_ = conn.Conn.Close() // who reads from it sees that
	}
}

// Accept implements [net.Listener].
func (b *bounded) Accept() (net.Conn, error) {
	for {
		raw, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if conn := b.all.admit(raw, b); conn != nil {
			return conn, nil
		}
	}
}

// admit takes a connection of a listener in, or closes it and returns nil.
func (c *connections) admit(raw net.Conn, of *bounded) *connection {
	now := time.Now()
	c.mu.Lock()
	if of.ended {
		c.mu.Unlock()
		_ = raw.Close() // nothing was said on it
		return nil
	}
	var left *connection
	if c.open >= c.most {
		if left = c.longestLocked(now); left == nil {
			c.counts.refused++
			most, tell := c.most, now.Sub(c.toldFull) >= time.Minute
			if tell {
				c.toldFull = now
			}
			c.mu.Unlock()
			_ = raw.Close() // nothing was said on it
			if tell {
				c.logger.Warn("connection refused: there are as many as are allowed", "connections", most, "peer", raw.RemoteAddr().String())
			}
			return nil
		}
		c.counts.idle++
		c.removeLocked(left)
	}
	conn := &connection{Conn: raw, all: c, of: of}
	of.fresh[conn] = struct{}{}
	c.open++
	c.counts.total++
	conn.timer = time.AfterFunc(idleEnd, conn.expire)
	c.waitLocked(conn, now)
	c.mu.Unlock()
	if left != nil {
		_ = left.Conn.Close() // who reads from it sees that
	}
	return conn
}

// longestLocked returns the connection that has been without a call for longest, if
// that is long enough.
func (c *connections) longestLocked(now time.Time) *connection {
	first := c.idle.Front()
	if first == nil {
		return nil
	}
	conn, _ := first.Value.(*connection)
	if now.Sub(conn.since) < roomAge {
		return nil
	}
	return conn
}

func (c *connections) waitLocked(conn *connection, now time.Time) {
	conn.since, conn.waiting = now, c.idle.PushBack(conn)
}

func (c *connections) removeLocked(conn *connection) {
	if conn.closed {
		return
	}
	conn.closed = true
	delete(conn.of.fresh, conn)
	conn.timer.Stop()
	if conn.waiting != nil {
		c.idle.Remove(conn.waiting)
		conn.waiting = nil
	}
	c.open--
}

// connection is one that was taken in. It is ended when it has been without a call for
// idleEnd, its handshake included.
type connection struct {
	net.Conn
	all *connections
	of  *bounded

	calls   int           // guarded by all.mu; of which there is more than the headers
	short   int           // guarded by all.mu; calls that are no streams
	since   time.Time     // guarded by all.mu; without a call since
	waiting *list.Element // guarded by all.mu; nil with a call, or when it is closed
	timer   *time.Timer   // guarded by all.mu
	closed  bool          // guarded by all.mu
	cut     bool          // guarded by all.mu; its listener has ended before it had a call
}

// wasCut reports whether it was closed because its listener has ended.
func (c *connection) wasCut() bool {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	return c.cut
}

// Close implements [net.Conn].
func (c *connection) Close() error {
	c.all.mu.Lock()
	c.all.removeLocked(c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}

func (c *connection) expire() {
	c.all.mu.Lock()
	// A call may have come, and gone, since the timer fired.
	over := !c.closed && c.calls == 0 && time.Since(c.since) >= idleEnd
	if over {
		c.all.counts.idle++
		c.all.removeLocked(c)
	}
	c.all.mu.Unlock()
	if over {
		_ = c.Conn.Close() // who reads from it sees that
	}
}

// begin notes a call.
func (c *connection) begin() {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	c.calls++
	delete(c.of.fresh, c)
	if c.waiting != nil {
		c.all.idle.Remove(c.waiting)
		c.waiting = nil
		c.timer.Stop()
	}
}

// end notes that one has ended.
func (c *connection) end() {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	if c.calls--; c.calls == 0 && !c.closed {
		c.all.waitLocked(c, time.Now())
		c.timer.Reset(idleEnd)
	}
}

// watch notes a call that watches the health, if there may be another one.
func (c *connections) watch() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watches >= maxHealthWatches {
		return false
	}
	c.watches++
	return true
}

func (c *connections) unwatch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watches--
}

// counted are server credentials by which a call finds its [connection].
type counted struct {
	credentials.TransportCredentials
}

// Clone implements [credentials.TransportCredentials].
func (c counted) Clone() credentials.TransportCredentials {
	return counted{c.TransportCredentials.Clone()}
}

// ServerHandshake implements [credentials.TransportCredentials].
func (c counted) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if of, ok := raw.(*connection); ok && err == nil {
		info = countedInfo{AuthInfo: info, conn: of}
	}
	return conn, info, err
}

// countedInfo leads from a call to its connection.
type countedInfo struct {
	credentials.AuthInfo
	conn *connection
}

// callOn notes a call. It returns the context as the credentials made it.
func callOn(ctx context.Context) (_ context.Context, end func()) {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return ctx, func() {}
	}
	info, ok := from.AuthInfo.(countedInfo)
	if !ok {
		return ctx, func() {}
	}
	plain := *from
	plain.AuthInfo = info.AuthInfo
	info.conn.begin()
	return peer.NewContext(ctx, &plain), info.conn.end
}

// countUnary must be above what asks who calls, so that that sees the credentials.
func countUnary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, end := callOn(ctx)
	defer end()
	return handler(ctx, request)
}

// countStream does for streams what countUnary does, and bounds those that are not of
// ADS, which bounds its own.
func (c *connections) countStream(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if _, ok := server.(*aggregated); !ok {
		if !c.watch() {
			return status.Errorf(codes.ResourceExhausted, "there are %d watches of the health, and no more are allowed", maxHealthWatches)
		}
		defer c.unwatch()
	}
	ctx, end := callOn(stream.Context())
	defer end()
	return handler(server, &countedStream{ServerStream: stream, ctx: ctx})
}

type countedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements [grpc.ServerStream].
func (s *countedStream) Context() context.Context { return s.ctx }

// countHTTP notes requests, as a ConnState of [http.Server].
func countHTTP(raw net.Conn, state http.ConnState) {
	conn, ok := raw.(*connection)
	if !ok {
		return
	}
	switch state {
	case http.StateActive:
		conn.begin()
	case http.StateIdle:
		conn.end()
	}
}
