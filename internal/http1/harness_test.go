package http1_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/internal/http1"
	"github.com/inboardmesh/inboard/internal/memnet"
)

// roundTripper is what both roads are: ours, and net/http's.
type roundTripper interface {
	RoundTrip(req *http.Request) (*http.Response, error)
	Reserve() error
	Available() int
	Err() error
	Close() error
}

// road makes a client's side of a connection.
type road struct {
	name string
	open func(t *testing.T, conn net.Conn, settings *http.Transport) roundTripper
}

var roads = []road{
	{"net/http", func(t *testing.T, conn net.Conn, settings *http.Transport) roundTripper {
		t.Helper()
		tr := settings.Clone()
		tr.DialContext = func(context.Context, string, string) (net.Conn, error) { return conn, nil }
		cc, err := tr.NewClientConn(t.Context(), "http", "payment:80")
		if err != nil {
			t.Fatal(err)
		}
		return cc
	}},
	{"http1", func(_ *testing.T, conn net.Conn, settings *http.Transport) roundTripper {
		options := http1.OptionsOf(settings)
		return http1.New(conn, &options)
	}},
}

// server is the other end of a connection, which does what its script says.
type server struct {
	conn net.Conn
	br   *bufio.Reader
	// broken tells the client that the end of the stream is none.
	broken *atomic.Bool
	// got is every byte that was read.
	got bytes.Buffer
}

// step is one action of a script; false ends it.
type step func(s *server) bool

// head reads up to the end of a request's head.
func head(s *server) bool {
	for {
		line, err := s.br.ReadString('\n')
		s.got.WriteString(line)
		if err != nil {
			return false
		}
		if line == "\r\n" {
			return true
		}
	}
}

// body reads n bytes of a request's body.
func body(n int) step {
	return func(s *server) bool {
		_, err := io.CopyN(&s.got, s.br, int64(n))
		return err == nil
	}
}

// until reads until text has come.
func until(text string) step {
	return func(s *server) bool {
		from := s.got.Len()
		for !strings.Contains(string(s.got.Bytes()[from:]), text) {
			b, err := s.br.ReadByte()
			if err != nil {
				return false
			}
			s.got.WriteByte(b)
		}
		return true
	}
}

// say writes text.
func say(text string) step {
	return func(s *server) bool {
		_, err := io.WriteString(s.conn, text)
		return err == nil
	}
}

// bytewise writes text byte by byte, each in a packet of its own.
func bytewise(text string) step {
	return func(s *server) bool {
		for i := range len(text) {
			if _, err := io.WriteString(s.conn, text[i:i+1]); err != nil {
				return false
			}
			time.Sleep(time.Millisecond)
		}
		return true
	}
}

func pause(d time.Duration) step {
	return func(*server) bool { time.Sleep(d); return true }
}

// reset breaks the connection: the client reads no end, but an error.
func reset(s *server) bool {
	s.broken.Store(true)
	_ = s.conn.Close()
	return false
}

// breakable is a client's connection that the server may reset.
type breakable struct {
	net.Conn
	http1.Prober

	broken atomic.Bool
}

func (b *breakable) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if errors.Is(err, io.EOF) && b.broken.Load() {
		err = syscall.ECONNRESET
	}
	return n, err
}

