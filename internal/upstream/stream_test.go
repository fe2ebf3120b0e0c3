package upstream

import (
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// TestG24_AStreamIsCheckedAgain: it is good as long as it would be made again.
func TestG24_AStreamIsCheckedAgain(t *testing.T) {
	t.Parallel()
	const life = time.Hour
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, w *world, ca *tlstest.CA, customer *meshtls.Static)
		good   bool
	}{
		{"nothing has changed", func(*testing.T, *world, *tlstest.CA, *meshtls.Static) {}, true},
		{"a new certificate of our own", func(t *testing.T, _ *world, ca *tlstest.CA, customer *meshtls.Static) {
			customer.Set(identity(t, ca, customerID, ca))
		}, true},
		{"a root more", func(t *testing.T, _ *world, ca *tlstest.CA, customer *meshtls.Static) {
			customer.Set(identity(t, ca, customerID, ca, tlstest.NewCA(t)))
		}, true},
		{"another root", func(t *testing.T, _ *world, ca *tlstest.CA, customer *meshtls.Static) {
			customer.Set(identity(t, ca, customerID, tlstest.NewCA(t)))
		}, false},
		{"no certificate of our own", func(_ *testing.T, _ *world, _ *tlstest.CA, customer *meshtls.Static) {
			customer.Set(nil)
		}, true},
		{"another name", func(_ *testing.T, w *world, _ *tlstest.CA, _ *meshtls.Static) {
			w.hold(result(func(c *discovery.Cluster) {
				mutualTLS(c)
				c.TLS.SANs = []discovery.StringMatch{{Value: customerID}}
			}, paymentAddress))
		}, false},
		{"the certificate of the peer expires", func(*testing.T, *world, *tlstest.CA, *meshtls.Static) {
			time.Sleep(life + time.Second)
		}, false},
		{"in the clear", func(_ *testing.T, w *world, _ *tlstest.CA, _ *meshtls.Static) {
			w.hold(result(nil, paymentAddress))
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				ca := tlstest.NewCA(t)
				payment, err := meshtls.NewIdentity(
					ca.Issue(t, tlstest.Leaf{URIs: []string{paymentID}, NotAfter: time.Now().Add(life)}), []*x509.Certificate{ca.Certificate})
				if err != nil {
					t.Fatal(err)
				}
				customer := meshtls.NewStatic(identity(t, ca, customerID, ca))
				w.identities["default"] = customer
				w.serve(paymentAddress, answer, secure(t, meshtls.NewStatic(payment), "http/1.1"))
				_, e := w.one(mutualTLS)
				s, err := e.Connect(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer s.Closed()
				defer s.Close()
				tt.change(t, w, ca, customer)
				if err := s.Check(); (err == nil) != tt.good {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

func TestAStreamInTheClearIsNotGoodUnderTLS(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.identities["default"] = meshtls.NewStatic(identity(t, tlstest.NewCA(t), customerID))
		w.serve(paymentAddress, answer)
		_, e := w.one(nil)
		s, err := e.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Closed()
		defer s.Close()
		if err := s.Check(); err != nil {
			t.Errorf("got %v", err)
		}
		w.hold(result(mutualTLS, paymentAddress))
		if s.Check() == nil {
			t.Error("a connection in the clear is good where there is TLS")
		}
	})
}
