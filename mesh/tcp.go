package mesh

import (
	"context"
	"fmt"
	"net"
)

// ListenTCP is [Mesh.Listen] for a server that reads and writes the connections by
// itself, in a protocol that is neither HTTP nor gRPC. What the control plane says of
// connections is applied when one is accepted: mutual TLS, and the policies about who
// may connect to which port. It is applied again when the configuration, or whom it
// trusts, has changed, and when the certificate of a peer has expired: a connection
// that would not be accepted any more is closed within 6 s, whatever goes on over it.
//
// Policies about requests cannot hold for such a server. As long as the configuration
// has any for the address, ListenTCP fails, or the listener that it returned accepts
// nothing and its connections are closed. With Inboard's own control plane, or Istio,
// a port is one of TCP if its Service or ServiceEntry says so: by its protocol, its
// appProtocol, or a name such as "tcp-ledger".
//
// A connection with mutual TLS is a [crypto/tls.Conn] after its handshake:
// [github.com/inboardmesh/inboard/tls/meshtls.PeerID] of its state tells who the peer
// is. The caller closes the listener, and the connections.
func (m *Mesh) ListenTCP(ctx context.Context, network, address string) (net.Listener, error) {
	inner, err := listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return m.ServeTCP(ctx, inner)
}

// ServeTCP is [Mesh.ListenTCP] for a listener that is open already: one that was
// inherited, or is in memory. It is closed if ServeTCP fails.
func (m *Mesh) ServeTCP(ctx context.Context, inner net.Listener) (net.Listener, error) {
	ln, err := m.inbound.ListenTCP(ctx, inner)
	if err != nil {
		return nil, fmt.Errorf("mesh: %w", err)
	}
	return ln, nil
}

// Dial opens a connection to a service of the mesh, for a protocol that is neither
// HTTP nor gRPC: "ledger.shop.svc.cluster.local:5432". Endpoints, balancing, health,
// limits of connections and mutual TLS are the cluster's, as for calls. Up to three
// endpoints are tried one after the other, each within the cluster's connect timeout;
// ctx bounds the whole, and has no meaning for the connection afterwards. network is
// "tcp".
//
// The destination must have one route for everything, as ports of TCP have: where
// requests decide, Dial fails. A host that the mesh does not know is dialed directly,
// by [Network], if the outbound policy is [AllowAny], and is an error otherwise; what
// comes of that is the caller's alone. A Dial that is under way ends at once when the
// mesh is closed. An error is an [*Error], but for those of direct connections.
//
// The caller closes the connection, which the mesh does when it is closed, when nothing
// has come or gone over it for the cluster's idle timeout, when it is as old as the
// cluster lets connections become (a change of either holds after 5 s at most), and
// within 5 s when the certificate of the peer has expired, when its trust was withdrawn, and
// when it is in the clear and its cluster has TLS now. It is safe for use by several
// goroutines as any [net.Conn] is, and has CloseWrite and, as a [crypto/tls.Conn],
// ConnectionState.
func (m *Mesh) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return m.tcp.Dial(ctx, network, address)
}
