package httpmesh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
	"github.com/inboardmesh/inboard/retry"
)

// errDisk is what a reader of the battery fails of.
var errDisk = errors.New("disk on fire")

// batteryReader is a way in which a client gives its body.
type batteryReader struct {
	name  string
	fails bool
	heavy bool // not for bodies of several MiB
	read  func(content []byte) io.Reader
}

var batteryReaders = []batteryReader{
	{name: "at once", read: func(p []byte) io.Reader { return bytes.NewReader(p) }},
	{name: "its end with its last bytes", read: func(p []byte) io.Reader { return iotest.DataErrReader(bytes.NewReader(p)) }},
	{name: "in small pieces", heavy: true, read: func(p []byte) io.Reader { return &pieces{Reader: bytes.NewReader(p), most: 700} }},
	{name: "slowly", read: func(p []byte) io.Reader {
		return &pieces{Reader: bytes.NewReader(p), most: len(p)/4 + 1, pause: 5 * time.Millisecond}
	}},
	{name: "half of it, and fails", fails: true, read: func(p []byte) io.Reader {
		return io.MultiReader(bytes.NewReader(p[:len(p)/2]), iotest.ErrReader(errDisk))
	}},
	{name: "all of it, and fails", fails: true, heavy: true, read: func(p []byte) io.Reader {
		return io.MultiReader(bytes.NewReader(p), iotest.ErrReader(errDisk))
	}},
}

// batteryFault is what happens to the first two attempts of a call.
type batteryFault struct {
	name string
	// serve answers instead of the payment; nil is the payment.
	serve func(p *batteryPayment, rw http.ResponseWriter, r *http.Request, n int64)
	// cut closes the connection when the client has written so many bytes.
	cut bool
	// early is a good answer that does not wait for the body.
	early bool
}

var batteryFaults = []batteryFault{
	{name: "nothing"},
	{name: "503 after the body", serve: func(p *batteryPayment, rw http.ResponseWriter, r *http.Request, _ int64) {
		p.read(r)
		rw.WriteHeader(http.StatusServiceUnavailable)
	}},
	{name: "503 at once", serve: func(_ *batteryPayment, rw http.ResponseWriter, _ *http.Request, _ int64) {
		rw.WriteHeader(http.StatusServiceUnavailable)
	}},
	{name: "503 after n bytes", serve: func(_ *batteryPayment, rw http.ResponseWriter, r *http.Request, n int64) {
		_, _ = io.CopyN(io.Discard, r.Body, n)
		rw.WriteHeader(http.StatusServiceUnavailable)
	}},
	{name: "a reset after n bytes", serve: func(_ *batteryPayment, _ http.ResponseWriter, r *http.Request, n int64) {
		_, _ = io.CopyN(io.Discard, r.Body, n)
		panic(http.ErrAbortHandler)
	}},
	{name: "a connection that ends after n bytes", cut: true},
	{name: "200 after n bytes", early: true, serve: func(_ *batteryPayment, rw http.ResponseWriter, r *http.Request, n int64) {
		_, _ = io.CopyN(io.Discard, r.Body, n)
		rw.WriteHeader(http.StatusOK)
	}},
}

// batteryPayment notes every body that came to its end, and the trailers after it.
type batteryPayment struct {
	mu               sync.Mutex
	hashes, trailers []string // guarded by mu
}

func (p *batteryPayment) read(r *http.Request) {
	hash := sha256.New()
	if _, err := io.Copy(hash, r.Body); err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hashes = append(p.hashes, hex.EncodeToString(hash.Sum(nil)))
	p.trailers = append(p.trailers, r.Trailer.Get("X-Sum"))
}

// cutConn ends when so many bytes have been written to it.
type cutConn struct {
	net.Conn
	left atomic.Int64
}

func (c *cutConn) Write(p []byte) (int, error) {
	left := c.left.Add(-int64(len(p))) + int64(len(p))
	if left >= int64(len(p)) {
		return c.Conn.Write(p)
	}
	n, _ := c.Conn.Write(p[:max(left, 0)])
	_ = c.Close()
	return n, net.ErrClosed
}

// batteryCase is one call.
type batteryCase struct {
	size                    int
	reader                  *batteryReader
	fault                   *batteryFault
	known, getBody, trailer bool
}

// BR14, BR15: a client's body reaches an upstream whole or not at all, whatever its
// size, however it is read and wherever an attempt breaks off, with its trailers.
func TestBR14_BR15_TheBatteryOfBodies(t *testing.T) {
	t.Parallel()
	const several = 3 << 20
	n := 0
	for _, size := range []int{0, 1, replayLimit - 1, replayLimit, replayLimit + 1, several} {
		for i := range batteryReaders {
			reader := &batteryReaders[i]
			if reader.heavy && size == several {
				continue
			}
			for j := range batteryFaults {
				// Of what can be combined freely, each combination comes in turn.
				n++
				bc := batteryCase{
					size: size, reader: reader, fault: &batteryFaults[j],
					known: n%2 == 0, getBody: n/2%2 == 0, trailer: n%2 == 1 && n/4%2 == 0,
				}
				name := fmt.Sprintf("%d bytes, given %s, %s, length known %t, GetBody %t, trailers %t",
					size, reader.name, bc.fault.name, bc.known, bc.getBody, bc.trailer)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) { bc.run(t, protocol) })
				})
			}
		}
	}
}

