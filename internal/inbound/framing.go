package inbound

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strconv"
	"sync/atomic"
)

// errFraming ends the reading of a connection behind a request that can be read in
// two ways.
var errFraming = errors.New("the length of a request can be read in two ways")

// linePrefix is how much of a line is looked at: no name of a header that tells of a
// length is longer, and no length that is worth believing.
const linePrefix = 64

// framing follows the requests of an HTTP/1.1 connection through its bytes, for what
// net/http does not tell: that a request had Content-Length beside
// Transfer-Encoding, or Transfer-Encoding in HTTP/1.0 (RFC 9112, section 6.1). Such a
// request is made one that net/http refuses with 400, and nothing that follows it is
// handed on. So is nothing behind a request whose length is not understood: a reader
// that has lost its place would take a body for requests.
//
// The zero value is at the beginning of a connection. It is for one goroutine.
type framing struct {
	in    position
	left  uint64 // of a body, or of a chunk with its line end
	ended bool   // nothing more is handed on

	// The line that is being read: how it begins and ends, and its length.
	prefix [linePrefix]byte
	ending [len(versionEnding) + len("\r")]byte
	length int

	// What the head has said so far.
	old, connect, upgrade bool // before HTTP/1.1; the method CONNECT; asks for an upgrade
	lengths, codings      int
	size                  uint64
	bad, unknown          bool // refuse with 400; let net/http refuse
	last                  field
	// preface counts the lines of HTTP/2's preface that were read; behind it, beyond is
	// how much of what was read with its end is no part of it.
	preface, beyond int
}

// versionEnding is how the first line of a request ends.
const versionEnding = " HTTP/1.1"

type position byte

const (
	inRequestLine position = iota
	inHeader
	inBody
	inChunkLine
	inChunk
	inTrailer
	// notHTTP is behind an upgrade, CONNECT, or the preface of HTTP/2.
	notHTTP
)

// field is a header that matters here.
type field byte

const (
	fieldOther field = iota
	fieldLength
	fieldCoding
	fieldUpgrade
)

// read is what was read from a connection into p: n bytes, of which it returns how
// many are handed on.
func (f *framing) read(p []byte, n int) int {
	for i := 0; i < n; {
		switch f.in {
		case notHTTP:
			f.beyond = n - i
			return n
		case inBody, inChunk:
			taken := min(f.left, uint64(n-i))
			i, f.left = i+int(taken), f.left-taken
			if f.left == 0 {
				f.in = f.afterData()
			}
			continue
		}
		if f.in == inRequestLine && f.length == 0 && (p[i] == '\r' || p[i] == '\n') {
			i++ // what some clients send behind a body
			continue
		}
		end := bytes.IndexByte(p[i:n], '\n')
		if end < 0 {
			f.note(p[i:n])
			return n
		}
		f.note(p[i : i+end])
		i += end
		if f.line(); f.bad {
			// A line without a colon: net/http answers 400.
			p[i], f.ended = 0, true
			return i + 1
		}
		i++
		if f.ended {
			return i
		}
	}
	return n
}

// note takes a piece of a line.
func (f *framing) note(p []byte) {
	if f.length < linePrefix {
		copy(f.prefix[f.length:], p)
	}
	if len(p) >= len(f.ending) {
		copy(f.ending[:], p[len(p)-len(f.ending):])
	} else {
		kept := copy(f.ending[:], f.ending[len(p):])
		copy(f.ending[kept:], p)
	}
	f.length += len(p)
}

// line ends a line.
func (f *framing) line() {
	length := f.length
	if length > 0 && f.ending[len(f.ending)-1] == '\r' {
		length--
	}
	text := f.prefix[:min(length, linePrefix)]
	switch f.in {
	case inRequestLine:
		f.requestLine(text)
	case inHeader:
		if length == 0 {
			f.head()
		} else {
			f.header(text, length > linePrefix)
		}
	case inChunkLine:
		f.chunk(text)
	case inTrailer:
		if length == 0 {
			f.in = inRequestLine
		}
	}
	clear(f.ending[:])
	f.length = 0
}

func (f *framing) requestLine(text []byte) {
	next := framing{
		in:      inHeader,
		connect: bytes.HasPrefix(text, []byte("CONNECT ")),
		old:     !bytes.HasSuffix(bytes.TrimSuffix(f.ending[:], []byte("\r")), []byte(versionEnding)),
	}
	switch {
	case string(text) == "PRI * HTTP/2.0":
		next.preface = 1
	case f.preface == 1 && string(text) == "SM":
		next.preface = 2
	}
	*f = next
}

// header takes a line of a head, or its beginning.
func (f *framing) header(text []byte, cut bool) {
	if text[0] == ' ' || text[0] == '\t' {
		// It belongs to the line before, for some readers.
		f.bad = f.last == fieldLength || f.last == fieldCoding
		f.upgrade = f.upgrade || f.last == fieldUpgrade
		return
	}
	name, value, _ := bytes.Cut(text, []byte(":"))
	value = bytes.Trim(value, " \t")
	f.last = fieldOther
	switch {
	case bytes.EqualFold(name, []byte("content-length")):
		f.last = fieldLength
		size, err := strconv.ParseUint(string(value), 10, 63)
		f.bad = f.bad || err != nil || cut || f.lengths > 0 && size != f.size
		f.lengths, f.size = f.lengths+1, size
	case bytes.EqualFold(name, []byte("transfer-encoding")):
		f.last = fieldCoding
		f.unknown = f.unknown || cut || f.codings > 0 || !bytes.EqualFold(value, []byte("chunked"))
		f.codings++
	case bytes.EqualFold(name, []byte("upgrade")):
		f.last = fieldUpgrade
		f.upgrade = f.upgrade || cut || !IsNoUpgrade(string(value))
	}
}