func (b *breakable) CloseWrite() error { return b.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// hangUp closes the connection.
func hangUp(s *server) bool { _ = s.conn.Close(); return false }

// halfClose ends the sending side and goes on to read.
func halfClose(s *server) bool {
	_ = s.conn.(interface{ CloseWrite() error }).CloseWrite()
	_, _ = io.Copy(&s.got, s.br)
	return false
}

// deaf reads no more, and keeps the connection.
func deaf(*server) bool { time.Sleep(time.Hour); return false }

// call is one request and what its caller does with the response.
type call struct {
	method  string // "" is GET
	header  http.Header
	body    func() io.Reader // nil is none
	length  int64            // of the body; 0 is unknown, if there is one
	trailer http.Header
	closes  bool // Request.Close
	timeout time.Duration
	cancel  time.Duration // when the caller gives up; 0 is never
	// read is how many bytes of the response are read before it is closed; 0 is
	// all, closeAtOnce none.
	read  int
	after time.Duration // waits before reading
}

const closeAtOnce = -1

// scenario is what both roads are led through.
type scenario struct {
	name     string
	settings *http.Transport // nil is the zero value
	script   []step
	calls    []call
	// differs says why http1 does not do as net/http does, and want what it does.
	differs string
	want    func(t *testing.T, got []result)
}

// result is what became of a call.
type result struct {
	Err                 string
	Status              int
	Proto               string
	Header, Trailer     string
	Body, BodyErr       string
	Length              int64
	Close, Uncompressed bool
	Interim             string
	BodyClosed          bool
	Reusable            bool
	Took                time.Duration
}

// classOf says of an error what a caller may go by.
func classOf(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil:
		return ""
	case errors.Is(err, errBody):
		return "the request's body"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case strings.Contains(err.Error(), "http: ContentLength="):
		return "the request's length"
	case strings.Contains(err.Error(), "response headers exceeded"):
		return "too large"
	case strings.Contains(err.Error(), "closed response body"):
		return "closed"
	}
	return "broken"
}

var errBody = errors.New("the body cannot be read")

// lead takes one road through a scenario.
func lead(t *testing.T, r road, sc *scenario) (results []result, got string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		inner, peer := memnet.Pipe()
		client := &breakable{Conn: inner, Prober: inner.(http1.Prober)}
		s := &server{conn: peer, br: bufio.NewReader(peer), broken: &client.broken}
		served := make(chan struct{})
		go func() {
			defer close(served)
			for _, next := range sc.script {
				if !next(s) {
					return
				}
			}
			// What comes unasked is recorded.
			_, _ = io.Copy(&s.got, s.br)
		}()
		settings := sc.settings
		if settings == nil {
			settings = &http.Transport{}
		}
		cc := r.open(t, client, settings)
		for i := range sc.calls {
			results = append(results, sc.calls[i].make(cc))
		}
		_ = cc.Close()
		_ = client.Close()
		_ = peer.Close()
		<-served
		got = s.got.String()
	})
	return results, got
}

// make makes the call and tells what became of it.
func (c *call) make(cc roundTripper) (r result) {
	limit := c.timeout
	if limit == 0 {
		limit = 10 * time.Minute // what never ends is compared, too
	}
	ctx, stop := context.WithTimeout(context.Background(), limit)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if c.cancel > 0 {
		time.AfterFunc(c.cancel, cancel)
	} else if c.cancel < 0 {
		cancel()
	}
	var mu sync.Mutex
	var interim []string
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			mu.Lock()
			defer mu.Unlock()
			interim = append(interim, fmt.Sprint(code, " ", flat(http.Header(h))))
			return nil
		},
	})
	req, tracked := c.request(ctx)
	if tracked != nil {
		// net/http waits for the body, for ever; the mesh does this, too. A moment
		// later, because net/http itself does not know which of two ends it sees.
		defer context.AfterFunc(ctx, func() {
			time.Sleep(time.Microsecond)
			_ = tracked.Close()
		})()
	}
	defer func() {
		time.Sleep(time.Millisecond)
		synctest.Wait()
		mu.Lock()
		r.Interim = strings.Join(interim, "; ")
		mu.Unlock()
		r.BodyClosed = tracked == nil || tracked.isClosed()
		if tracked != nil {
			_ = tracked.Close()
		}
		if ours, ok := cc.(*http1.Conn); ok {
			_ = ours.Check()
		}
		r.Reusable = cc.Err() == nil && cc.Available() == 1
	}()
	if err := cc.Reserve(); err != nil {
		r.Err = "unusable"
		return r
	}
	resp, err := cc.RoundTrip(req)
	if err != nil {
		r.Err = classOf(err)
		return r
	}
	r.Status, r.Proto, r.Header, r.Length = resp.StatusCode, resp.Proto, flat(resp.Header), resp.ContentLength
	r.Close, r.Uncompressed = resp.Close, resp.Uncompressed
	time.Sleep(c.after)
	if resp.StatusCode == http.StatusSwitchingProtocols { // its context does not bound it
		defer time.AfterFunc(time.Second, func() { _ = resp.Body.Close() }).Stop()
	}
	var b []byte
	switch {
	case resp.StatusCode == http.StatusSwitchingProtocols && c.body == nil:
		b, err = converse(resp.Body)
	case c.read > 0:
		b = make([]byte, c.read)
		var n int
		n, err = io.ReadFull(resp.Body, b)
		b = b[:n]
	case c.read == 0:
		b, err = io.ReadAll(resp.Body)
	}
	r.Body, r.BodyErr = string(b), classOf(err)
	_ = resp.Body.Close()
	if tracked != nil {
		_ = tracked.Close() // as the mesh does when the call is over
	}
	r.Trailer = flat(resp.Trailer)
	if _, err := resp.Body.Read(make([]byte, 1)); err == nil {
		r.BodyErr += " (and a byte after its end)"
	}
	return r
}

