package http1

import (
	"context"
	"errors"
)

// Error is why a request has no response.
type Error struct {
	// Unsendable is set if the request cannot be sent as it is, or its body could
	// not be read: nobody else's fault.
	Unsendable bool
	// Written is false only if no byte of the request was written.
	Written bool
	// Stale is set if the connection, which was not a new one, ended before a byte
	// of an answer came. The peer may have closed it while it was
	// idle and never have seen the request; or it may have acted on it.
	Stale bool
	Err   error
}

// Error is the text of the cause.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

var (
	errClosed      = errors.New("http1: the connection is closed")
	errClosedIdle  = errors.New("http1: the peer closed the idle connection, or sent something over it")
	errDeaf        = errors.New("http1: the connection does not keep to its read deadline: have the dialer return one that does")
	errNoDeadlines = errors.New("http1: the connection has no deadlines, and may hold more than the answer")
	errUnsolicited = errors.New("http1: the peer sent bytes on the idle connection")
	errBusy        = errors.New("http1: the connection is in use")
	errUpgraded    = errors.New("http1: the connection was upgraded")
	errNotReusable = errors.New("http1: the connection cannot be used again")
	errAbandoned   = errors.New("http1: nobody waits for the response any more")
	errEarlyClose  = errors.New("http1: the response was closed before its end")
	errBodyClosed  = errors.New("http: read on closed response body")
	errNoContinue  = errors.New("http1: the peer does not want the body")
)

// headerTimeoutError is net/http's timeout of Transport.ResponseHeaderTimeout.
type headerTimeoutError struct{}

// Is makes it a context.DeadlineExceeded, as net/http's is.
func (headerTimeoutError) Is(err error) bool { return err == context.DeadlineExceeded }

func (headerTimeoutError) Error() string   { return "net/http: timeout awaiting response headers" }
func (headerTimeoutError) Timeout() bool   { return true }
func (headerTimeoutError) Temporary() bool { return true }
