package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

const (
	customerID = "spiffe://cluster.local/ns/shop/sa/customer"
	paymentID  = "spiffe://cluster.local/ns/shop/sa/payment"
)

// identity is what a workload has after rotation or not: a certificate of own,
// trusting roots.
func identity(t *testing.T, own *tlstest.CA, id string, roots ...*tlstest.CA) *meshtls.Identity {
	t.Helper()
	certificates := make([]*x509.Certificate, 0, len(roots))
	for _, root := range roots {
		certificates = append(certificates, root.Certificate)
	}
	i, err := meshtls.NewIdentity(own.Workload(t, id), certificates)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// secure makes a server speak mutual TLS with this identity.
func secure(t *testing.T, source meshtls.Source, alpn ...string) func(*http.Server) {
	t.Helper()
	config, err := meshtls.ServerConfig(meshtls.ServerParams{
		Identity: source, Roots: source, Authorize: meshtls.AuthorizeAny(),
		RequireClientCertificate: true, NextProtos: alpn,
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(s *http.Server) {
		s.TLSConfig = config
		s.Protocols = new(http.Protocols)
		s.Protocols.SetHTTP1(true)
		s.Protocols.SetHTTP2(true)
	}
}

func mutualTLS(c *discovery.Cluster) {
	c.TLS = &discovery.UpstreamTLS{IdentityInstance: "default", RootInstance: "default", SNI: "payment.shop"}
}

// secureWorld is a world with one CA, a customer with an identity from it, and a
// payment that speaks mutual TLS.
func secureWorld(t *testing.T, alpn ...string) (*world, *tlstest.CA, *meshtls.Static) {
	t.Helper()
	w := newWorld(t)
	ca := tlstest.NewCA(t)
	customer := meshtls.NewStatic(identity(t, ca, customerID, ca))
	w.identities["default"] = customer
	payment := meshtls.NewStatic(identity(t, ca, paymentID, ca))
	w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Peer", r.TLS.PeerCertificates[0].URIs[0].String())
		rw.Header().Set("X-Sni", r.TLS.ServerName)
		answer(rw, r)
	}, secure(t, payment, alpn...))
	return w, ca, customer
}

func TestMutualTLS(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		protocol discovery.HTTPProtocol
		alpn     []string // of the server
		offer    []string // of the cluster
		proto    string
		label    string
	}{
		{name: "HTTP/1.1", protocol: discovery.HTTP1, alpn: []string{"h2", "http/1.1"}, proto: "HTTP/1.1", label: "http/1.1"},
		{name: "HTTP/2", protocol: discovery.HTTP2, alpn: []string{"h2", "http/1.1"}, proto: "HTTP/2.0", label: "h2"},
		{name: "the handshake chooses HTTP/2", protocol: discovery.HTTPAuto, alpn: []string{"h2", "http/1.1"}, proto: "HTTP/2.0", label: "h2"},
		{name: "the handshake chooses HTTP/1.1", protocol: discovery.HTTPAuto, alpn: []string{"http/1.1"}, proto: "HTTP/1.1", label: "http/1.1"},
		{name: "the cluster offers HTTP/1.1 only", protocol: discovery.HTTPAuto, alpn: []string{"h2", "http/1.1"}, offer: []string{"http/1.1"}, proto: "HTTP/1.1", label: "http/1.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, _, _ := secureWorld(t, tt.alpn...)
				c, e := w.one(func(c *discovery.Cluster) {
					mutualTLS(c)
					c.Protocol, c.TLS.ALPN = tt.protocol, tt.offer
				})
				for range 3 {
					resp, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), 0)
					if failure != nil {
						t.Fatal(failure.Err)
					}
					if got := resp.Header.Get("X-Peer"); got != customerID {
						t.Errorf("the server saw %q", got)
					}
					if got := resp.Header.Get("X-Sni"); got != "payment.shop" {
						t.Errorf("the server name was %q", got)
					}
					if got := read(t, resp); got != tt.proto {
						t.Errorf("the server saw %s, want %s", got, tt.proto)
					}
				}
				w.expectConnections(1, 0)
				w.mu.Lock()
				defer w.mu.Unlock()
				if event := w.opened[0]; !event.TLS || event.PeerID != paymentID || event.Protocol != tt.label {
					t.Errorf("reported %+v", event)
				}
				_ = c
			})
		})
	}
}

