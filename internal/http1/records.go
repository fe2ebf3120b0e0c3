package http1

import (
	"errors"
	"net"
	"os"
)

// Records is a network connection below TLS that knows what TLS has read and not given
// yet. A [Conn] over TLS has one, or else is looked at before each request.
type Records interface {
	// Ahead reports whether TLS may have more than it has given.
	Ahead() bool
	// Hold has reads fail at once with [os.ErrDeadlineExceeded], until it is called with
	// false.
	Hold(on bool)
	// Admit lets one read pass that Hold would have failed.
	Admit()
}

// recordsOf is the Records that a connection below TLS is, nil if it is none.
func recordsOf(conn net.Conn) Records {
	r, _ := conn.(Records)
	return r
}

// silent reports whether nothing has come behind a response that has ended. In the clear,
// and if it is opaque, that is seen when the connection is used again. TLS reads more than
// it gives: what it holds would be taken for the answer to the next request.
func (c *Conn) silent() bool {
	switch {
	case c.records == nil:
		return true
	case c.br.Buffered() > 0:
		return false
	case !c.records.Ahead() && !c.in.filled:
		return true
	}
	c.records.Hold(true)
	defer c.records.Hold(false)
	_, err := c.br.Peek(1)
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// unasked returns why a connection over TLS cannot carry its first request, nil if it can.
// What a server sends behind its handshake, such as session tickets, is read meanwhile.
// What it says to nobody would be taken for the answer. It waits for nothing: there is
// either more in the socket, or in TLS.
func (c *Conn) unasked() error {
	c.records.Hold(true)
	defer c.records.Hold(false)
	for {
		switch _, err := c.br.Peek(1); {
		case err == nil:
			return errUnsolicited
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return errClosedIdle
		}
		if readable, _ := c.prober.Readable(); !readable {
			return nil
		}
		c.records.Admit()
	}
}
