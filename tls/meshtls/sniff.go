package meshtls

import (
	"errors"
	"io"
	"net"
)

// Sniff reports whether a connection begins with TLS. What it reads for that, the
// connection that it returns reads again; conn itself is not to be read any more.
// It waits for the first bytes, until the connection's read deadline. A connection
// that ends before its first byte is io.EOF.
func Sniff(conn net.Conn) (same net.Conn, tls bool, err error) {
	prefix, tls, err := sniff(conn)
	if err != nil {
		return nil, false, err
	}
	return withPrefix(conn, prefix), tls, nil
}

// sniffLength is how many bytes tell TLS from anything else.
const sniffLength = 3

// isTLS reports whether a connection that begins with these bytes is TLS: a
// record of type handshake (22), major version 3, minor version up to 4 (RFC
// 8446, section 5.1). decided is false if more bytes are needed. The hello of
// SSLv2 and a PROXY header are not TLS.
func isTLS(prefix []byte) (tls, decided bool) {
	switch {
	case len(prefix) > 0 && prefix[0] != 0x16:
		return false, true
	case len(prefix) > 1 && prefix[1] != 0x03:
		return false, true
	case len(prefix) >= sniffLength:
		return prefix[2] <= 0x04, true
	}
	return false, false
}

// sniff reads the first bytes, however they are cut, until they tell TLS from
// plaintext. It returns all the bytes that it read. The error of a connection
// that ended before its first byte is io.EOF; one that ended while still
// undecided was no TLS, and is given to whoever speaks plaintext.
func sniff(r io.Reader) (prefix []byte, tls bool, err error) {
	buffer := make([]byte, 0, sniffLength)
	for {
		n, err := r.Read(buffer[len(buffer):sniffLength])
		buffer = buffer[:len(buffer)+n]
		if tls, decided := isTLS(buffer); decided {
			return buffer, tls, nil
		}
		if err == io.EOF && len(buffer) > 0 {
			return buffer, false, nil
		}
		if err != nil {
			return buffer, false, err
		}
	}
}

// prefixConn gives back the bytes that sniff took. Like every net.Conn it may
// be read by one goroutine and written by another.
type prefixConn struct {
	net.Conn
	prefix []byte // used by the reading goroutine only
}

func (c *prefixConn) Read(p []byte) (int, error) {
	if len(c.prefix) > 0 {
		n := copy(p, c.prefix)
		c.prefix = c.prefix[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// NetConn is the connection below, as [crypto/tls.Conn.NetConn] is.
func (c *prefixConn) NetConn() net.Conn { return c.Conn }

// ReadFrom keeps the short ways that the connection may have for files.
func (c *prefixConn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

// CloseWrite half-closes the connection, if it can be.
func (c *prefixConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// tcpPrefixConn is prefixConn without hiding what a TCP connection can do:
// half-close, and sendfile through ReadFrom.
type tcpPrefixConn struct {
	*net.TCPConn
	prefix []byte // used by the reading goroutine only
}

func (c *tcpPrefixConn) Read(p []byte) (int, error) {
	if len(c.prefix) > 0 {
		n := copy(p, c.prefix)
		c.prefix = c.prefix[n:]
		return n, nil
	}
	return c.TCPConn.Read(p)
}

// WriteTo must not bypass the prefix, as the embedded one would.
func (c *tcpPrefixConn) WriteTo(w io.Writer) (int64, error) {
	var written int64
	for len(c.prefix) > 0 {
		n, err := w.Write(c.prefix)
		c.prefix = c.prefix[n:]
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
	n, err := c.TCPConn.WriteTo(w)
	return written + n, err
}

func withPrefix(conn net.Conn, prefix []byte) net.Conn {
	if tcp, ok := conn.(*net.TCPConn); ok {
		return &tcpPrefixConn{TCPConn: tcp, prefix: prefix}
	}
	return &prefixConn{Conn: conn, prefix: prefix}
}