// converse uses an upgraded connection both ways.
func converse(body io.ReadCloser) ([]byte, error) {
	rw, ok := body.(io.ReadWriter)
	if !ok {
		return io.ReadAll(body)
	}
	if _, err := io.WriteString(rw, "ping"); err != nil {
		return nil, err
	}
	return io.ReadAll(rw)
}

func (c *call) request(ctx context.Context) (*http.Request, *trackedBody) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://payment/charge?amount=1", http.NoBody)
	if err != nil {
		panic(err)
	}
	if c.method != "" {
		req.Method = c.method // NewRequest would refuse a bad one
	}
	req.Header = c.header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Trailer, req.Close = c.trailer, c.closes
	if c.body == nil {
		return req, nil
	}
	tracked := &trackedBody{Reader: c.body()}
	req.Body, req.ContentLength = tracked, c.length
	return req, tracked
}

// trackedBody knows whether it was closed, and wakes who reads it then.
type trackedBody struct {
	io.Reader

	mu     sync.Mutex
	closed bool
}

func (b *trackedBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if c, ok := b.Reader.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func (b *trackedBody) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

// InMemory lets http1 write small bodies at once.
func (b *trackedBody) InMemory() bool {
	switch b.Reader.(type) {
	case *strings.Reader, *bytes.Reader:
		return true
	}
	return false
}

func flat(h http.Header) string {
	lines := make([]string, 0, len(h))
	for name, values := range h {
		lines = append(lines, name+": "+strings.Join(values, ", "))
	}
	slices.Sort(lines)
	return strings.Join(lines, "|")
}

// normal is what a server got, without the order of the headers.
func normal(got string) string {
	head, rest, _ := strings.Cut(got, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	slices.Sort(lines)
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + rest
}

// compare leads both roads through a scenario and compares where they end.
func (sc *scenario) compare(t *testing.T) {
	t.Helper()
	want, wantGot := lead(t, roads[0], sc)
	results, got := lead(t, roads[1], sc)
	if sc.differs != "" {
		if slices.Equal(results, want) && normal(got) == normal(wantGot) {
			t.Errorf("it is said to differ (%s), and does not: %+v", sc.differs, results)
		}
		sc.want(t, results)
		return
	}
	if !slices.Equal(results, want) {
		t.Errorf("http1    %+v\nnet/http %+v", results, want)
	}
	if normal(got) != normal(wantGot) {
		t.Errorf("http1 sent    %q\nnet/http sent %q", got, wantGot)
	}
}