// IsNoUpgrade reports whether a value of the header Upgrade asks for what no server
// here does: clients ask for HTTP/2 with any request, and go on in HTTP/1.1.
func IsNoUpgrade(value string) bool { return value == "h2c" }

// head ends a head.
func (f *framing) head() {
	switch {
	case f.codings > 0 && (f.lengths > 0 || f.old):
		f.bad = true
	case f.unknown:
		f.ended = true // net/http answers 501
	case f.preface == 2, f.connect, f.upgrade:
		f.in = notHTTP
	case f.codings > 0:
		f.in = inChunkLine
	case f.size > 0:
		f.in, f.left = inBody, f.size
	default:
		f.in = inRequestLine
	}
}

// chunk takes the line before a chunk.
func (f *framing) chunk(text []byte) {
	text, _, _ = bytes.Cut(text, []byte(";"))
	size, err := strconv.ParseUint(string(bytes.TrimRight(text, " \t")), 16, 62)
	switch {
	case err != nil:
		f.ended = true // net/http ends the connection
	case size == 0:
		f.in = inTrailer
	default:
		f.in, f.left = inChunk, size+uint64(len("\r\n"))
	}
}

// afterData is what follows a body, or a chunk.
func (f *framing) afterData() position {
	if f.in == inChunk {
		return inChunkLine
	}
	return inRequestLine
}

// http2 reports whether the preface of HTTP/2 has been read.
func (f *framing) http2() bool { return f.in == notHTTP && f.preface == 2 }

// framedConn is a connection in plaintext whose requests are followed, or those of
// HTTP/2 its frames.
type framedConn struct {
	net.Conn
	reader framedReader
	// parting is set when the preface of HTTP/2 has been read, which a server of HTTP/2
	// reads before it writes.
	parting atomic.Pointer[partingConn]
}

func (c *framedConn) Read(p []byte) (int, error) {
	if parting := c.parting.Load(); parting != nil {
		return parting.Read(p)
	}
	n, err := c.reader.read(c.Conn, p)
	if n > 0 && c.reader.framing.http2() {
		parting := partingOf(c.Conn)
		parting.follow(p[n-c.reader.framing.beyond : n])
		c.parting.Store(parting)
	}
	return n, err
}

func (c *framedConn) Write(p []byte) (int, error) {
	if parting := c.parting.Load(); parting != nil {
		return parting.Write(p)
	}
	return c.Conn.Write(p)
}

// NetConn is the connection below, as of a [crypto/tls.Conn].
func (c *framedConn) NetConn() net.Conn { return c.Conn }

// ReadFrom keeps the short ways that a TCP connection has for files, which HTTP/2 does
// not take.
func (c *framedConn) ReadFrom(r io.Reader) (int64, error) {
	if parting := c.parting.Load(); parting != nil {
		return io.Copy(parting, r)
	}
	return io.Copy(c.Conn, r)
}

// CloseWrite half-closes the connection, if it can be.
func (c *framedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// framedTLS is a TLS connection whose requests are followed. net/http asks it for its
// ConnectionState, as it does every connection.
type framedTLS struct {
	*tls.Conn
	reader framedReader
}

func (c *framedTLS) Read(p []byte) (int, error) { return c.reader.read(c.Conn, p) }

// framedReader follows what is read until the connection is not for requests any more.
type framedReader struct {
	framing framing
	tracked *trackedConn
	closed  bool // the line that was spoilt has had its end
}

func (r *framedReader) read(conn io.Reader, p []byte) (int, error) {
	if r.tracked.upgraded.Load() {
		return conn.Read(p)
	}
	if r.framing.ended {
		if r.framing.bad && !r.closed && len(p) > 0 {
			r.closed, p[0] = true, '\n'
			return 1, nil
		}
		return 0, errFraming
	}
	n, err := conn.Read(p)
	if n == 0 {
		return n, err
	}
	if n = r.framing.read(p, n); r.framing.ended {
		err = nil // the next call has one
	}
	return n, err
}

// Framed reports whether the requests over the connection of a peer are followed, so
// that none can have two lengths.
func (ln *Listener) Framed(remote string) bool {
	c := ln.known.find(remote)
	return c != nil && c.framed.Load()
}

// framed follows the requests of a connection of HTTP/1.1; those of HTTP/2 have one
// length each.
func framed(conn net.Conn) net.Conn {
	tracked := trackedOf(conn)
	if tracked == nil {
		return conn
	}
	if secure, ok := conn.(*tls.Conn); ok {
		if secure.ConnectionState().NegotiatedProtocol == "h2" {
			return conn
		}
		conn = &framedTLS{Conn: secure, reader: framedReader{tracked: tracked}}
	} else {
		conn = &framedConn{Conn: conn, reader: framedReader{tracked: tracked}}
	}
	tracked.framed.Store(true)
	return conn
}
