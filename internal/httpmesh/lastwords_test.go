package httpmesh

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// mortal is a server of HTTP/2 on a real socket. It answers the first requests of each
// connection, and dies over the next ones when they have arrived whole.
type mortal struct {
	address string
	config  *tls.Config // nil in the clear
	answers int         // of each connection, before it dies
	over    int         // requests that it dies over
	deaths  int64       // connections that die, the first ones; 0 is all
	// arrived is told how many requests have arrived whole, before this one is answered;
	// nil if nobody needs to know.
	arrived func(n int64)
	// ackLate is whether it acknowledges the client's settings only when it dies.
	ackLate bool
	// die ends a connection. The requests that it dies over are the streams.
	die func(c *mortalConn, streams []uint32)

	ln       net.Listener
	serving  sync.WaitGroup
	requests atomic.Int64 // that have arrived whole
	accepted atomic.Int64
}

type mortalConn struct {
	*http2.Framer
	net.Conn // with TLS

	raw *net.TCPConn
}

// reset ends the connection as the system of a process does that was killed.
func (c *mortalConn) reset() {
	_ = c.raw.SetLinger(0)
	_ = c.raw.Close()
}

func (m *mortal) start(t *testing.T) {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.ln, m.address = ln, ln.Addr().String()
	t.Cleanup(func() {
		_ = ln.Close()
		m.serving.Wait()
	})
	m.serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			number := m.accepted.Add(1)
			m.serving.Go(func() { m.serve(conn, m.deaths == 0 || number <= m.deaths) })
		}
	})
}

func (m *mortal) serve(conn net.Conn, dies bool) {
	c := &mortalConn{Conn: conn, raw: conn.(*net.TCPConn)}
	if m.config != nil {
		c.Conn = tls.Server(conn, m.config)
	}
	defer func() { _ = c.Conn.Close() }()
	if _, err := io.ReadFull(c.Conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	c.Framer = http2.NewFramer(c.Conn, c.Conn)
	const window = 1 << 20 // it never says anything of it again
	_ = c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
	_ = c.WriteWindowUpdate(0, window)
	if !m.ackLate {
		_ = c.WriteSettingsAck()
	}
	var whole []uint32
	for {
		frame, err := c.ReadFrame()
		if err != nil {
			return
		}
		ended := false
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			ended = frame.StreamEnded()
		case *http2.DataFrame:
			ended = frame.StreamEnded()
		}
		if !ended {
			continue
		}
		n := m.requests.Add(1)
		if m.arrived != nil {
			m.arrived(n)
		}
		if whole = append(whole, frame.Header().StreamID); !dies || len(whole) <= m.answers {
			c.answer(frame.Header().StreamID)
		}
		if dies && len(whole) == m.answers+m.over {
			m.die(c, whole[m.answers:])
			return
		}
	}
}

// head writes the head of a response.
func (c *mortalConn) head(stream uint32, status string, ended bool) {
	var block bytes.Buffer
	_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: status})
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: ended})
}

func (c *mortalConn) answer(stream uint32) { c.head(stream, "200", true) }

// late is a client's connection over which the end comes late: it is read, and given when
// something was written.
type late struct {
	net.Conn
	ended   chan struct{} // closed when the end has been read
	written chan struct{} // closed when something was written since
	end     sync.Once
	write   sync.Once
}

func (l *late) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if err != nil {
		l.end.Do(func() { close(l.ended) })
		<-l.written
	}
	return n, err
}

func (l *late) Write(p []byte) (int, error) {
	select {
	case <-l.ended:
		defer l.write.Do(func() { close(l.written) })
	default:
	}
	return l.Conn.Write(p)
}

func (l *late) Close() error {
	err := l.Conn.Close()
	l.write.Do(func() { close(l.written) })
	return err
}

// mortalWorld is a client of a mortal server.
type mortalWorld struct {
	*Transport

	// dialed has the client's connections, if their ends come late.
	dialed                  chan *late
	calls, attempts, opened atomic.Int64
}

func newMortalWorld(t *testing.T, m *mortal, secured, holds bool, edit ...func(*discovery.Target)) *mortalWorld {
	t.Helper()
	w := &mortalWorld{dialed: make(chan *late, 100)}
	options := upstream.Options{Hooks: &observe.Hooks{
		CallEnded:    func(context.Context, *observe.Call) { w.calls.Add(1) },
		AttemptEnded: func(context.Context, *observe.Attempt) { w.attempts.Add(1) },
		ConnOpened:   func(observe.ConnEvent) { w.opened.Add(1) },
	}}
	options.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil || !holds {
			return conn, err
		}
		l := &late{Conn: conn, ended: make(chan struct{}), written: make(chan struct{})}
		w.dialed <- l
		return l, nil
	}
	edit = append(edit, plainRoutes, over(discovery.HTTP2))
	if secured {
		ca := tlstest.NewCA(t)
		identity, err := meshtls.NewIdentity(ca.Workload(t, "spiffe://cluster.local/ns/shop/sa/payment"), []*x509.Certificate{ca.Certificate})
		if err != nil {
			t.Fatal(err)
		}
		source := meshtls.NewStatic(identity)
		options.Identity = func(string) (meshtls.Source, error) { return source, nil }
		m.config, err = meshtls.ServerConfig(meshtls.ServerParams{
			Identity: source, Roots: source, Authorize: meshtls.AuthorizeAny(),
			RequireClientCertificate: true, NextProtos: []string{"h2"},
		})
		if err != nil {
			t.Fatal(err)
		}
		edit = append(edit, func(target *discovery.Target) {
			target.Clusters["v1"].Cluster.TLS = &discovery.UpstreamTLS{IdentityInstance: "default", RootInstance: "default"}
		})
	}
	m.start(t)
	edit = append(edit, func(target *discovery.Target) {
		target.Clusters["v1"].Endpoints.Localities = []balancer.LocalityEndpoints{{
			Weight: 1, Endpoints: []balancer.Endpoint{{Address: m.address, Weight: 1, Health: balancer.Healthy}},
		}}
	})
	upstreams := upstream.NewManager(options)
	outbound := pipeline.NewOutbound(fixed{newTarget(edit...)}, upstreams, options.Hooks)
	t.Cleanup(func() {
		outbound.Close()
		upstreams.Close()
	})
	w.Transport = NewTransport(outbound, nil)
	return w
}

// get makes a call that is answered.
func (w *mortalWorld) get(t *testing.T) {
	t.Helper()
	resp, err := w.RoundTrip(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, resp)
}