func (bc *batteryCase) run(t *testing.T, protocol func(*discovery.Target)) {
	t.Helper()
	content := make([]byte, bc.size)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	breakOff := rand.Int64N(int64(bc.size) + 500)
	var payment batteryPayment
	var w *world
	w = newWorld(t, newTarget(protocol, retrying(retry.Policy{MaxRetries: 2, On: retry.On5xx})),
		func(rw http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost {
				// A connection that was cut within HTTP/2's preface, "PRI * HTTP/2.0",
				// looks to net/http's server like a request: it is none of the client's.
				return
			}
			if serve := bc.fault.serve; serve != nil && w.served.Load() <= 2 {
				serve(&payment, rw, r, breakOff)
				return
			}
			payment.read(r)
		})
	if bc.fault.cut {
		var conns atomic.Int64
		w.dialed = func(conn net.Conn) net.Conn {
			if conns.Add(1) > 2 {
				return conn
			}
			cut := &cutConn{Conn: conn}
			cut.left.Store(breakOff)
			return cut
		}
	}
	var bodies []*tracked
	req := newRequest(t.Context(), t, http.MethodPost, paymentURL, nil)
	if bc.trailer {
		req.Trailer = http.Header{"X-Sum": nil}
	}
	open := func() io.ReadCloser {
		body := &tracked{Reader: bc.reader.read(content)}
		if bc.trailer {
			body.Reader = &atEOF{Reader: body.Reader, then: func() { req.Trailer.Set("X-Sum", sum(content)) }}
		}
		bodies = append(bodies, body)
		return body
	}
	req.Body = open()
	if bc.known {
		req.ContentLength = int64(bc.size)
	}
	if bc.getBody {
		req.GetBody = func() (io.ReadCloser, error) { return open(), nil }
	}
	resp, err := w.transport.RoundTrip(req)
	if err == nil {
		if resp.StatusCode == http.StatusOK && !bc.fault.early {
			_ = readAll(t, resp)
		} else {
			_ = resp.Body.Close() // an answer that has cut the body off may have no end
		}
	}
	synctest.Wait()
	bc.check(t, resp, err, &payment, sum(content), breakOff)
	for i, b := range bodies {
		if b.closed.Load() == 0 {
			t.Errorf("body %d of %d was not closed", i+1, len(bodies))
		}
	}
	w.idle()
}

// check holds what has arrived to what was sent.
func (bc *batteryCase) check(t *testing.T, resp *http.Response, err error, payment *batteryPayment, want string, breakOff int64) {
	t.Helper()
	payment.mu.Lock()
	defer payment.mu.Unlock()
	for i, hash := range payment.hashes {
		if hash != want {
			t.Errorf("complete body %d of %d is not the client's (broken off at %d)", i+1, len(payment.hashes), breakOff)
		}
		if bc.trailer && payment.trailers[i] != want {
			t.Errorf("complete body %d of %d has the trailer %q", i+1, len(payment.hashes), payment.trailers[i])
		}
	}
	ok := err == nil && resp.StatusCode == http.StatusOK
	e, _ := errors.AsType[*meshfail.Error](err)
	switch {
	case bc.reader.fails:
		if len(payment.hashes) > 0 && !bc.endsBefore() {
			t.Errorf("%d broken bodies passed for complete ones", len(payment.hashes))
		}
		if bc.fault.serve == nil && !bc.fault.cut && !bc.endsBefore() && (e == nil || e.Kind != outcome.BodyFailure || !errors.Is(err, errDisk)) {
			t.Errorf("got %v, %v, want the reader's failure", resp, err)
		}
	case bc.fault.early:
		if !ok && (bc.getBody || bc.size <= replayLimit) {
			t.Errorf("got %v, %v (answered after %d)", resp, err, breakOff)
		}
	case bc.getBody || bc.size <= replayLimit:
		// It can be sent again: the third attempt is good.
		if !ok || len(payment.hashes) == 0 {
			t.Errorf("got %v, %v and %d complete bodies (broken off at %d)", resp, err, len(payment.hashes), breakOff)
		}
	case err == nil && resp.StatusCode == http.StatusOK && len(payment.hashes) == 0:
		t.Error("a call went well without its body")
	case err != nil && errors.Is(err, context.Canceled):
		t.Errorf("nobody gave up, and yet: %v", err)
	}
}

// endsBefore reports whether a body of known length has been given whole when its
// reader fails: nobody reads as far as the failure.
func (bc *batteryCase) endsBefore() bool {
	return bc.known && bc.size > 0 && bc.reader.name == "all of it, and fails"
}

// atEOF calls a function when its reader has ended.
type atEOF struct {
	io.Reader
	then func()
}

func (r *atEOF) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		r.then()
	}
	return n, err
}
