package http1

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"time"
)

// Conn is one HTTP/1.1 connection, for one request at a time. Close it. Its
// methods are safe for concurrent use.
type Conn struct {
	conn    net.Conn
	prober  Prober  // nil if nobody knows; guarded by mu, or belongs to who has reserved
	records Records // nil in the clear, and if the connection is opaque
	opaque  bool    // only a look tells what it holds
	opened  time.Time
	options *Options
	// cancel ends the connection with the context of its request. It is made once.
	cancel func()
	br     *bufio.Reader
	in     limitedReader
	out    wireWriter
	// deadline is what the connection's read and write deadlines are set to; only
	// the request in flight touches it.
	deadline time.Time

	mu       sync.Mutex
	state    state       // guarded by mu
	err      error       // guarded by mu; set once the connection cannot be used
	taken    bool        // guarded by mu; an upgrade took it over
	rested   bool        // guarded by mu; see Rest
	requests int         // guarded by mu; so far
	hook     func(*Conn) // guarded by mu
}

type state uint8

const (
	idle state = iota
	reserved
	inFlight
)

// New makes a connection of a network connection, for which [Usable] must hold,
// and which must be made and, if it is to be, secured already. options must not
// change.
func New(conn net.Conn, options *Options) *Conn {
	c := &Conn{conn: conn, prober: ProberOf(conn), opaque: opaque(conn), opened: time.Now(), options: options}
	c.cancel = func() { _ = c.fail(context.Canceled) } // the request knows why
	if secured, ok := conn.(*tls.Conn); ok && !c.opaque {
		c.records = recordsOf(secured.NetConn())
	}
	c.in = limitedReader{conn: conn, left: math.MaxInt64}
	c.br = bufio.NewReaderSize(&c.in, options.readBuffer())
	c.out = wireWriter{conn: conn, buffer: make([]byte, 0, options.writeBuffer())}
	return c
}

// SetStateHook arranges for f to be called when the connection becomes available
// or unusable. It is called without a lock, from RoundTrip, from the body of a
// response, from Close, Check or Release, and by several at once.
func (c *Conn) SetStateHook(f func(*Conn)) {
	c.mu.Lock()
	c.hook = f
	c.mu.Unlock()
}

// Reserve takes the connection for the next RoundTrip or Release. It fails if the
// connection is in use, or if the peer has closed it or sent something meanwhile.
func (c *Conn) Reserve() error {
	c.mu.Lock()
	err, first := c.err, c.requests == 0
	switch {
	case err != nil:
	case c.state != idle:
		c.mu.Unlock()
		return errBusy
	case !c.opaque:
		err = c.quietLocked()
	}
	if err == nil {
		c.state = reserved
	}
	c.mu.Unlock()
	if err == nil && c.opaque {
		err = c.look(first)
	}
	if err != nil {
		_ = c.fail(err)
	}
	return err
}

// Check closes the connection if it is idle and its peer has closed it, and
// returns what [Conn.Err] then does.
func (c *Conn) Check() error {
	c.mu.Lock()
	err := c.checkLocked()
	c.mu.Unlock()
	if err != nil {
		_ = c.fail(err)
	}
	return err
}

// checkLocked looks at an idle connection without waiting. The lock keeps a
// request from starting meanwhile, whose answer would look like an end.
func (c *Conn) checkLocked() error {
	if c.err != nil || c.state != idle {
		return c.err
	}
	return c.quietLocked()
}

// freshTime is how long a connection that nobody has used counts as new.
const freshTime = time.Second

// freshLocked reports whether the connection has just been made, so that its peer
// cannot have thought it idle.
func (c *Conn) freshLocked() bool { return c.requests == 0 && time.Since(c.opened) < freshTime }

// quietLocked returns why an idle connection cannot be used, nil if nothing has come over
// it, or nothing but what TLS itself has to say before the first request.
func (c *Conn) quietLocked() error {
	if c.br.Buffered() > 0 {
		return errUnsolicited
	}
	if c.requests == 0 && c.records != nil && c.prober != nil {
		return c.unasked()
	}
	if c.prober != nil {
		if readable, _ := c.prober.Readable(); readable {
			return errClosedIdle
		}
	}
	return nil
}

