package inbound

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// accepted listens under in and returns a TLS connection of a client as the
// server sees it, with its client's end.
func (b *bench) accepted(in *discovery.Inbound, client *tls.Config) (ln *Listener, server *tls.Conn, peer *tls.Conn) {
	b.t.Helper()
	result := b.start()
	b.source.publish(address, discovery.Update[*discovery.Inbound]{Value: in})
	got := <-result
	if got.err != nil {
		b.t.Fatal(got.err)
	}
	b.t.Cleanup(func() { _ = got.ln.Close() })
	raw, err := b.network.DialContext(b.t.Context(), "", address)
	if err != nil {
		b.t.Fatal(err)
	}
	peer = tls.Client(raw, client)
	if err := peer.HandshakeContext(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	conn, err := got.ln.Accept()
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = peer.Close()
		_ = conn.Close()
	})
	return got.ln, conn.(*tls.Conn), peer
}

// served reports whether a request over a connection would be served.
func served(ln *Listener, conn *tls.Conn) bool {
	return ln.Chain(conn.RemoteAddr().String(), new(conn.ConnectionState())) != nil
}

// clientWith is a client with a certificate of the given life.
func (b *bench) clientWith(life time.Duration) *tls.Config {
	b.t.Helper()
	cert := b.ca.Issue(b.t, tlstest.Leaf{URIs: []string{customerID}, NotAfter: time.Now().Add(life)})
	identity, err := meshtls.NewIdentity(cert, []*x509.Certificate{b.ca.Certificate})
	if err != nil {
		b.t.Fatal(err)
	}
	source := meshtls.NewStatic(identity)
	config, err := meshtls.ClientConfig(meshtls.ClientParams{Identity: source, Roots: source, Authorize: meshtls.AuthorizeAny()})
	if err != nil {
		b.t.Fatal(err)
	}
	return config
}

// refusal is the reason of the only refusal.
func (b *bench) refusal() meshtls.Reason {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.refused) != 1 {
		b.t.Fatalf("%d refusals were reported, want 1: %v", len(b.refused), b.refused)
	}
	refused, ok := errors.AsType[*meshtls.HandshakeError](b.refused[0].Err)
	if !ok {
		b.t.Fatalf("the refusal has no reason: %v", b.refused[0].Err)
	}
	return refused.Reason
}

// closedWithin reports whether a peer's connection is closed within d, and not
// before.
func closedWithin(t *testing.T, peer net.Conn, d time.Duration) {
	t.Helper()
	before := time.Now()
	if err := peer.SetReadDeadline(before.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if n, err := peer.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes of a connection that should be closed", n)
	}
	if took := time.Since(before); took != d {
		t.Errorf("the connection was closed after %v, want %v", took, d)
	}
}

func TestV25_NothingIsServedOverAConnectionWhoseCertificateHasExpired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ln, conn, peer := b.accepted(strict(), b.clientWith(time.Minute))
		time.Sleep(time.Minute - time.Second)
		if !served(ln, conn) {
			t.Fatal("a request within the certificate's life was refused")
		}
		time.Sleep(2 * time.Second)
		for range 2 {
			if served(ln, conn) {
				t.Error("a request after the certificate's life was served")
			}
		}
		if got := b.refusal(); got != meshtls.Expired {
			t.Errorf("the reason is %q", got)
		}
		closedWithin(t, peer, refusedLife)
	})
}

// TestG24_WithdrawnRootsEndOpenConnections: what the old roots vouched for is not
// served any more, and a connection that the new ones vouch for goes on.
func TestG24_WithdrawnRootsEndOpenConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ln, conn, peer := b.accepted(strict(), b.client(customerID))
		if !served(ln, conn) {
			t.Fatal("a request was refused")
		}
		other := tlstest.NewCA(t)
		roots := func(roots ...*x509.Certificate) {
			identity, err := meshtls.NewIdentity(b.ca.Workload(t, paymentID), roots)
			if err != nil {
				t.Fatal(err)
			}
			b.own.Set(identity)
		}
		roots(b.ca.Certificate, other.Certificate)
		if !served(ln, conn) {
			t.Error("a root more ended the connection")
		}
		roots(other.Certificate)
		if served(ln, conn) {
			t.Error("what the withdrawn root vouched for is served")
		}
		if got := b.refusal(); got != meshtls.UnknownAuthority {
			t.Errorf("the reason is %q", got)
		}
		closedWithin(t, peer, refusedLife)
	})
}

// A source that has nothing at the moment withdraws nothing.
func TestAnEmptySourceWithdrawsNoTrust(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ln, conn, _ := b.accepted(strict(), b.client(customerID))
		if !served(ln, conn) {
			t.Fatal("a request was refused")
		}
		b.own.Set(nil)
		if !served(ln, conn) {
			t.Error("a request was refused")
		}
	})
}

func TestANewListOfNamesAppliesToOpenConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ln, conn, _ := b.accepted(strict(), b.client(customerID))
		if !served(ln, conn) {
			t.Fatal("a request was refused")
		}
		settings := mutualTLS()
		settings.SANs = []discovery.StringMatch{{Value: paymentID}}
		b.source.publish(address, discovery.Update[*discovery.Inbound]{Value: inbound(chain("mtls", "tls", settings))})
		if served(ln, conn) {
			t.Error("a peer that is not in the list is served")
		}
		if got := b.refusal(); got != meshtls.NotAuthorized {
			t.Errorf("the reason is %q", got)
		}
	})
}

// TestApplicationProtocolsChooseTheChain has the chains of Istio's PERMISSIVE
// listeners: TLS of the mesh is known by its protocols, and TLS of others is the
// application's or nobody's.
func TestApplicationProtocolsChooseTheChain(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		offered  []string
		fallback bool // a chain that names no protocol
		want     string
	}{
		{"a client of the mesh over HTTP/2", []string{"istio-h2", "istio", "h2"}, false, "mesh"},
		{"a client of the mesh over HTTP/1.1", []string{"istio-http/1.1", "istio", "http/1.1"}, true, "mesh"},
		{"the client's order counts", []string{"own", "istio", "h2"}, true, "own"},
		{"others are refused", []string{"h2"}, false, ""},
		{"others without protocols are refused", nil, false, ""},
		{"others have a chain of theirs", []string{"h2"}, true, "fallback"},
		{"others without protocols have one, too", nil, true, "fallback"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				mesh, own := chain("mesh", "tls", mutualTLS()), chain("own", "tls", mutualTLS())
				mesh.Match.ApplicationProtocols = []string{"istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"}
				own.Match.ApplicationProtocols = []string{"own"}
				in := inbound(own, mesh, chain("plaintext", "raw_buffer", nil))
				if tt.fallback {
					in.Chains = append(in.Chains, chain("fallback", "tls", mutualTLS()))
				}
				client := b.client(customerID)
				if client.NextProtos = tt.offered; tt.want == "" {
					b.listen(in)
					if _, err := b.dial(client); err == nil {
						t.Error("the connection was accepted")
					}
					return
				}
				if tt.want == "own" {
					client.NextProtos = append(client.NextProtos, "http/1.1")
				}
				ln, conn, _ := b.accepted(in, client)
				got := ln.Chain(conn.RemoteAddr().String(), new(conn.ConnectionState()))
				if got == nil || got.Config.Name != tt.want {
					t.Fatalf("got %+v, want chain %q", got, tt.want)
				}
				// Under another configuration the connection has another chain.
				b.source.publish(address, discovery.Update[*discovery.Inbound]{Value: strict()})
				if got = ln.Chain(conn.RemoteAddr().String(), new(conn.ConnectionState())); got == nil || got.Config.Name != "mtls" {
					t.Errorf("got %+v under a chain for all", got)
				}
			})
		})
	}
}

// What is found by an address of TCP is what is found by its text.
func TestAConnectionIsFoundByItsPeersAddress(t *testing.T) {
	t.Parallel()
	peers := []net.Addr{
		&net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 40000}, &net.TCPAddr{IP: net.IPv4(10, 1, 2, 4).To4(), Port: 40000},
		&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 40000}, &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 40000},
		&net.UnixAddr{Name: "@customer", Net: "unix"},
	}
	ln := &Listener{known: connections{byAddress: make(map[string]sharing)}}
	plaintext := new(Chain)
	ln.state.Store(&state{plaintext: plaintext})
	for _, peer := range peers {
		if c := ln.known.at(peer); c != nil {
			t.Errorf("%s is known already", peer)
		}
		c := &trackedConn{remote: peer.String()}
		ln.known.add(c)
		if ln.known.at(peer) != c || ln.known.find(peer.String()) != c {
			t.Errorf("%s is not found", peer)
		}
	}
	for _, peer := range append(peers, &net.TCPAddr{IP: net.IPv4(10, 1, 2, 5), Port: 40000}) {
		if chain, _, remote := ln.RunOf(peer, nil); chain != plaintext || remote != peer.String() {
			t.Errorf("%s: %q, the chain of plaintext: %v", peer, remote, chain == plaintext)
		}
	}
	ln.state.Store(&state{err: errNoChain})
	if chain, _, _ := ln.RunOf(peers[0], nil); chain != nil {
		t.Error("a listener without a policy has a chain")
	}
}

// A port of a peer's may be used for several addresses of a listener.
func TestConnectionsThatShareAnAddressAreNotTakenForEachOther(t *testing.T) {
	t.Parallel()
	const peer = "10.1.2.3:40000"
	known := connections{byAddress: make(map[string]sharing)}
	first, second, third := &trackedConn{remote: peer}, &trackedConn{remote: peer}, &trackedConn{remote: peer}
	known.add(first)
	known.add(second)
	if known.find(peer) != nil {
		t.Error("one of two is found")
	}
	known.remove(first)
	if known.find(peer) != nil {
		t.Error("one is found of which nobody knows whether it is the one")
	}
	known.remove(second)
	known.add(third)
	if known.find(peer) != third {
		t.Error("the only one is not found")
	}
	known.remove(third)
	if len(known.byAddress) != 0 {
		t.Errorf("%d addresses are kept", len(known.byAddress))
	}
}
