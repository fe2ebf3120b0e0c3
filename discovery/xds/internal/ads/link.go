package ads

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/observe"
)

// idleTimeout is how long the connection stays open after the last watch.
const idleTimeout = 30 * time.Second

// link is what the client has to do with one server: one connection, one
// stream, and what the server was told and said on it.
type link struct {
	client *Client
	server ServerConfig
	logger *slog.Logger
	// useless paces the answers to responses that bring nothing, and rejected the
	// responses that are bad in a new way.
	useless, rejected *rate.Limiter
	// authorities are all that may ask the server. It never changes after
	// NewClient.
	authorities []*authority
	// wake tells the link's goroutine that the watches changed. It holds one
	// token; there is never more than one receiver.
	wake chan struct{}

	types  map[*typeState]*linkType // guarded by Client.mu
	order  []*linkType              // guarded by Client.mu; in the order of the first watch
	stream *stream                  // guarded by Client.mu; nil without one
	conn   *grpc.ClientConn         // guarded by Client.mu; that of stream
	// mode is the variant that the server is spoken to in: ModeAuto until it
	// is known.
	mode Mode // guarded by Client.mu
	// answers is true if the server has answered on the stream, or held it for a while.
	answers bool // guarded by Client.mu
	// connErr is why there has been no answer since the last connect; nil
	// while all is well.
	connErr   error // guarded by Client.mu
	connected bool  // guarded by Client.mu; what StreamChanged was told last
}

func newLink(c *Client, server ServerConfig) *link {
	return &link{
		client:   c,
		server:   server,
		logger:   c.logger.With("xds_server", server.Name),
		useless:  rate.NewLimiter(uselessPerSecond, uselessBurst),
		rejected: rate.NewLimiter(rejectedPerSecond, rejectedBurst),
		wake:     make(chan struct{}, 1),
		types:    make(map[*typeState]*linkType),
		mode:     server.Mode,
	}
}

// linkType is what one server was told and said of one type. All of it is
// guarded by Client.mu.
type linkType struct {
	*typeState
	link *link
	// pending are the names that were subscribed or unsubscribed since the
	// server was told.
	pending map[string]struct{}
	// version is that of the last accepted response of the state of the world.
	// It belongs to the server and survives the stream.
	version string
	// unnamed is why the latest response was rejected, if a bad entry of it
	// could be any resource; nil otherwise.
	unnamed error
	// rejected is the text of the latest rejection that was reported.
	rejected string
	// rejectedBytes identifies the latest response that was rejected; zero after
	// one that was not.
	rejectedBytes digest
	// sub is what the server was told on this stream.
	sub subscription
}

// typeLocked returns what there is of a type, and begins with it.
func (l *link) typeLocked(ts *typeState) *linkType {
	lt := l.types[ts]
	if lt == nil {
		lt = &linkType{typeState: ts, link: l, pending: make(map[string]struct{}), sub: newSubscription()}
		l.types[ts] = lt
		l.order = append(l.order, lt)
	}
	return lt
}

// forgetVersionsLocked makes the next stream ask for everything again.
func (l *link) forgetVersionsLocked() {
	for _, lt := range l.order {
		lt.version = ""
	}
}

// poke makes the link's goroutine look at the watches.
func (l *link) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// connections keeps one stream up while anything is watched that the server is
// asked for. It ends with ctx.
func (l *link) connections(ctx context.Context) {
	var (
		conn *grpc.ClientConn
		pace backoff
		mode = l.server.Mode
	)
	hangUp := func() {
		if conn != nil {
			if err := conn.Close(); err != nil {
				l.logger.Debug("close xDS connection", "error", err)
			}
			conn = nil
		}
	}
	defer hangUp()
	for l.awaitWatch(ctx) {
		if !sleep(ctx, pace.delay(time.Now())) {
			return
		}
		if !l.watched() {
			continue
		}
		pace.last = time.Now()
		var end sessionEnd
		conn, end = l.connect(ctx, conn, mode)
		if noDelta(mode, end) {
			// The server is there and healthy, it only speaks the other
			// variant: no back-off, and no report of a broken stream.
			l.logger.LogAttrs(ctx, levelOf(mode), "xDS server does not speak delta, using the state of the world", slog.Any("reason", end.err))
			mode = ModeSotW
			conn, end = l.connect(ctx, conn, mode)
		}
		if ctx.Err() != nil {
			return
		}
		idle := errors.Is(end.err, errIdle)
		l.disconnected(end, idle)
		if end.responded || idle {
			pace.failures = 0
		} else {
			pace.failures++
		}
		if idle || !end.opened {
			// A connection that failed would go on connecting on its own; one
			// that was up is kept, because it remembers how often the server
			// lets itself be pinged.
			hangUp()
		}
	}
}

