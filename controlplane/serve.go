package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	// shutdownGrace is for how long calls may end by themselves.
	shutdownGrace = 2 * time.Second
	// handshakeTimeout bounds how long a connection may take to become one.
	handshakeTimeout = 10 * time.Second
	// maxCalls bounds the calls on one connection. A client has one stream; fewer than
	// this would be less than RFC 9113 recommends.
	maxCalls = 100
	// maxRequest bounds a request: one of the state of the world has every name that a
	// stream may have of a type, and what there is beside them.
	maxRequest = maxNameBytes + 4<<20
	// maxResponse is what Inboard's clients take.
	maxResponse = 256 << 20
)

// Listeners are where to serve. Each may be nil, but not all of them. Serve
// closes them.
type Listeners struct {
	// Secure serves ADS, the CA and gRPC health over TLS 1.3. It needs a CA.
	Secure net.Listener
	// Plaintext serves ADS and gRPC health to whoever connects.
	Plaintext net.Listener
	// Status serves [Server.StatusHandler].
	Status net.Listener
}

// Serve serves until ctx ends or the server is closed, and then returns nil
// when all calls have ended, after two seconds at most: the streams of ADS are
// ended, and what has that time are calls of the CA, and those who watch the health.
// Connections over which nothing was asked yet are closed at once. An error of a
// listener ends it as well, and is returned.
func (s *Server) Serve(ctx context.Context, listeners Listeners) error {
	defer listeners.close()
	end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	if err := s.check(listeners); err != nil {
		return err
	}
	s.fitFiles(listeners)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	var wg sync.WaitGroup
	var stops []func()
	failed := make(chan error, 3) // one for each listener
	run := func(name string, listener *bounded, serve func(net.Listener) error, stop func()) {
		s.logger.Info("listening", "listener", name, "address", listener.Addr().String())
		wg.Go(func() { // until stop
			if err := serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve %s listener: %w", name, err)
			}
		})
		stops = append(stops, func() {
			listener.end()
			stop()
		})
	}
	if listeners.Secure != nil {
		server := grpc.NewServer(s.serverOptions(s.secureCredentials(), plainPeer)...)
		s.register(ctx, server, true)
		run("secure", s.connections.bound(listeners.Secure), server.Serve, func() { stopGRPC(server) })
	}
	if listeners.Plaintext != nil {
		server := grpc.NewServer(s.serverOptions(insecure.NewCredentials())...)
		s.register(ctx, server, false)
		run("plaintext", s.connections.bound(listeners.Plaintext), server.Serve, func() { stopGRPC(server) })
	}
	if listeners.Status != nil {
		server := &http.Server{
			Handler:           s.StatusHandler(),
			ReadHeaderTimeout: handshakeTimeout,
			ReadTimeout:       handshakeTimeout,
			WriteTimeout:      time.Minute,
			IdleTimeout:       maxIdle,
			ConnState:         countHTTP,
			ErrorLog:          slog.NewLogLogger(s.logger.Handler(), slog.LevelWarn),
		}
		run("status", newConnections(maxStatusConnections, s.logger).bound(listeners.Status), server.Serve, func() { stopHTTP(server) })
	}

	select {
	case <-ctx.Done():
	case <-s.ctx.Done():
	case err = <-failed:
	}
	cancel() // the streams end
	for _, stop := range stops {
		wg.Go(stop)
	}
	wg.Wait()
	return err
}

func (s *Server) check(listeners Listeners) error {
	if listeners == (Listeners{}) {
		return errors.New("serve: no listener is given")
	}
	if listeners.Secure != nil && s.ca == nil {
		return errors.New("serve: the secure listener needs a CA")
	}
	return nil
}

func (l Listeners) close() {
	for _, listener := range []net.Listener{l.Secure, l.Plaintext, l.Status} {
		if listener != nil {
			_ = listener.Close() // closed already, unless serving did not begin
		}
	}
}

// fitFiles sees to it that connections leave files for everything else.
func (s *Server) fitFiles(listeners Listeners) {
	for _, listener := range []net.Listener{listeners.Secure, listeners.Plaintext} {
		if _, ok := listener.(*net.TCPListener); !ok {
			continue // in memory, or nobody knows
		}
		if files, known := openFiles(); known {
			if most, lowered := s.connections.fit(files); lowered {
				s.logger.Warn("fewer connections are allowed than are configured: the process may not have as many files open", "connections", most, "files", files)
			}
		}
		return
	}
}

func (s *Server) serverOptions(creds credentials.TransportCredentials, unary ...grpc.UnaryServerInterceptor) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(counted{creds}),
		grpc.InTapHandle(s.connections.tap),
		grpc.ChainUnaryInterceptor(append([]grpc.UnaryServerInterceptor{countUnary}, unary...)...),
		grpc.StreamInterceptor(s.connections.countStream),
		// Clients ping every 30 s; grpc-go closes a connection with pings
		// more often than every 5 minutes unless it is told.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		// And we ping them, so that a client that vanished does not stay. A connection
		// without a call is asked to go: who needs it makes another one.
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: maxIdle, Time: 30 * time.Second, Timeout: 20 * time.Second}),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.MaxConcurrentStreams(maxCalls),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxSendMsgSize(maxResponse),
		grpc.WaitForHandlers(true),
	}
}

// stopGRPC lets calls end, for a while. The ADS streams have been told to;
// what lingers is a call of the CA, or somebody who watches the health.
func stopGRPC(server *grpc.Server) {
	timer := time.AfterFunc(shutdownGrace, server.Stop)
	defer timer.Stop()
	server.GracefulStop()
}

func stopHTTP(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		_ = server.Close() // it is over either way
	}
}
