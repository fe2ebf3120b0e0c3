package http1

import (
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

// Usable reports whether a [Conn] can be made of a connection: it must be
// possible to notice, before it is used again, that the peer has closed it.
func Usable(conn net.Conn) bool {
	_, known := Readable(conn)
	return known
}
