package ads

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/observe"
)

// idleTimeout is how long the connection stays open after the last watch.
const idleTimeout = 30 * time.Second

// connections keeps one stream up while anything is watched. It ends with ctx.
func (c *Client) connections(ctx context.Context) {
	var (
		conn *grpc.ClientConn
		pace backoff
		mode = c.server.Mode
	)
	hangUp := func() {
		if conn != nil {
			if err := conn.Close(); err != nil {
				c.logger.Debug("close xDS connection", "error", err)
			}
			conn = nil
		}
	}
	defer hangUp()
	for c.awaitWatch(ctx) {
		if !sleep(ctx, pace.delay(time.Now())) {
			return
		}
		if !c.watched() {
			continue
		}
		pace.last = time.Now()
		var end sessionEnd
		conn, end = c.connect(ctx, conn, mode)
		if mode == ModeAuto && !end.responded && status.Code(end.err) == codes.Unimplemented {
			// The server is there and healthy, it only speaks the other
			// variant: no back-off, and no report of a broken stream.
			c.logger.Info("xDS server does not implement delta, using the state of the world")
			mode = ModeSotW
			conn, end = c.connect(ctx, conn, mode)
		}
		if ctx.Err() != nil {
			return
		}
		idle := errors.Is(end.err, errIdle)
		c.disconnected(end, idle)
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
func (c *Client) connect(ctx context.Context, conn *grpc.ClientConn, mode Mode) (*grpc.ClientConn, sessionEnd) {
	if conn == nil {
		dialled, err := c.server.Dial(ctx)
		if err != nil {
			return nil, sessionEnd{err: fmt.Errorf("dial: %w", err)}
		}
		conn = dialled
	}
	return conn, c.session(ctx, conn, mode)
}

// awaitWatch waits until something is watched. It reports false when ctx ends.
func (c *Client) awaitWatch(ctx context.Context) bool {
	for !c.watched() {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

func (c *Client) watched() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watches > 0
}

// connectedTo notes that a stream is up.
func (c *Client) connectedTo(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stream = s
	for _, ts := range c.order {
		ts.sub = newSubscription()
		for name := range ts.entries {
			ts.pending[name] = struct{}{}
		}
	}
	c.reportStreamLocked(true, nil)
}

// disconnected notes that there is no stream any more. Nothing that is held is
// touched.
func (c *Client) disconnected(end sessionEnd, idle bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.stream = nil
	err := end.err
	if idle {
		err = nil
	}
	if err != nil {
		c.serial.add(func() { c.logger.Warn("xDS stream broke", "error", err, "responded", end.responded) })
		if !end.responded {
			// A server that answered and then closed the stream is healthy
			// (gRFC A57); the next attempt shows whether it still is.
			c.connErr = fmt.Errorf("xDS server %q is unavailable: %w", c.server.Name, err)
		}
	}
	c.reportStreamLocked(false, err)
	for _, ts := range c.order {
		ts.sub = newSubscription()
		ts.unnamed = nil
		clear(ts.pending)
		for _, e := range ts.entries {
			e.timer.stopLocked(c)
			if c.connErr != nil {
				c.offlineLocked(e)
			}
			c.releaseLocked(e)
		}
	}
}

// recovered notes that the server answers, or at least has held a stream for a
// while.
func (c *Client) recovered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.connErr == nil {
		return
	}
	c.connErr = nil
	for _, ts := range c.order {
		for _, e := range ts.entries {
			c.onlineLocked(e)
		}
	}
}

// reportStreamLocked tells each change of the stream once.
func (c *Client) reportStreamLocked(connected bool, err error) {
	if connected == c.connected && connected {
		return
	}
	c.connected = connected
	if hook := c.hooks.StreamChanged; hook != nil {
		event := observe.StreamEvent{Server: c.server.Name, Connected: connected, Err: err}
		c.serial.add(func() { hook(event) })
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
