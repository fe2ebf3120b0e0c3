package nativegrpc

import (
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/inboardmesh/inboard/internal/inbound"
	"github.com/inboardmesh/inboard/internal/tlstest"
)

// TestCallersAreForgottenWithTheirConnections: and one that shares its certificate in
// memory with another is not taken for it.
func TestCallersAreForgottenWithTheirConnections(t *testing.T) {
	t.Parallel()
	const id = "spiffe://cluster.local/ns/shop/sa/customer"
	leaf, err := x509.ParseCertificate(tlstest.NewCA(t).Workload(t, id).Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	auth := func() credentials.AuthInfo {
		return credentials.TLSInfo{
			State:    tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{leaf}},
			SPIFFEID: leaf.URIs[0],
		}
	}
	var known peers
	for range 100 {
		info := known.note(auth())
		ctx := known.context(peer.NewContext(t.Context(), &peer.Peer{AuthInfo: info}))
		if got, ok := inbound.Peer(ctx); !ok || got.String() != id {
			t.Fatalf("%v, %t", got, ok)
		}
	}
	if _, ok := inbound.Peer(known.context(peer.NewContext(t.Context(), &peer.Peer{AuthInfo: auth()}))); ok {
		t.Error("a connection that nobody has verified is known")
	}
	left := func() (n int) {
		known.verified.Range(func(any, any) bool {
			n++
			return true
		})
		return n
	}
	for end := time.Now().Add(time.Minute); left() > 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d are left", left())
		}
		runtime.GC()
	}
	var none *url.URL
	if _, ok := inbound.Peer(known.context(peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{SPIFFEID: none}}))); ok {
		t.Error("one without an identity is known")
	}
}
