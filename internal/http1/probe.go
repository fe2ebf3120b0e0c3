package http1

import (
	"crypto/tls"
	"net"
	"syscall"
)

// Prober is a network connection that tells without waiting whether a Read would
// return at once, be it with bytes, with the end of the stream or with a failure.
// known is false if it cannot tell.
type Prober interface {
	Readable() (readable, known bool)
}

// Readable asks a connection whether a Read would return at once. It
// knows of every [Prober] and, on Unix, of every [syscall.Conn]. Who asks often
// keeps what [ProberOf] returns.
func Readable(conn net.Conn) (readable, known bool) {
	if p := ProberOf(conn); p != nil {
		return p.Readable()
	}
	return false, false
}

// ProberOf is who knows of a connection, or of the one below it (a [crypto/tls.Conn] has
// one, as has whatever else has its method NetConn); nil if nobody does.
func ProberOf(conn net.Conn) Prober {
	for {
		above, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = above.NetConn()
	}
	switch c := conn.(type) {
	case Prober:
		return c
	case syscall.Conn:
		return newSocket(c)
	}
	return nil
}

// Transparent is a network connection of the mesh's own around another one. It reads no
// more of that than it is asked for, or is [Records].
type Transparent interface{ Around() net.Conn }

// opaque reports whether a connection may have read what it has not given yet, and nobody
// knows whether it has: one that an application's dialer has made, such as a
// [crypto/tls.Conn], or whatever has a connection and a buffer of its own. A look at the
// socket below does not tell of those.
func opaque(conn net.Conn) bool {
	if secured, ok := conn.(*tls.Conn); ok {
		if conn = secured.NetConn(); recordsOf(conn) == nil {
			return true
		}
	}
	for {
		around, ok := conn.(Transparent)
		if !ok {
			break
		}
		conn = around.Around()
	}
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn, Prober:
		return false
	}
	return true
}

// Usable reports whether a [Conn] can be made of a connection: it must be
// possible to notice, before it is used again, that the peer has closed it.
func Usable(conn net.Conn) bool {
	_, known := Readable(conn)
	return known
}
