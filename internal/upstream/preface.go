package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
)

// newHTTP2 makes an HTTP/2 connection and waits for the server's SETTINGS, with
// which every server begins (RFC 9113, section 3.4). Before them the client does
// not know how many streams it may open. net/http takes a hundred for granted,
// and stands still when more were reserved than the server then allows.
func newHTTP2(ctx context.Context, tr *http.Transport, conn net.Conn, address string) (httpConn, error) {
	preface := &prefaceConn{Conn: conn, settled: make(chan struct{}), closed: make(chan struct{})}
	cc, err := newClientConn(ctx, tr, preface, address)
	if err != nil {
		return nil, err
	}
	select {
	case <-preface.settled:
		return standardConn{cc}, nil
	case <-preface.closed:
		err = errors.New("closed by the peer before its settings: does it speak HTTP/2?")
	case <-ctx.Done():
		err = fmt.Errorf("no settings from the peer: %w", context.Cause(ctx))
	}
	return nil, errors.Join(fmt.Errorf("http2: %w", err), ignoreClosed(cc.Close()))
}

// prefaceConn notices when its reader has dealt with the first HTTP/2 frame: it
// wants more although it was given the whole of it. Read is called by net/http's
// read loop only.
type prefaceConn struct {
	net.Conn
	header [frameHeader]byte
	// read is how many bytes have been read, until the first frame is over.
	read    int
	over    bool
	settled chan struct{}

	closeOnce sync.Once
	closed    chan struct{}
}

// frameHeader is the length of a frame's header, which begins with the length
// of the rest in three bytes.
const frameHeader = 9

func (c *prefaceConn) Read(p []byte) (int, error) {
	if c.over {
		return c.Conn.Read(p)
	}
	if c.read >= frameHeader && c.read >= frameHeader+c.length() {
		c.over = true
		close(c.settled)
		return c.Conn.Read(p)
	}
	n, err := c.Conn.Read(p)
	if c.read < frameHeader {
		copy(c.header[c.read:], p[:n])
	}
	c.read += n
	return n, err
}

func (c *prefaceConn) length() int {
	return int(c.header[0])<<16 | int(c.header[1])<<8 | int(c.header[2])
}

// Close also tells who waits for the settings that there will be none.
func (c *prefaceConn) Close() error {
	c.closeOnce.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
