package inbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"testing"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

func connectionOf(t *testing.T, ca *tlstest.CA, leaf tlstest.Leaf) *tls.ConnectionState {
	t.Helper()
	cert, err := x509.ParseCertificate(ca.Issue(t, leaf).Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{cert}}
}

// Whatever was remembered, the identity is that of the certificate.
func TestARememberedPeerIsTheCertificates(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	var states []*tls.ConnectionState
	for i := range 3 * peerSlots { // more than are remembered
		leaf := tlstest.Leaf{URIs: []string{fmt.Sprintf("spiffe://cluster.local/ns/shop/sa/n%d", i)}}
		if i%10 == 0 {
			leaf.URIs = []string{"https://payment.shop"} // nobody
		}
		states = append(states, connectionOf(t, ca, leaf))
	}
	states = append(states,
		&tls.ConnectionState{HandshakeComplete: true},
		&tls.ConnectionState{PeerCertificates: states[1].PeerCertificates},
	)
	for _, state := range states[:peerSlots] { // other connections of the same peers
		if len(state.PeerCertificates) > 0 {
			again, err := x509.ParseCertificate(state.PeerCertificates[0].Raw)
			if err != nil {
				t.Fatal(err)
			}
			states = append(states, &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{again}})
		}
	}
	listeners := New(Options{})
	for range 3 {
		for i, state := range states {
			want, wantOK := meshtls.PeerID(*state)
			if got, ok := listeners.PeerID(state); got != want || ok != wantOK {
				t.Fatalf("connection %d: %v, %v, want %v, %v", i, got, ok, want, wantOK)
			}
		}
	}
}

// BenchmarkPeerID is who makes a request, of a process that many connections lead to,
// each with a certificate that it has parsed itself; the baseline is to read it.
func BenchmarkPeerID(b *testing.B) {
	ca := tlstest.NewCA(b)
	var states []*tls.ConnectionState
	for i := range 20 {
		leaf := ca.Issue(b, tlstest.Leaf{URIs: []string{fmt.Sprintf("spiffe://cluster.local/ns/shop/sa/n%d", i)}}).Certificate[0]
		for range 50 {
			cert, err := x509.ParseCertificate(leaf)
			if err != nil {
				b.Fatal(err)
			}
			states = append(states, &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{cert}})
		}
	}
	listeners := New(Options{})
	for name, id := range map[string]func(*tls.ConnectionState) (meshtls.ID, bool){
		"read":       func(state *tls.ConnectionState) (meshtls.ID, bool) { return meshtls.PeerID(*state) },
		"remembered": listeners.PeerID,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, ok := id(states[i%len(states)]); !ok {
					b.Fatal("nobody")
				}
			}
		})
	}
}

func TestAPeerContextIsItsParentWithAPeer(t *testing.T) {
	t.Parallel()
	type key struct{}
	parent, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	id, err := meshtls.ParseID("spiffe://cluster.local/ns/shop/sa/customer")
	if err != nil {
		t.Fatal(err)
	}
	child, stop := context.WithCancel(WithPeer(parent, id))
	defer stop()
	if got, ok := Peer(child); !ok || got != id {
		t.Errorf("peer %v, %v", got, ok)
	}
	if _, ok := Peer(parent); ok {
		t.Error("the parent has a peer")
	}
	if child.Value(key{}) != "value" {
		t.Error("a value is lost")
	}
	cancel()
	if child.Err() == nil {
		t.Error("the end of the parent does not reach its grandchild at once")
	}
}

func TestAppendTCPIsString(t *testing.T) {
	t.Parallel()
	for _, ip := range []net.IP{
		nil, {}, net.IPv4zero, net.IPv6zero, net.IPv4(127, 0, 0, 1), net.IPv4(10, 1, 2, 3).To4(), net.IPv6loopback,
		net.ParseIP("fe80::1"), net.ParseIP("2001:db8::1"), {1, 2, 3},
	} {
		for _, zone := range []string{"", "eth0"} {
			a := &net.TCPAddr{IP: ip, Port: 8080, Zone: zone}
			if zone != "" && ip.To4() != nil {
				continue // there are no zones in IPv4
			}
			if got := string(appendTCP(nil, a)); got != a.String() {
				t.Errorf("%#v: %q, want %q", a, got, a.String())
			}
		}
	}
}