// Rest tells that the connection waits for its first request, which came too late for it to
// count as new.
func (c *Conn) Rest() {
	c.mu.Lock()
	c.rested = true
	c.mu.Unlock()
}

// Release gives back a reservation that is not used.
func (c *Conn) Release() {
	c.mu.Lock()
	if c.state != reserved {
		c.mu.Unlock()
		return
	}
	c.state = idle
	hook := c.hook
	c.mu.Unlock()
	if hook != nil {
		hook(c)
	}
}

// Available is 1 if a request can be sent now, else 0.
func (c *Conn) Available() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.state != idle {
		return 0
	}
	return 1
}

// InFlight is 1 if there is a request, or a reservation for one, else 0. It is 0
// on a connection that cannot be used any more.
func (c *Conn) InFlight() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.state == idle {
		return 0
	}
	return 1
}

// Err is why the connection cannot be used any more, nil if it can.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close closes the connection and breaks the exchange that uses it. A connection
// that was upgraded belongs to whoever has the response.
func (c *Conn) Close() error { return c.fail(errClosed) }

// fail makes the connection unusable. The first cause stays.
func (c *Conn) fail(cause error) error {
	c.mu.Lock()
	if c.taken {
		c.mu.Unlock()
		return nil
	}
	first := c.err == nil
	if first {
		c.err = cause
	}
	hook := c.hook
	c.mu.Unlock()
	if !first {
		return nil
	}
	err := c.conn.Close()
	if hook != nil {
		hook(c)
	}
	return err
}

// take hands the network connection over to the application.
func (c *Conn) take() {
	c.mu.Lock()
	c.taken = true
	if c.err == nil {
		c.err = errUpgraded
	}
	hook := c.hook
	c.mu.Unlock()
	if hook != nil {
		hook(c)
	}
}

// begin starts a request on the connection, reserved or not. stale is whether its
// peer may have closed it while it was idle.
func (c *Conn) begin() (stale bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return false, c.err
	case c.state == inFlight:
		return false, errBusy
	}
	c.state = inFlight
	stale = c.rested || !c.freshLocked()
	c.requests++
	return stale, nil
}

// end makes the connection available again.
func (c *Conn) end() {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.state = idle
	hook := c.hook
	c.mu.Unlock()
	if hook != nil {
		hook(c)
	}
}

// setDeadline sets the deadlines of the connection, zero for none.
func (c *Conn) setDeadline(t time.Time) {
	if c.deadline.Equal(t) {
		return
	}
	c.deadline = t
	_ = c.conn.SetDeadline(t) // on a closed connection reads and writes fail anyway
}

// RoundTrip sends one request, once, and returns when the head of the response
// has come. The request's context bounds the exchange until the response's body
// has ended. An error is an *[Error]; the request's body has been closed, or will
// be as soon as the goroutine that reads it notices.
//
// The headers must be the request's own: one may be added while it is written.
func (c *Conn) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := validate(req); err != nil {
		c.Release()
		closeBody(req)
		return nil, &Error{Unsendable: true, Err: err}
	}
	stale, err := c.begin()
	if err != nil {
		closeBody(req)
		return nil, &Error{Err: err}
	}
	x := &exchange{conn: c, req: req, stale: stale}
	returned := false
	defer func() {
		if !returned { // the application's trace has panicked, or ended the goroutine
			_ = x.abort(&Error{Err: errAbandoned})
		}
	}()
	resp, err := x.run()
	returned = true
	return resp, err
}

// limitedReader reads from the network, as much as the head of a response may
// have.
type limitedReader struct {
	conn net.Conn
	left int64
	// received is how much came for the request in flight.
	received int64
	// ended is whether the peer has ended the stream.
	ended bool
	// filled is whether the last Read gave all that was asked for: there may be more.
	filled bool
}

func (r *limitedReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, errHeaderTooLarge
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.conn.Read(p)
	r.left -= int64(n)
	r.received += int64(n)
	r.filled = n == len(p)
	r.ended = r.ended || errors.Is(err, io.EOF)
	return n, err
}

var errHeaderTooLarge = errors.New("the response's headers are too large")

func headerTooLarge(limit int64) error {
	return fmt.Errorf("net/http: server response headers exceeded %d bytes; aborted", limit)
}
