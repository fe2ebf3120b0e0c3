package nativegrpc

import (
	"context"
	"net/url"
	"runtime"
	"sync"
	"weak"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/inboardmesh/inboard/internal/inbound"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// peers are the callers whose certificates the credentials of a Guest have verified, by
// what these credentials leave with a connection: a server may have others, which
// verify nobody. They are forgotten with their connections. Safe for concurrent use.
type peers struct {
	verified sync.Map // of weak.Pointer[url.URL] and meshtls.ID
}

// note remembers the peer of a connection, and returns what is to stay with that.
func (p *peers) note(auth credentials.AuthInfo) credentials.AuthInfo {
	info, ok := auth.(credentials.TLSInfo)
	if !ok || info.SPIFFEID == nil {
		return auth
	}
	id, ok := meshtls.PeerID(info.State)
	if !ok {
		return auth
	}
	// Connections may share a certificate in memory, and what is in it.
	own := *info.SPIFFEID
	info.SPIFFEID = &own
	key := weak.Make(&own)
	p.verified.Store(key, id)
	runtime.AddCleanup(&own, func(key weak.Pointer[url.URL]) { p.verified.Delete(key) }, key)
	return info
}

// context is the context of a call with its caller, for [mesh.PeerID].
func (p *peers) context(ctx context.Context) context.Context {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return ctx
	}
	info, ok := from.AuthInfo.(credentials.TLSInfo)
	if !ok || info.SPIFFEID == nil {
		return ctx
	}
	id, ok := p.verified.Load(weak.Make(info.SPIFFEID))
	if !ok {
		return ctx
	}
	return inbound.WithPeer(ctx, id.(meshtls.ID))
}

// options tell the handlers of a server, and the interceptors that follow, who calls.
func (p *peers) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			return handler(p.context(ctx), req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			return handler(srv, &peerStream{ServerStream: stream, ctx: p.context(stream.Context())})
		}),
	}
}

// peerStream is a stream with the context of its caller.
type peerStream struct {
	grpc.ServerStream

	ctx context.Context //nolint:containedctx // that is what it is for
}

func (s *peerStream) Context() context.Context { return s.ctx }
