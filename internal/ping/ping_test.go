package ping

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// peer reads the frames that a client writes, and answers those of PING.
type peer struct {
	framer *http2.Framer
	start  time.Time
	silent atomic.Bool

	mu    sync.Mutex
	pings []time.Duration // guarded by mu
}

// asked is when the peer was asked.
func (p *peer) asked() []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.pings)
}

// serve begins with a client's preface. It ends with the connection.
func (p *peer) serve(conn net.Conn) {
	if _, err := io.ReadFull(conn, make([]byte, prefaceLength)); err != nil {
		return
	}
	for {
		f, err := p.framer.ReadFrame()
		if err != nil {
			return
		}
		if ping, ok := f.(*http2.PingFrame); ok {
			p.mu.Lock()
			p.pings = append(p.pings, time.Since(p.start))
			p.mu.Unlock()
			if !p.silent.Load() {
				_ = p.framer.WritePing(true, ping.Data)
			}
		}
	}
}

// client writes frames on a connection with settings and reads what comes.
func client(t *testing.T, s Settings) (conn net.Conn, framer *http2.Framer, p *peer, ended <-chan error) {
	t.Helper()
	near, far := net.Pipe()
	p = &peer{start: time.Now(), framer: http2.NewFramer(far, far)}
	go p.serve(far)
	conn = Client(near, s)
	t.Cleanup(func() { _ = conn.Close(); _ = far.Close() })
	end := make(chan error, 1)
	go func() {
		for {
			if _, err := conn.Read(make([]byte, 100)); err != nil {
				end <- err
				return
			}
		}
	}()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer = http2.NewFramer(conn, nil)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return conn, framer, p, end
}

func TestASilentPeerIsAskedAfterTheInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn, _, p, _ := client(t, Settings{Interval: 10 * time.Second, Timeout: time.Second})
		time.Sleep(35 * time.Second)
		_ = conn.Close()
		synctest.Wait()
		if len(p.asked()) < 3 || p.asked()[0] != 10*time.Second || p.asked()[2]-p.asked()[1] > 11*time.Second {
			t.Errorf("asked after %v, want every 10 s", p.asked())
		}
	})
}

func TestAPeerThatDoesNotAnswerIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, framer, p, ended := client(t, Settings{Interval: 10 * time.Second, Timeout: 3 * time.Second})
		p.silent.Store(true)
		err := <-ended
		if took := time.Since(p.start); took != 13*time.Second {
			t.Errorf("left after %v, want 13 s", took)
		}
		for _, err := range []error{err, framer.WriteSettings()} {
			if err == nil || !strings.Contains(err.Error(), "has not answered a PING for 3s") || !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("the error is %v", err)
			}
		}
	})
}

func TestAnyByteIsAnAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn, _, p, ended := client(t, Settings{Interval: 10 * time.Second, Timeout: 3 * time.Second})
		p.silent.Store(true)
		synctest.Wait()
		for range 12 { // settings, every five seconds, are no answer to a PING
			time.Sleep(5 * time.Second)
			if err := p.framer.WriteSettings(); err != nil {
				t.Fatal(err)
			}
		}
		if len(p.asked()) > 0 {
			t.Errorf("a peer that is heard of was asked after %v", p.asked())
		}
		time.Sleep(12 * time.Second)
		if err := p.framer.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(8 * time.Second)
		select {
		case err := <-ended:
			t.Errorf("closed: %v", err)
		default:
		}
		_ = conn.Close()
		synctest.Wait()
		if len(p.asked()) == 0 {
			t.Error("the peer was not asked")
		}
	})
}

func TestIntervalsHaveJitter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn, _, p, _ := client(t, Settings{Interval: 10 * time.Second, Jitter: 50, Timeout: time.Second})
		time.Sleep(10 * time.Minute)
		_ = conn.Close()
		synctest.Wait()
		least, most := time.Hour, time.Duration(0)
		for i := 1; i < len(p.asked()); i++ {
			gap := p.asked()[i] - p.asked()[i-1]
			least, most = min(least, gap), max(most, gap)
		}
		// An answer is noticed after the timeout.
		if least < 10*time.Second || most > 15*time.Second || most-least < 2*time.Second {
			t.Errorf("asked every %v to %v, want 10 to 15 s", least, most)
		}
	})
}

func TestANewStreamAsksAPeerThatWasIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, framer, p, ended := client(t, Settings{Idle: 30 * time.Second, Timeout: 2 * time.Second})
		headers := func(stream uint32) {
			t.Helper()
			if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x82}, EndHeaders: true}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		time.Sleep(29 * time.Second)
		headers(1)
		if len(p.asked()) != 0 {
			t.Error("asked before it was idle for long enough")
		}
		time.Sleep(2 * time.Second)
		headers(1) // trailers
		if len(p.asked()) != 0 {
			t.Error("trailers are no new stream")
		}
		headers(3)
		if len(p.asked()) != 1 {
			t.Errorf("asked after %v, want 31 s", p.asked())
		}
		time.Sleep(time.Minute)
		p.silent.Store(true)
		headers(5)
		before := time.Now()
		<-ended
		if took := time.Since(before); took != 2*time.Second {
			t.Errorf("left after %v, want 2 s", took)
		}
	})
}

// Frames are whole whatever the pieces they are written in, and no header block is
// torn apart.
func TestFramesAreNotTornApart(t *testing.T) {
	t.Parallel()
	var written bytes.Buffer
	f := http2.NewFramer(&written, nil)
	_, _ = written.WriteString(http2.ClientPreface)
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingEnablePush})
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("abc")})
	_ = f.WriteContinuation(1, false, []byte("def"))
	_ = f.WriteContinuation(1, true, nil)
	_ = f.WriteData(1, true, make([]byte, 100))
	all := written.Bytes()
	settings := prefaceLength + frameHeader + 6
	allowed := map[int]bool{settings: true, settings + 12 + 12 + 9: true, len(all): true}
	for size := 1; size <= len(all); size++ {
		follow, opened := newFrames(), 0
		for at := 0; at < len(all); at += size {
			end := min(at+size, len(all))
			if follow.wrote(all[at:end]) {
				opened++
			}
			if got := follow.between(); got != allowed[end] {
				t.Fatalf("in pieces of %d: between frames after %d bytes is %v, want %v", size, end, got, allowed[end])
			}
		}
		if opened != 1 {
			t.Fatalf("in pieces of %d: %d streams, want 1", size, opened)
		}
	}
}

// net/http on both sides, in a bubble: requests of a megabyte each way go through
// while the peer is asked, and an answer that nobody asked for does no harm.
func TestRequestsPassWhileThePeerIsAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		listener := &oneConn{conns: make(chan net.Conn, 1), done: make(chan struct{})}
		listener.conns <- far
		server := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			time.Sleep(5 * time.Second)
			_, _ = w.Write(body)
		})}
		server.Protocols.SetUnencryptedHTTP2(true)
		go func() { _ = server.Serve(listener) }()
		defer func() { _ = server.Close() }()

		transport := &http.Transport{Protocols: new(http.Protocols), DialContext: func(context.Context, string, string) (net.Conn, error) {
			return Client(near, Settings{Interval: time.Second, Idle: time.Nanosecond, Timeout: time.Second}), nil
		}}
		transport.Protocols.SetUnencryptedHTTP2(true)
		defer transport.CloseIdleConnections()
		body := strings.Repeat("x", 1<<20)
		for range 3 {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://payment/", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			if err != nil || string(got) != body {
				t.Errorf("%d bytes came back: %v", len(got), err)
			}
			_ = resp.Body.Close()
		}
	})
}

type oneConn struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	return nil
}

func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }
