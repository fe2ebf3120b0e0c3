package controlplane

import (
	"context"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/config"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/controlplane/ca"
)

// Register offers ADS, the CA and gRPC's health service on a server of the
// caller's. Clients are authenticated as on the secure listener, so the server must
// speak TLS and ask for client certificates, as [ca.CA.Register] says. Without
// a CA nobody can be authenticated, and every stream is refused.
//
// The streams end with [Server.Close]; the gRPC server is the caller's to
// stop.
func (s *Server) Register(server grpc.ServiceRegistrar) { s.register(s.ctx, server, true) }

// RegisterPlaintext offers ADS, without asking who the client is, and gRPC's
// health service on a server of the caller's: in memory, or on loopback.
// Nobody gets certificates this way.
func (s *Server) RegisterPlaintext(server grpc.ServiceRegistrar) { s.register(s.ctx, server, false) }

func (s *Server) register(ctx context.Context, server grpc.ServiceRegistrar, secure bool) {
	discovery.RegisterAggregatedDiscoveryServiceServer(server, &aggregated{server: s, ctx: ctx, secure: secure})
	grpc_health_v1.RegisterHealthServer(server, s.health)
	if secure && s.ca != nil {
		s.ca.Register(server)
	}
}

// aggregated is ADS on one gRPC server.
type aggregated struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	server *Server
	ctx    context.Context // ends the streams
	secure bool
}

// streamOptions are those of go-control-plane's stream loops. In order: of a
// client's responses that are ready together clusters go first. And only an
// empty first request for listeners or clusters means all of them; gRPC
// clients send empty ones for the others when they want nothing.
func streamOptions() []config.XDSOption {
	return []config.XDSOption{
		sotw.WithOrderedADS(),
		config.DeactivateLegacyWildcardForTypes([]string{resource.RouteType, resource.EndpointType}),
	}
}

// StreamAggregatedResources serves one state-of-the-world stream.
func (a *aggregated) StreamAggregatedResources(stream discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	c, end, err := a.open(stream.Context(), "state-of-the-world")
	if err != nil {
		return err
	}
	defer end()
	return c.run(func() error {
		return sotw.NewServer(c.ctx, c, c, streamOptions()...).StreamHandler(stream, resource.AnyType)
	})
}

// DeltaAggregatedResources serves one delta stream.
func (a *aggregated) DeltaAggregatedResources(stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	c, end, err := a.open(stream.Context(), "delta")
	if err != nil {
		return err
	}
	defer end()
	return c.run(func() error {
		return delta.NewServer(c.ctx, c, c, streamOptions()...).DeltaStreamHandler(stream, resource.AnyType)
	})
}

// open makes the client of a new stream, if the caller may have one.
func (a *aggregated) open(ctx context.Context, protocol string) (*client, func(), error) {
	s := a.server
	done, err := s.begin()
	if err != nil {
		return nil, nil, status.Error(codes.Unavailable, err.Error())
	}
	c := &client{
		server: s, ctx: a.ctx, cancel: func() {},
		protocol: protocol, since: time.Now(), types: make(map[string]*typeState),
		answers: newAnswers(), silent: make(chan struct{}),
	}
	if from, ok := peer.FromContext(ctx); ok && from.Addr != nil {
		c.peer = from.Addr.String()
	}
	if a.secure {
		caller, err := s.authenticate(ctx)
		if err != nil {
			done()
			return nil, nil, err
		}
		c.caller = &caller
		// What was proved holds until then, and so does the stream: the client
		// opens another one with what it has by that time.
		c.ctx, c.cancel = context.WithDeadline(a.ctx, caller.NotAfter)
	}
	if err := s.admit(c); err != nil {
		c.cancel()
		done()
		return nil, nil, err
	}
	c.first = time.AfterFunc(firstRequestTime, func() { close(c.silent) })
	return c, func() {
		c.first.Stop()
		c.cancel()
		c.mu.Lock()
		c.answers.stopLocked()
		c.mu.Unlock()
		s.mu.Lock()
		delete(s.clients, c)
		s.mu.Unlock()
		if c.told.Load() {
			c.logger().Info("client disconnected")
		}
		done()
	}, nil
}

// admit takes a stream in, if there is room for it. Those that are there are not
// disturbed; who is refused comes again by itself.
func (s *Server) admit(c *client) error {
	s.mu.Lock()
	full := len(s.clients) >= s.maxStreams
	tell := false
	if full {
		s.refused++
		tell = time.Since(s.toldFull) >= time.Minute
		if tell {
			s.toldFull = time.Now()
		}
	} else {
		s.opened++
		c.number = s.opened
		s.clients[c] = struct{}{}
	}
	s.mu.Unlock()
	if tell {
		c.logger().Warn("stream refused: there are as many as are allowed", "streams", s.maxStreams)
	}
	if full {
		return status.Errorf(codes.ResourceExhausted, "there are %d streams, and no more are allowed", s.maxStreams)
	}
	return nil
}

func (s *Server) authenticate(ctx context.Context) (ca.Caller, error) {
	if s.ca == nil {
		return ca.Caller{}, status.Error(codes.Unauthenticated, "there is no CA to authenticate with")
	}
	ctx, conn := connectionOf(ctx)
	caller, err := s.ca.Authenticate(ctx)
	if conn != nil {
		// Who is refused has to connect again: a certificate that it has got
		// meanwhile is presented with a new connection only.
		until := time.Now()
		if err == nil {
			until = caller.NotAfter
		}
		conn.keepUntil(until)
	}
	return caller, err
}