// noDelta reports whether a stream ended because delta cannot be spoken.
func noDelta(mode Mode, end sessionEnd) bool {
	return errors.Is(end.err, errForgetful) || mode == ModeAuto && !end.responded && status.Code(end.err) == codes.Unimplemented
}

// levelOf warns if the configuration asks for delta and does not get it.
func levelOf(mode Mode) slog.Level {
	if mode == ModeDelta {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// sessionEnd is how a stream ended.
type sessionEnd struct {
	// err is never nil.
	err error
	// opened is true if the stream was opened on a live connection.
	opened bool
	// responded is true if the server sent a message.
	responded bool
}

// connect dials unless conn is given, and runs one stream to its end.
func (l *link) connect(ctx context.Context, conn *grpc.ClientConn, mode Mode) (*grpc.ClientConn, sessionEnd) {
	if conn == nil {
		dialled, err := l.server.Dial(ctx)
		if err != nil {
			return nil, sessionEnd{err: fmt.Errorf("dial: %w", err)}
		}
		conn = dialled
	}
	return conn, l.session(ctx, conn, mode)
}

// awaitWatch waits until something is watched. It reports false when ctx ends.
func (l *link) awaitWatch(ctx context.Context) bool {
	for !l.watched() {
		select {
		case <-l.wake:
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

// watched reports whether anything is watched that the server is asked for, or kept
// until it can be.
func (l *link) watched() bool {
	l.client.mu.Lock()
	defer l.client.mu.Unlock()
	return slices.ContainsFunc(l.authorities, func(a *authority) bool { return a.watches+a.kept > 0 && a.usesLocked(l) })
}

// used reports whether the server may be asked at all.
func (l *link) used() bool {
	l.client.mu.Lock()
	defer l.client.mu.Unlock()
	return l.client.usedLocked(l)
}

// connectedTo notes that a stream is up.
func (l *link) connectedTo(s *stream, conn *grpc.ClientConn, mode Mode) {
	c := l.client
	c.mu.Lock()
	defer c.mu.Unlock()
	l.stream, l.conn = s, conn
	if (l.mode == ModeSotW) != (mode == ModeSotW) {
		// Versions of the one variant mean nothing to the other.
		l.forgetVersionsLocked()
	}
	l.mode = mode
	for _, lt := range l.order {
		lt.sub = newSubscription()
		for name, e := range lt.entries {
			if e.authority.usesLocked(l) {
				lt.pending[name] = struct{}{}
			}
		}
	}
	l.reportStreamLocked(true, nil)
}

// disconnected notes that there is no stream any more. Nothing that is held is
// touched.
func (l *link) disconnected(end sessionEnd, idle bool) {
	c := l.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	l.stream, l.conn, l.answers = nil, nil, false
	err := end.err
	if idle {
		err = nil
	}
	if err != nil {
		c.serial.add(func() { l.logger.Warn("xDS stream broke", "error", err, "responded", end.responded) })
		if !end.responded && c.usedLocked(l) {
			// A server that answered and then closed the stream is healthy
			// (gRFC A57); the next attempt shows whether it still is.
			l.connErr = marked{fmt.Errorf("xDS server %q is unavailable: %w", l.server.Name, err), ErrOffline}
		}
	}
	l.reportStreamLocked(false, err)
	for _, lt := range l.order {
		lt.sub = newSubscription()
		lt.unnamed = nil
		lt.pending = make(map[string]struct{})
	}
	for _, a := range l.authorities {
		if a.usesLocked(l) {
			c.fallBackLocked(a)
		}
	}
	for _, lt := range l.order {
		for _, e := range lt.entries {
			if !slices.Contains(e.authority.links, l) {
				continue
			}
			if e.awaits == l {
				e.timer.stopLocked(c)
				c.awaitAnyLocked(e)
			}
			if err := e.authority.offlineLocked(); err != nil {
				c.offlineLocked(e, err)
			}
			c.releaseLocked(e)
		}
	}
}

// recovered notes that the server answers, or at least has held a stream for a
// while.
func (l *link) recovered() {
	c := l.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.connErr == nil && len(l.client.links) == 1 {
		return
	}
	l.connErr = nil
	for _, lt := range l.order {
		for _, e := range lt.entries {
			if e.authority.usesLocked(l) {
				c.onlineLocked(e)
			}
		}
	}
}

// reportStreamLocked tells each change of the stream once.
func (l *link) reportStreamLocked(connected bool, err error) {
	if connected == l.connected && connected {
		return
	}
	l.connected = connected
	if hook := l.client.hooks.StreamChanged; hook != nil {
		event := observe.StreamEvent{Server: l.server.Name, Connected: connected, Err: err}
		l.client.serial.add(func() { hook(event) })
	}
}

// sleep reports whether d passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
