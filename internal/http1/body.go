package http1

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// responseBody is an exchange whose response is being read. Close may be called
// while a Read runs.
type responseBody exchange

func (b *responseBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	switch {
	case b.over != nil:
		defer b.mu.Unlock()
		return 0, b.over
	case b.closed:
		b.mu.Unlock()
		return 0, errBodyClosed
	}
	b.reading = true
	b.mu.Unlock()

	n, err := b.body.Read(p)
	b.read += int64(n)

	if err != nil {
		err = b.end(err)
	}
	b.mu.Lock()
	b.reading = false
	if err != nil {
		b.over = err
	}
	b.mu.Unlock()
	return n, err
}

// end settles the exchange and returns what its reader is told.
func (b *responseBody) end(err error) error {
	x := (*exchange)(b)
	if errors.Is(err, io.EOF) {
		x.finish(x.keep)
		return err
	}
	ctx := x.req.Context()
	x.catchUp(err)
	switch own := x.conn.Err(); {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case own != nil && errors.Is(err, net.ErrClosed):
		err = own
	}
	_ = x.conn.fail(err)
	x.finish(false)
	return err
}

// Close ends the exchange. A response that was not read to its end costs the
// connection, unless the rest is here already.
func (b *responseBody) Close() error {
	b.mu.Lock()
	if b.closed || b.over != nil {
		b.closed = true
		b.mu.Unlock()
		return nil //nolint:nilerr // what ended the body was told to its reader
	}
	b.closed = true
	reading := b.reading
	b.mu.Unlock()
	x := (*exchange)(b)
	if !reading && x.keep && x.length >= 0 && x.length-x.read <= int64(x.conn.br.Buffered()) {
		x.finish(x.drained())
		return nil
	}
	_ = x.conn.fail(errEarlyClose)
	x.finish(false)
	return nil
}

// drained reads what is left of the response and reports whether it is whole.
func (x *exchange) drained() bool {
	_, err := io.Copy(io.Discard, x.body)
	return err == nil
}

// gzipBody decompresses a response whose caller did not ask for compression.
type gzipBody struct {
	body *responseBody
	zr   *gzip.Reader // nil until the first Read
	err  error
}

func (g *gzipBody) Read(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	g.body.mu.Lock()
	closed := g.body.closed
	g.body.mu.Unlock()
	if closed {
		return 0, errBodyClosed
	}
	if g.zr == nil {
		if g.zr, g.err = gzip.NewReader(g.body); g.err != nil {
			return 0, g.err
		}
	}
	n, err := g.zr.Read(p)
	if err != nil {
		g.err = err
	}
	return n, err
}

func (g *gzipBody) Close() error { return g.body.Close() }

// upgrade hands the network connection to whoever reads the response. The
// request's context does not bound it any more, as in net/http.
func (x *exchange) upgrade(resp *http.Response) {
	x.aside.proceed(true)
	x.finishUpgrade()
	resp.Body = &upgraded{conn: x.conn.conn, br: x.conn.br}
}

func (x *exchange) finishUpgrade() {
	if x.unwatch != nil && !x.unwatch() {
		return // the context has ended: the connection is being closed
	}
	x.conn.setDeadline(time.Time{})
	x.conn.take()
	x.mu.Lock()
	x.ended = true
	x.mu.Unlock()
}

// upgraded is the body of a 101 response: the connection, after what was read of
// it already. Read and Write may be called at the same time.
type upgraded struct {
	conn net.Conn

	mu sync.Mutex
	br *bufio.Reader // guarded by mu; nil once it is empty
}

var _ io.ReadWriteCloser = (*upgraded)(nil)

func (u *upgraded) Read(p []byte) (int, error) {
	u.mu.Lock()
	if u.br != nil {
		if n := u.br.Buffered(); n > 0 {
			defer u.mu.Unlock()
			return u.br.Read(p[:min(n, len(p))])
		}
		u.br = nil
	}
	u.mu.Unlock()
	return u.conn.Read(p)
}

func (u *upgraded) Write(p []byte) (int, error) { return u.conn.Write(p) }

func (u *upgraded) Close() error { return u.conn.Close() }

// CloseWrite ends the sending side.
func (u *upgraded) CloseWrite() error {
	if half, ok := u.conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
