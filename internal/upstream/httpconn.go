package upstream

import (
	"context"
	"net"
	"net/http"

	"github.com/inboardmesh/inboard/internal/http1"
)

// httpConn is one HTTP connection. Its methods are those of [http.ClientConn].
type httpConn interface {
	RoundTrip(req *http.Request) (*http.Response, error)
	Reserve() error
	Release()
	Available() int
	InFlight() int
	Err() error
	Close() error
	// onChange calls f, without a lock, when Available increases, InFlight
	// decreases or Err becomes an error.
	onChange(f func())
	// leaving reports whether the peer takes no more requests over the connection, and
	// ends it behind those that it has. onChange's f is called when that begins.
	leaving() bool
	// refuses reports whether the peer takes no request any more for which a place is
	// reserved, or not all of them.
	refuses() bool
	// rest tells that the connection is idle before its first request: its peer may
	// close it as any other.
	rest()
	// check closes an idle connection that its peer has closed, if it has not
	// noticed yet.
	check()
}

// standardConn is net/http's, which reads all the time.
type standardConn struct{ *http.ClientConn }

var _ httpConn = standardConn{}

func (c standardConn) onChange(f func()) { c.SetStateHook(func(*http.ClientConn) { f() }) }
func (standardConn) check()              {}
func (standardConn) rest()               {}
func (standardConn) leaving() bool       { return false }
func (standardConn) refuses() bool       { return false }

// directConn is HTTP/1.1 on the goroutine of the caller, at about half the cost.
type directConn struct{ *http1.Conn }

var _ httpConn = directConn{}

func (c directConn) onChange(f func()) { c.SetStateHook(func(*http1.Conn) { f() }) }
func (c directConn) check()            { _ = c.Check() }
func (c directConn) rest()             { c.Rest() }
func (directConn) leaving() bool       { return false }
func (directConn) refuses() bool       { return false }

// newHTTP1 makes an HTTP/1.1 connection. One of which nobody can tell whether its
// peer has closed it, such as an application's dialer may make, needs net/http,
// which reads all the time.
func newHTTP1(ctx context.Context, t *transports, conn net.Conn, address string) (httpConn, error) {
	if http1.Usable(conn) {
		return directConn{http1.New(conn, &t.direct)}, nil
	}
	cc, err := newClientConn(ctx, t.http1, conn, address)
	if err != nil {
		return nil, err
	}
	return standardConn{cc}, nil
}
