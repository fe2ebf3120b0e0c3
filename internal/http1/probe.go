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

// Readable asks a connection, below TLS, whether a Read would return at once. It
// knows of every [Prober] and, on Unix, of every [syscall.Conn].
func Readable(conn net.Conn) (readable, known bool) {
	for {
		secured, ok := conn.(*tls.Conn)
		if !ok {
			break
		}
		conn = secured.NetConn()
	}
	switch c := conn.(type) {
	case Prober:
		return c.Readable()
	case syscall.Conn:
		return peek(c)
	}
	return false, false
}

// Usable reports whether a [Conn] can be made of a connection: it must be
// possible to notice, before it is used again, that the peer has closed it.
func Usable(conn net.Conn) bool {
	_, known := Readable(conn)
	return known
}