func TestAPeerThatIsNotTrustedCannotBeConnectedTo(t *testing.T) {
	t.Parallel()
	ours := func(t *testing.T, ca, _ *tlstest.CA) *meshtls.Identity {
		t.Helper()
		return identity(t, ca, paymentID, ca)
	}
	tests := []struct {
		name    string
		payment func(t *testing.T, ca, other *tlstest.CA) *meshtls.Identity
		sans    []discovery.StringMatch
		want    string // part of the error
	}{
		{
			name: "another authority",
			payment: func(t *testing.T, ca, other *tlstest.CA) *meshtls.Identity {
				t.Helper()
				return identity(t, other, paymentID, ca)
			},
			want: "tls handshake: ",
		},
		{
			name: "another trust domain, and no names are configured",
			payment: func(t *testing.T, ca, _ *tlstest.CA) *meshtls.Identity {
				t.Helper()
				return identity(t, ca, "spiffe://elsewhere/ns/shop/sa/payment", ca)
			},
			want: "elsewhere",
		},
		{
			name: "another name than the configured ones", payment: ours,
			sans: []discovery.StringMatch{{Value: "spiffe://cluster.local/ns/shop/sa/ledger"}},
			want: paymentID,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
				w.identities["default"] = meshtls.NewStatic(identity(t, ca, customerID, ca))
				s := w.serve(paymentAddress, answer, secure(t, meshtls.NewStatic(tt.payment(t, ca, other)), "http/1.1"))
				c, e := w.one(func(c *discovery.Cluster) {
					mutualTLS(c)
					c.TLS.SANs = tt.sans
				})
				_, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), 0)
				if failure == nil || failure.Kind != outcome.ConnectFailure || failure.Sent || !strings.Contains(failure.Err.Error(), tt.want) {
					t.Errorf("got %+v, want a connect failure with %q", failure, tt.want)
				}
				if got := s.calls.Load(); got != 0 {
					t.Errorf("the server got %d calls", got)
				}
				expectIdle(t, c, 0)
			})
		})
	}
}

// TestBS2_RootsOfASourceOfTheirOwnVerifyTheOwnTrustDomain, which is that of the
// certificate that is presented: a source that holds roots only has none.
func TestBS2_RootsOfASourceOfTheirOwnVerifyTheOwnTrustDomain(t *testing.T) {
	t.Parallel()
	const elsewhere = "spiffe://elsewhere.org/ns/shop/sa/payment"
	for _, tt := range []struct {
		name  string
		peer  string
		roots func(ca *tlstest.CA) (*meshtls.Identity, error)
		works bool
	}{
		{"a member, by roots", paymentID, func(ca *tlstest.CA) (*meshtls.Identity, error) {
			return meshtls.NewRoots([]*x509.Certificate{ca.Certificate})
		}, true},
		{"a member, by a bundle map", paymentID, func(ca *tlstest.CA) (*meshtls.Identity, error) {
			return meshtls.NewBundles(map[string][]*x509.Certificate{"cluster.local": {ca.Certificate}})
		}, true},
		{"a stranger, by roots", elsewhere, func(ca *tlstest.CA) (*meshtls.Identity, error) {
			return meshtls.NewRoots([]*x509.Certificate{ca.Certificate})
		}, false},
		{"a stranger, by a bundle map", elsewhere, func(ca *tlstest.CA) (*meshtls.Identity, error) {
			return meshtls.NewBundles(map[string][]*x509.Certificate{"elsewhere.org": {ca.Certificate}})
		}, false},
		{"a member, by a bundle map of strangers", paymentID, func(ca *tlstest.CA) (*meshtls.Identity, error) {
			return meshtls.NewBundles(map[string][]*x509.Certificate{"elsewhere.org": {ca.Certificate}})
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				ca := tlstest.NewCA(t)
				roots, err := tt.roots(ca)
				if err != nil {
					t.Fatal(err)
				}
				w.identities["default"] = meshtls.NewStatic(identity(t, ca, customerID, ca))
				w.identities["roots"] = meshtls.NewStatic(roots)
				w.serve(paymentAddress, answer, secure(t, meshtls.NewStatic(identity(t, ca, tt.peer, ca)), "http/1.1"))
				_, e := w.one(func(c *discovery.Cluster) {
					mutualTLS(c)
					c.TLS.RootInstance = "roots"
				})
				resp, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), 0)
				if (failure == nil) != tt.works {
					t.Fatalf("got %+v", failure)
				}
				if failure == nil {
					read(t, resp)
				}
			})
		})
	}
}

func TestBS4_WithoutItsIdentityAClusterIsNotUsable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, answer)
		c, e := w.one(nil)
		get(t, e)
		results := result(mutualTLS, paymentAddress)
		for _, update := range []string{"the settings", "the endpoints only"} {
			w.hold(results)
			if err := c.Err(); err == nil || err.Error() != `cluster "payment": no instance "default"` {
				t.Errorf("after an update of %s: Err() = %v", update, err)
			}
			if config, _, err := e.TLS(); err == nil {
				t.Errorf("after an update of %s: TLS() = %v, and nil is plaintext", update, config)
			}
			results = map[string]discovery.ClusterResult{"payment": {
				Cluster: results["payment"].Cluster, Endpoints: assignment(paymentAddress),
			}}
		}
		w.expectConnections(1, 1) // it was plaintext

		w.identities["default"] = meshtls.NewStatic(nil)
		w.hold(results)
		if err := c.Err(); err != nil {
			t.Errorf("Err() = %v although the instance is there", err)
		}
		if _, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), 0); failure == nil {
			t.Error("a call to a cluster with TLS settings went through without a certificate")
		}
	})
}

