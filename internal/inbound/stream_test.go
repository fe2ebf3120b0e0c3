package inbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// ofTCP makes the chains of a listener those of TCP, with policies.
func ofTCP(in *discovery.Inbound, policies ...*discovery.RBAC) *discovery.Inbound {
	for i := range in.Chains {
		in.Chains[i].TCP, in.Chains[i].Network = true, policies
	}
	return in
}

// streamed is the peer's end of a connection of TCP that is accepted.
func (b *bench) streamed(in *discovery.Inbound, client *tls.Config) net.Conn {
	b.t.Helper()
	_, conn, peer := b.accepted(in, client)
	if err := peer.SetDeadline(time.Now().Add(time.Hour)); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.Close() })
	return peer
}

// endsWithin reports a connection that is not closed within the limit.
func endsWithin(t *testing.T, peer net.Conn, since time.Time, limit time.Duration) {
	t.Helper()
	if n, err := peer.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes of a connection that should be closed", n)
	}
	if took := time.Since(since); took < 0 || took > limit {
		t.Errorf("the connection was closed after %v, want %v at most", took, limit)
	}
}

func TestV25_AConnectionOfTCPEndsWithTheCertificateOfItsPeer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		begin := time.Now()
		peer := b.streamed(ofTCP(strict()), b.clientWith(time.Minute))
		endsWithin(t, peer, begin.Add(time.Minute-time.Second), time.Second+streamCheck+refusedLife)
		if got := b.refusal(); got != meshtls.Expired {
			t.Errorf("the reason is %q", got)
		}
	})
}

func TestG24_WithdrawnRootsEndConnectionsOfTCP(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		peer := b.streamed(ofTCP(strict()), b.client(customerID))
		other := tlstest.NewCA(t)
		roots := func(roots ...*x509.Certificate) {
			identity, err := meshtls.NewIdentity(b.ca.Workload(t, paymentID), roots)
			if err != nil {
				t.Fatal(err)
			}
			b.own.Set(identity)
		}
		roots(b.ca.Certificate, other.Certificate)
		time.Sleep(time.Hour / 2) // a root more ends nothing
		since := time.Now()
		roots(other.Certificate)
		endsWithin(t, peer, since, streamCheck+refusedLife)
		if got := b.refusal(); got != meshtls.UnknownAuthority {
			t.Errorf("the reason is %q", got)
		}
	})
}

func TestConnectionsOfTCPEndWithWhatLetThemIn(t *testing.T) {
	t.Parallel()
	names := mutualTLS()
	names.SANs = []discovery.StringMatch{{Value: paymentID}}
	for _, tt := range []struct {
		name   string
		update discovery.Update[*discovery.Inbound]
		stays  bool
	}{
		{"the same again", discovery.Update[*discovery.Inbound]{Value: ofTCP(strict())}, true},
		{"PERMISSIVE", discovery.Update[*discovery.Inbound]{Value: ofTCP(permissive())}, true},
		{"an error beside it", discovery.Update[*discovery.Inbound]{Value: ofTCP(strict()), Err: errors.New("ambient")}, true},
		{"a port of HTTP without policies", discovery.Update[*discovery.Inbound]{Value: strict()}, true},
		{"another list of names", discovery.Update[*discovery.Inbound]{Value: ofTCP(inbound(chain("mtls", "tls", names)))}, false},
		{"no TLS", discovery.Update[*discovery.Inbound]{Value: ofTCP(disabled())}, false},
		{"ALLOW of nobody", discovery.Update[*discovery.Inbound]{Value: ofTCP(strict(), &discovery.RBAC{Rules: &discovery.RBACRules{}})}, false},
		{"ALLOW of nobody on trial", discovery.Update[*discovery.Inbound]{Value: ofTCP(strict(), &discovery.RBAC{Shadow: &discovery.RBACRules{}})}, true},
		{"a port of HTTP with policies about requests", discovery.Update[*discovery.Inbound]{Value: guarded(strict())}, false},
		{"no listener", discovery.Update[*discovery.Inbound]{Err: discovery.ErrNotFound}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				peer := b.streamed(ofTCP(strict()), b.client(customerID))
				since := time.Now()
				b.source.publish(address, tt.update)
				if !tt.stays {
					endsWithin(t, peer, since, streamCheck+refusedLife)
					return
				}
				if err := peer.SetReadDeadline(since.Add(time.Minute)); err != nil {
					t.Fatal(err)
				}
				_, err := peer.Read(make([]byte, 1))
				if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
					t.Errorf("the connection has ended: %v", err)
				}
			})
		})
	}
}

