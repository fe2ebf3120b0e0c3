package adstest

import (
	"context"
	"errors"
	"math"
	"net"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	loadstatsv3 "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/memnet"
)

const (
	defaultAddress  = "xds.test"
	defaultPatience = 5 * time.Minute
)

// Config says where a [Server] listens and what it is. The zero value is a
// server on a network of its own that speaks both variants.
type Config struct {
	// Network is where the server listens; nil means a network of its own.
	Network *memnet.Network
	// Address is the server's address on Network; "" means "xds.test".
	Address string
	// Credentials are those of the server; nil means plaintext. A client that
	// wants them dials by itself, [Server.Dial] is plaintext.
	Credentials credentials.TransportCredentials
	// RefuseDelta makes the server answer UNIMPLEMENTED to delta streams.
	RefuseDelta bool
	// Window is how many bytes the server lets a client send that it has not read; 0
	// means gRPC's default of 64 KiB, which a network holds that does not move.
	Window int32
	// Patience is how long the waiting methods wait before they fail the
	// test; 0 means 5 minutes, which take no time in a synctest bubble.
	Patience time.Duration
}

// Server is a scripted ADS server. Its methods may be called from any
// goroutine, but those that wait fail the test when nothing comes, so they
// belong on the test's own.
type Server struct {
	tb     testing.TB
	config Config
	opened *queue[*Stream]
	loads  *queue[*LoadStream]

	mu       sync.Mutex
	grpc     *grpc.Server             // guarded by mu; nil while stopped
	done     chan error               // guarded by mu; result of grpc.Serve
	frozen   bool                     // guarded by mu
	thawed   chan struct{}            // guarded by mu; closed by Thaw; nil unless frozen
	accepted []time.Time              // guarded by mu
	dialOpts []grpc.DialOption        // guarded by mu
	live     map[*serverConn]struct{} // guarded by mu
}

// Start starts a server that is stopped when the test ends.
func Start(tb testing.TB, config Config) *Server {
	tb.Helper()
	if config.Network == nil {
		config.Network = new(memnet.Network)
	}
	if config.Address == "" {
		config.Address = defaultAddress
	}
	if config.Patience == 0 {
		config.Patience = defaultPatience
	}
	s := &Server{
		tb:     tb,
		config: config,
		opened: newQueue[*Stream](),
		loads:  newQueue[*LoadStream](),
		live:   make(map[*serverConn]struct{}),
	}
	s.Restart()
	tb.Cleanup(s.Stop)
	return s
}

// Dial returns a new client connection to the server. It connects when it is
// first used, and the caller closes it.
func (s *Server) Dial(context.Context) (*grpc.ClientConn, error) {
	s.mu.Lock()
	options := append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return s.config.Network.DialContext(ctx, "tcp", address)
		}),
	}, s.dialOpts...)
	s.mu.Unlock()
	return grpc.NewClient("passthrough:///"+s.config.Address, options...)
}

// DialWith adds options to every later [Server.Dial], such as keepalive.
func (s *Server) DialWith(options ...grpc.DialOption) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialOpts = append(s.dialOpts, options...)
}

// Accept waits for the next stream that a client opens.
func (s *Server) Accept() *Stream {
	s.tb.Helper()
	stream, ok := s.opened.next(s.config.Patience)
	if !ok {
		s.tb.Fatalf("no stream was opened within %v", s.config.Patience)
	}
	return stream
}

// ExpectNoStream fails the test if a client opens a stream within d.
func (s *Server) ExpectNoStream(d time.Duration) {
	s.tb.Helper()
	if _, ok := s.opened.next(d); ok {
		s.tb.Fatalf("a stream was opened within %v", d)
	}
}

// Connects returns when each connection was accepted, oldest first.
func (s *Server) Connects() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Time(nil), s.accepted...)
}

// Open returns how many connections are open.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live)
}

// Stop closes the listener and every connection at once, as the death of the
// process does. Dialling is refused until [Server.Restart].
func (s *Server) Stop() {
	s.mu.Lock()
	server, done := s.grpc, s.done
	s.grpc, s.done = nil, nil
	s.mu.Unlock()
	if server == nil {
		return
	}
	s.Thaw()
	server.Stop()
	if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		s.tb.Errorf("serve ADS: %v", err)
	}
}

// Restart listens again after [Server.Stop]. It does nothing while the server
// runs.
func (s *Server) Restart() {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grpc != nil {
		return
	}
	l, err := s.config.Network.Listen(s.config.Address)
	if err != nil {
		s.tb.Fatalf("start ADS server: %v", err)
	}
	options := []grpc.ServerOption{grpc.MaxRecvMsgSize(math.MaxInt32)}
	if s.config.Credentials != nil {
		options = append(options, grpc.Creds(s.config.Credentials))
	}
	if s.config.Window > 0 {
		options = append(options, grpc.InitialWindowSize(s.config.Window), grpc.InitialConnWindowSize(s.config.Window))
	}
	server := grpc.NewServer(options...)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, handler{server: s})
	loadstatsv3.RegisterLoadReportingServiceServer(server, loadHandler{server: s})
	done := make(chan error, 1)
	s.grpc, s.done = server, done
	go func() { done <- server.Serve(&listener{Listener: l, server: s}) }()
}

// Freeze stops every connection from carrying bytes in either direction,
// without closing it: the peer has vanished. New connections are accepted and
// carry nothing.
func (s *Server) Freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.frozen {
		s.frozen, s.thawed = true, make(chan struct{})
	}
}

// Thaw undoes [Server.Freeze].
func (s *Server) Thaw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen {
		s.frozen = false
		close(s.thawed)
		s.thawed = nil
	}
}

// gate returns nil while bytes may pass, else a channel that is closed when
// they may.
func (s *Server) gate() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.thawed
}

// listener records connections and lets the server freeze them.
type listener struct {
	net.Listener
	server *Server
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	conn := &serverConn{Conn: c, server: l.server, closed: make(chan struct{})}
	l.server.mu.Lock()
	l.server.accepted = append(l.server.accepted, time.Now())
	l.server.live[conn] = struct{}{}
	l.server.mu.Unlock()
	return conn, nil
}

// serverConn is the server's end of a connection.
type serverConn struct {
	net.Conn
	server *Server
	once   sync.Once
	closed chan struct{}
}

func (c *serverConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.wait() {
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *serverConn) Write(p []byte) (int, error) {
	if !c.wait() {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

// wait returns when bytes may pass; it reports false if the connection was
// closed meanwhile.
func (c *serverConn) wait() bool {
	gate := c.server.gate()
	if gate == nil {
		return true
	}
	select {
	case <-gate:
		return true
	case <-c.closed:
		return false
	}
}

func (c *serverConn) Close() error {
	c.once.Do(func() {
		c.server.mu.Lock()
		delete(c.server.live, c)
		c.server.mu.Unlock()
		close(c.closed)
	})
	return c.Conn.Close()
}

// handler is the gRPC service.
type handler struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	server *Server
}

func (h handler) StreamAggregatedResources(ss discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	stream := newStream(h.server, false, ss)
	return stream.serve(func() (*Request, error) {
		request, err := ss.Recv()
		if err != nil {
			return nil, err
		}
		return fromSotW(request), nil
	})
}

func (h handler) DeltaAggregatedResources(ss discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	if h.server.config.RefuseDelta {
		return status.Error(codes.Unimplemented, "delta is not implemented here")
	}
	stream := newStream(h.server, true, ss)
	return stream.serve(func() (*Request, error) {
		request, err := ss.Recv()
		if err != nil {
			return nil, err
		}
		return fromDelta(request), nil
	})
}
