package inbound

import (
	"context"

	"github.com/inboardmesh/inboard/tls/meshtls"
)

type peerKey struct{}

// WithPeer returns a context that carries the verified identity of the caller.
func WithPeer(ctx context.Context, id meshtls.ID) context.Context {
	return context.WithValue(ctx, peerKey{}, id)
}

// Peer returns the verified identity of the caller.
func Peer(ctx context.Context) (meshtls.ID, bool) {
	id, ok := ctx.Value(peerKey{}).(meshtls.ID)
	return id, ok
}