// guarded gives the chains of a listener a policy about requests.
func guarded(in *discovery.Inbound) *discovery.Inbound {
	for i := range in.Chains {
		in.Chains[i].Filters = []discovery.HTTPFilter{{Name: "rbac", Config: &discovery.RBAC{Rules: &discovery.RBACRules{}}}}
	}
	return in
}

// TestListenTCPAcceptsNothingThatItCannotDecideAbout, from the start and later on.
func TestV11_ListenTCPAcceptsNothingThatItCannotDecideAbout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		listen := func(in *discovery.Inbound) (*Listener, error) {
			inner, err := b.network.Listen(address)
			if err != nil {
				t.Fatal(err)
			}
			result := make(chan listened, 1)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			go func() { // ends with ListenTCP
				ln, err := b.listeners.ListenTCP(ctx, inner)
				result <- listened{ln, err}
			}()
			synctest.Wait()
			b.source.publish(address, discovery.Update[*discovery.Inbound]{Value: in})
			got := <-result
			return got.ln, got.err
		}
		if _, err := listen(guarded(strict())); !errors.Is(err, errAboutRequests) || !strings.Contains(err.Error(), `filter chain "mtls"`) {
			t.Fatalf("the error is %v", err)
		}
		ln, err := listen(strict()) // HTTP, about whose requests nobody decides
		if err != nil {
			t.Fatal(err)
		}
		b.echo(ln)
		conn, err := b.dial(b.client(customerID))
		if err != nil {
			t.Fatal(err)
		}
		since := time.Now()
		b.source.publish(address, discovery.Update[*discovery.Inbound]{Value: guarded(strict())})
		endsWithin(t, conn, since, streamCheck)
		if _, err := b.dial(b.client(customerID)); err == nil {
			t.Error("a connection is accepted that nobody can decide about")
		}
		b.source.publish(address, discovery.Update[*discovery.Inbound]{Value: ofTCP(strict())})
		if _, err := b.dial(b.client(customerID)); err != nil {
			t.Errorf("when the port is one of TCP: %v", err)
		}
	})
}

// TestBD4_ConnectionsOfTCPAreFinished: a drain lets them work until their peers have
// done, or its time is over.
func TestBD4_ConnectionsOfTCPAreFinished(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		ends time.Duration // by the peer; 0 is never
		want time.Duration
		cut  int
	}{
		{"one that ends", 20 * time.Second, 20 * time.Second, 0},
		{"one that stays", 0, time.Minute, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				_, conn, peer := b.accepted(ofTCP(strict()), b.client(customerID))
				defer peer.Close()
				go func() { // ends with the connection
					_, _ = io.Copy(conn, conn)
					_ = conn.Close()
				}()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				result := b.drain(ctx, atOnce)
				time.Sleep(10 * time.Second)
				if _, err := b.dial(b.client(customerID)); err == nil {
					t.Error("another connection is accepted")
				}
				if _, err := io.WriteString(peer, "hello"); err != nil {
					t.Error(err)
				}
				if _, err := io.ReadFull(peer, make([]byte, 5)); err != nil {
					t.Errorf("the connection does not work while the process drains: %v", err)
				}
				if tt.ends > 0 {
					time.Sleep(tt.ends - 10*time.Second)
					_ = peer.Close()
				}
				got := <-result
				if got.report.Duration != tt.want || int(got.report.ConnectionsCut) != tt.cut || (got.err != nil) != (tt.cut > 0) {
					t.Errorf("got %+v, %v", got.report, got.err)
				}
			})
		})
	}
}
