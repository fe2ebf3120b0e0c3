package mesh_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// bundleSocket is mutual TLS that verifies by a SPIFFE bundle map.
func bundleSocket(t *testing.T, bundles string) string {
	t.Helper()
	text, err := json.Marshal(bundles)
	if err != nil {
		t.Fatal(err)
	}
	return `"requireClientCertificate": true, "commonTlsContext": {"tlsCertificateProviderInstance": {"instanceName": "default"},
		"validationContext": {"customValidatorConfig": {"name": "envoy.tls.cert_validator.spiffe", "typedConfig": {
			"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
			"trustDomains": [{"name": "cluster.local"}], "trustBundles": {"inlineString": ` + string(text) + `}}}}}`
}

// TestBS2_TrustThatABundleMapWithdrawsEnds: for new connections and for those that are
// open, also if the map or the bundle is empty afterwards, which is accepted; one that
// cannot be read is refused, and leaves the one before in force.
func TestBS2_TrustThatABundleMapWithdrawsEnds(t *testing.T) {
	t.Parallel()
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	of := func(domain string, ca *tlstest.CA) string {
		return tlstest.BundleMap(map[string][]*tlstest.CA{domain: {ca}})
	}
	good := of("cluster.local", ca)
	for _, tt := range []struct {
		name, next string
		trusted    bool // afterwards
		rejected   string
	}{
		{"an empty map", `{"trust_domains": {}}`, false, ""},
		{"an empty bundle", `{"trust_domains": {"cluster.local": {"keys": []}}}`, false, ""},
		{"a map of another trust domain", of("elsewhere.org", ca), false, ""},
		{"another root", of("cluster.local", other), false, ""},
		{"no map", `{}`, true, "trust_bundles: has no trust_domains"},
		{"half a map", good[:len(good)/2], true, "trust_bundles: unexpected end of JSON input"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			own, err := meshtls.NewIdentity(ca.Workload(t, paymentID), certificatesOf(ca))
			if err != nil {
				t.Fatal(err)
			}
			x := newRawXDS(t)
			m, ln := listenRaw(t, x, bundleSocket(t, good), "", mesh.WithIdentity("default", meshtls.NewStatic(own)))
			serveUntilEnd(t, m.Server(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), ln)
			address := ln.Addr().String()
			open := &http.Transport{TLSClientConfig: strangerTLS(ca.Workload(t, customerID), "http/1.1")}
			t.Cleanup(open.CloseIdleConnections)
			fresh := open.Clone()
			fresh.DisableKeepAlives = true
			ask := func(through *http.Transport) error {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := through.RoundTrip(req)
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				if resp.StatusCode != http.StatusOK { // of a connection that is about to be closed
					return errors.New(resp.Status)
				}
				return nil
			}
			for _, through := range []*http.Transport{open, fresh} {
				if err := ask(through); err != nil {
					t.Fatalf("before: %v", err)
				}
			}
			x.set(rawListener(t, address, bundleSocket(t, tt.next), "", ""))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if tt.trusted {
				for !strings.Contains(strings.Join(x.rejections(), "\n"), tt.rejected) {
					if ctx.Err() != nil {
						t.Fatalf("rejected: %q", x.rejections())
					}
					<-time.After(time.Millisecond)
				}
			} else {
				for ask(fresh) == nil {
					if ctx.Err() != nil {
						t.Fatal("trusted all the same")
					}
				}
				if rejections := x.rejections(); len(rejections) > 0 {
					t.Errorf("rejected: %q", rejections)
				}
			}
			for name, through := range map[string]*http.Transport{"open": open, "fresh": fresh} {
				if err := ask(through); (err == nil) != tt.trusted {
					t.Errorf("%s connection: %v, trusted %t", name, err, tt.trusted)
				}
			}
		})
	}
}
