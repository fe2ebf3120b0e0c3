package mesh_test

import (
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// echoUpgrade speaks another protocol, in which it sends back what comes.
func echoUpgrade(w http.ResponseWriter, _ *http.Request) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	_, _ = io.Copy(conn, buffered)
}

// upgrade makes a connection through the mesh that carries another protocol.
func upgrade(t *testing.T, m *mesh.Mesh) (io.ReadWriteCloser, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://payment.shop.svc.cluster.local/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	resp, err := m.Transport().RoundTrip(req)
	if err != nil {
		return nil, err
	}
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || resp.StatusCode != http.StatusSwitchingProtocols {
		_ = resp.Body.Close()
		return nil, errors.New(resp.Status)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, nil
}

func echoes(conn io.ReadWriter) error {
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 5))
	return err
}

// TestG24_V25_AnUpgradedConnectionEndsWithTheTrustInItsPeer: nobody asks for it with a
// request any more, so that each side looks after it, and closes it within 6 s.
func TestG24_V25_AnUpgradedConnectionEndsWithTheTrustInItsPeer(t *testing.T) {
	t.Parallel()
	const life = time.Hour
	type sides struct {
		ca                *tlstest.CA
		customer, payment *meshtls.Static
		world             *meshtest.World
	}
	known := func(t *testing.T, ca *tlstest.CA, id string, notAfter time.Time, roots ...*tlstest.CA) *meshtls.Identity {
		t.Helper()
		var trusted []*x509.Certificate
		for _, root := range roots {
			trusted = append(trusted, root.Certificate)
		}
		identity, err := meshtls.NewIdentity(ca.Issue(t, tlstest.Leaf{URIs: []string{id}, NotAfter: notAfter}), trusted)
		if err != nil {
			t.Fatal(err)
		}
		return identity
	}
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, s *sides)
		after  time.Duration // how long after the change it ends, but for the limit
		stays  bool
	}{
		{name: "nothing changes", change: func(*testing.T, *sides) {}, stays: true},
		{name: "new certificates and a root more", change: func(t *testing.T, s *sides) {
			t.Helper()
			other, end := tlstest.NewCA(t), time.Now().Add(24*time.Hour)
			s.customer.Set(known(t, s.ca, customerID, end, s.ca, other))
			s.payment.Set(known(t, s.ca, paymentID, end, s.ca, other))
		}, stays: true},
		{name: "the server trusts another root", change: func(t *testing.T, s *sides) {
			t.Helper()
			s.payment.Set(known(t, s.ca, paymentID, time.Now().Add(life), tlstest.NewCA(t)))
		}},
		{name: "the client trusts another root", change: func(t *testing.T, s *sides) {
			t.Helper()
			s.customer.Set(known(t, s.ca, customerID, time.Now().Add(life), tlstest.NewCA(t)))
		}},
		{name: "the certificates expire", change: func(*testing.T, *sides) {}, after: life},
		{name: "connections from the other namespace are denied", change: func(_ *testing.T, s *sides) {
			// Of the request that began it was decided: it is no connection of TCP.
			s.world.Apply(ledgerPolicy(`{action: DENY, rules: [{from: [{source: {namespaces: [shop]}}]}]}`))
		}, stays: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &sides{ca: tlstest.NewCA(t), world: meshtest.New(t)}
				end := time.Now().Add(life)
				if tt.stays {
					end = end.Add(life)
				}
				s.customer = meshtls.NewStatic(known(t, s.ca, customerID, end, s.ca))
				s.payment = meshtls.NewStatic(known(t, s.ca, paymentID, end, s.ca))
				s.world.Service("payment.shop", meshtest.HTTP(80, http.HandlerFunc(echoUpgrade)), meshtest.Mesh(mesh.WithIdentity("default", s.payment)))
				customer := s.world.Workload("customer.shop", meshtest.Mesh(mesh.WithIdentity("default", s.customer)))
				conn, err := upgrade(t, customer)
				if err != nil {
					t.Fatal(err)
				}
				if err := echoes(conn); err != nil {
					t.Fatal(err)
				}
				since := time.Now()
				tt.change(t, s)
				if tt.stays {
					time.Sleep(life)
					if err := echoes(conn); err != nil {
						t.Errorf("after an hour: %v", err)
					}
					return
				}
				defer time.AfterFunc(2*life, func() { _ = conn.Close() }).Stop()
				if _, err := conn.Read(make([]byte, 1)); err == nil {
					t.Error("something was read over a connection that is not trusted any more")
				}
				if took := time.Since(since); took < tt.after || took > tt.after+6*time.Second {
					t.Errorf("the connection was closed after %v", took)
				}
			})
		})
	}
}

// TestV28_AnUpgradedConnectionInTheClearEndsUnderSTRICT, as one of TCP.
func TestV28_AnUpgradedConnectionInTheClearEndsUnderSTRICT(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		w.Service("payment.shop", meshtest.HTTP(80, http.HandlerFunc(echoUpgrade)))
		conn, err := w.DialContext(t.Context(), "tcp", "payment.shop:80")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: payment.shop\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		if _, err := io.ReadFull(conn, make([]byte, len("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"))); err != nil {
			t.Fatal(err)
		}
		if err := echoes(conn); err != nil {
			t.Fatal(err)
		}
		since := time.Now()
		_ = conn.SetDeadline(since.Add(time.Hour))
		w.Apply(ledgerStrict)
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a plaintext connection is open under STRICT")
		}
		if took := time.Since(since); took > 6*time.Second {
			t.Errorf("it was closed after %v", took)
		}
	})
}
