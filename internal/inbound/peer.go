package inbound

import (
	"bytes"
	"context"
	"crypto/tls"
	"hash/maphash"
	"sync/atomic"

	"github.com/inboardmesh/inboard/tls/meshtls"
)

type peerKey struct{}

// PeerContext is a context that carries the verified identity of the caller. It
// is made to be part of what is being served.
type PeerContext struct {
	context.Context

	ID meshtls.ID
}

// Value returns the identity for Peer.
func (c *PeerContext) Value(key any) any {
	if _, ok := key.(peerKey); ok {
		return &c.ID
	}
	return c.Context.Value(key)
}

// WithPeer returns a context that carries the verified identity of the caller.
func WithPeer(ctx context.Context, id meshtls.ID) context.Context {
	return &PeerContext{Context: ctx, ID: id}
}

// Peer returns the verified identity of the caller.
func Peer(ctx context.Context) (meshtls.ID, bool) {
	id, ok := ctx.Value(peerKey{}).(*meshtls.ID)
	if !ok {
		return meshtls.ID{}, false
	}
	return *id, true
}

// peerSlots is a power of two.
const peerSlots = 256

// peers remembers the identities of the certificates that were seen last: to
// read one costs more than to serve a request otherwise does. Each connection has a
// copy of its own, so that they are found by what is in them: a peer with a thousand
// connections takes one slot.
type peers struct {
	seed  maphash.Seed
	slots [peerSlots]atomic.Pointer[certified]
}

type certified struct {
	raw []byte // of the certificate
	id  meshtls.ID
	ok  bool
}

// id is [meshtls.PeerID].
func (p *peers) id(state *tls.ConnectionState) (meshtls.ID, bool) {
	if !state.HandshakeComplete || len(state.PeerCertificates) == 0 {
		return meshtls.ID{}, false
	}
	leaf := state.PeerCertificates[0]
	// A signature is as good as random, and shorter than the certificate.
	slot := &p.slots[maphash.Bytes(p.seed, leaf.Signature)%peerSlots]
	if known := slot.Load(); known != nil && bytes.Equal(known.raw, leaf.Raw) {
		return known.id, known.ok
	}
	id, ok := meshtls.PeerID(*state)
	slot.Store(&certified{raw: leaf.Raw, id: id, ok: ok})
	return id, ok
}
