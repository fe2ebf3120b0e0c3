package upstream

import (
	"crypto/x509"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// autoTLS is Istio's auto mTLS: mutual TLS to the endpoints that say that they
// speak it, plaintext to the others.
func autoTLS(c *discovery.Cluster) {
	mutualTLS(c)
	c.TLSMatches = []discovery.TLSMatch{
		{Name: "tlsMode-istio", Match: map[string]string{"tlsMode": "istio"}, TLS: c.TLS},
		{Name: "tlsMode-disabled"},
	}
	c.TLS = nil
}

// withMode gives the endpoints of a result their tlsMode; "" is none.
func withMode(r map[string]discovery.ClusterResult, modes ...string) map[string]discovery.ClusterResult {
	endpoints := r["payment"].Endpoints.Localities[0].Endpoints
	for i, mode := range modes {
		if mode != "" {
			endpoints[i].Metadata = map[string]map[string]string{discovery.TLSMatchMetadata: {"tlsMode": mode}}
		}
	}
	return r
}

func TestBN4_TheMetadataOfAnEndpointChoosesItsTLS(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := secureWorld(t, "http/1.1")
		const plainAddress = "10.0.0.2:80"
		w.serve(plainAddress, answer)
		results := withMode(result(autoTLS, paymentAddress, plainAddress), "istio")
		c := w.hold(results)
		get(t, endpoint(t, c, paymentAddress))
		get(t, endpoint(t, c, plainAddress))
		w.mu.Lock()
		if !w.opened[0].TLS || w.opened[0].PeerID != paymentID || w.opened[1].TLS {
			t.Errorf("opened %+v", w.opened)
		}
		w.mu.Unlock()
		// An endpoint that now says that it speaks TLS is not spoken to in the
		// clear any more, not even over the connection that is there.
		w.hold(map[string]discovery.ClusterResult{"payment": {
			Cluster:   results["payment"].Cluster,
			Endpoints: withMode(result(nil, paymentAddress, plainAddress), "istio", "istio")["payment"].Endpoints,
		}})
		if _, failure := endpoint(t, c, plainAddress).RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), 0); failure == nil {
			t.Error("a call went in the clear")
		}
	})
}

func TestBS4_ATLSMatchWithoutItsIdentityMakesTheClusterUnusable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.hold(result(autoTLS, paymentAddress))
		const want = `cluster "payment": transport socket "tlsMode-istio": no instance "default"`
		if err := c.Err(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
}

// TestV25_AConnectionIsReplacedBeforeItsCertificatesExpire: the server's, and our
// own, which a server of the mesh would refuse from then on.
func TestV25_AConnectionIsReplacedBeforeItsCertificatesExpire(t *testing.T) {
	t.Parallel()
	for _, side := range []string{"the client's", "the server's"} {
		for _, protocol := range []discovery.HTTPProtocol{discovery.HTTP1, discovery.HTTP2} {
			t.Run(side+[]string{" over HTTP/1.1", " over HTTP/2"}[protocol], func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					ca := tlstest.NewCA(t)
					issue := func(id string, life time.Duration) *meshtls.Identity {
						now := time.Now()
						i, err := meshtls.NewIdentity(
							ca.Issue(t, tlstest.Leaf{URIs: []string{id}, NotBefore: now, NotAfter: now.Add(life)}),
							[]*x509.Certificate{ca.Certificate})
						if err != nil {
							t.Fatal(err)
						}
						return i
					}
					customer, payment := meshtls.NewStatic(issue(customerID, time.Hour)), meshtls.NewStatic(issue(paymentID, time.Hour))
					short, id := payment, paymentID
					if side == "the client's" {
						short, id = customer, customerID
					}
					short.Set(issue(id, 20*time.Second))
					w.identities["default"] = customer
					w.serve(paymentAddress, answer, secure(t, payment, "h2", "http/1.1"))
					_, e := w.one(func(c *discovery.Cluster) {
						mutualTLS(c)
						c.Protocol = protocol
					})
					first, _ := get(t, e)
					short.Set(issue(id, time.Hour))
					time.Sleep(17 * time.Second)
					if again, _ := get(t, e); again != first {
						t.Error("the connection was replaced when its certificates were still good")
					}
					time.Sleep(time.Second + time.Millisecond)
					synctest.Wait()
					w.expectConnections(1, 1) // idle, it is closed at once
					if next, _ := get(t, e); next == first {
						t.Error("the connection outlived its certificates")
					}
				})
			})
		}
	}
}

func TestIstioIsOfferedItsOwnProtocols(t *testing.T) {
	t.Parallel()
	istio := &discovery.UpstreamTLS{ALPN: []string{"istio-peer-exchange", "istio"}}
	tests := []struct {
		name     string
		protocol wireProtocol
		settings *discovery.UpstreamTLS
		want     []string
	}{
		{"HTTP/1.1 to Istio", wireHTTP1, istio, []string{"istio-http/1.1", "istio", "http/1.1"}},
		{"HTTP/2 to Istio", wireHTTP2, istio, []string{"istio-h2", "istio", "h2"}},
		{"either to Istio", wireALPN, istio, []string{"istio-h2", "istio-http/1.1", "istio", "h2", "http/1.1"}},
		{"HTTP/2 to others", wireHTTP2, &discovery.UpstreamTLS{}, []string{"h2"}},
		{"either to others", wireALPN, &discovery.UpstreamTLS{ALPN: []string{"http/1.1"}}, []string{"http/1.1"}},
	}
	for _, tt := range tests {
		if got := tt.protocol.alpn(tt.settings); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