// A certificate provider that has nothing yet fails the handshake; the call is
// never made in plaintext.
func TestBS4_AnEmptyIdentitySourceFailsTheConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.serve(paymentAddress, answer)
		w.identities["default"] = meshtls.NewStatic(nil)
		_, e := w.one(mutualTLS)
		_, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), 0)
		if failure == nil || failure.Kind != outcome.ConnectFailure || failure.Sent {
			t.Errorf("got %+v, want a connect failure", failure)
		}
		if got := s.calls.Load(); got != 0 {
			t.Errorf("the server got %d calls", got)
		}
	})
}

func TestBN5_NewTLSSettingsMeanNewConnections(t *testing.T) {
	t.Parallel()
	change := map[string]func(*discovery.UpstreamTLS){
		"SNI":      func(s *discovery.UpstreamTLS) { s.SNI = "payment.other" },
		"ALPN":     func(s *discovery.UpstreamTLS) { s.ALPN = []string{"h2"} },
		"SANs":     func(s *discovery.UpstreamTLS) { s.SANs = []discovery.StringMatch{{Value: paymentID}} },
		"identity": func(s *discovery.UpstreamTLS) { s.IdentityInstance = "second" },
		"roots":    func(s *discovery.UpstreamTLS) { s.RootInstance = "second" },
	}
	for name, edit := range change {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, _, customer := secureWorld(t, "http/1.1")
				w.identities["second"] = customer
				c, e := w.one(mutualTLS)
				generation := c.Generation()
				get(t, e)
				w.hold(result(mutualTLS, paymentAddress))
				if conn, _ := get(t, e); conn != "1" || c.Generation() != generation {
					t.Errorf("equal settings: answered by connection %s, generation %d, then %d", conn, generation, c.Generation())
				}
				w.hold(result(func(c *discovery.Cluster) {
					mutualTLS(c)
					edit(c.TLS)
				}, paymentAddress))
				if conn, _ := get(t, e); conn != "2" || c.Generation() == generation {
					t.Errorf("other settings: answered by connection %s, generation %d, then %d", conn, generation, c.Generation())
				}
				w.expectConnections(2, 1)
			})
		})
	}
}

func TestBN5_NewRootsMeanNewConnectionsAndANewCertificateDoesNot(t *testing.T) {
	t.Parallel()
	for name, protocol := range map[string]discovery.HTTPProtocol{"HTTP/1.1": discovery.HTTP1, "HTTP/2": discovery.HTTP2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, ca, customer := secureWorld(t, "h2", "http/1.1")
				c, e := w.one(func(c *discovery.Cluster) {
					mutualTLS(c)
					c.Protocol = protocol
				})
				get(t, e)
				customer.Set(identity(t, ca, customerID, ca))
				if conn, _ := get(t, e); conn != "1" {
					t.Errorf("after a new certificate: answered by connection %s, want 1", conn)
				}
				customer.Set(identity(t, ca, customerID, ca, tlstest.NewCA(t)))
				if conn, _ := get(t, e); conn != "2" {
					t.Errorf("after new roots: answered by connection %s, want 2", conn)
				}
				w.expectConnections(2, 1)
				expectIdle(t, c, 1)
			})
		})
	}
}

// Peers whose authority is not trusted any more get no more calls, also over
// connections that were made before.
func TestBN5_AWithdrawnRootEndsTheUseOfConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, ca, customer := secureWorld(t, "http/1.1")
		c, e := w.one(mutualTLS)
		get(t, e)
		customer.Set(identity(t, ca, customerID, tlstest.NewCA(t)))
		_, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), 0)
		if failure == nil || failure.Kind != outcome.ConnectFailure {
			t.Errorf("got %+v, want a connect failure", failure)
		}
		w.expectConnections(1, 1)
		expectIdle(t, c, 0)
	})
}

func TestTLSConfigIsFreshAndOffersWhatIsAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := secureWorld(t, "h2")
		_, e := w.one(mutualTLS)
		first, _, err := e.TLS()
		if err != nil {
			t.Fatal(err)
		}
		second, _, err := e.TLS()
		if err != nil {
			t.Fatal(err)
		}
		if first == second {
			t.Error("two calls return one configuration")
		}
		if first.MinVersion != tls.VersionTLS13 || len(first.NextProtos) != 1 || first.NextProtos[0] != "h2" || first.ServerName != "payment.shop" {
			t.Errorf("TLS() = %+v", first)
		}
		w.hold(result(nil, paymentAddress))
		if config, own, err := e.TLS(); config != nil || own != nil || err != nil {
			t.Errorf("plaintext: TLS() = %v, %v, %v", config, own, err)
		}
	})
}
