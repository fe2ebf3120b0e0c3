package nativegrpc

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc/credentials/tls/certprovider"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/relay"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

func identityOf(t *testing.T, root *tlstest.CA) *meshtls.Identity {
	t.Helper()
	identity, err := meshtls.NewIdentity(root.Workload(t, "spiffe://cluster.local/ns/shop/sa/a"), []*x509.Certificate{root.Certificate})
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

// TestRootsThatGRPCWouldTrustFurtherVerifyNobody: who withdraws certificates, or has
// no roots, which to crypto/tls are the operating system's.
func TestRootsThatGRPCWouldTrustFurtherVerifyNobody(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA(t)
	plain := identityOf(t, root)
	federated := plain.WithFederated(map[string][]*x509.Certificate{"other": {root.Certificate}})
	withdrawn, both, rootless, nameless := *plain, *federated, *plain, *plain
	withdrawn.Revocation, both.Revocation = &meshtls.Revocation{}, &meshtls.Revocation{}
	rootless.Roots = nil
	for _, tt := range []struct {
		name     string
		identity *meshtls.Identity
		want     string
	}{
		{"plain", plain, ""},
		{"a trust domain without a name that can be one", nameless.WithFederated(map[string][]*x509.Certificate{"a domain": {root.Certificate}}), `"a domain"`},
		{"withdrawn", &withdrawn, "withdrawn"},
		{"withdrawn and federated", &both, "withdrawn"},
		{"without roots", &rootless, "no roots"},
	} {
		m, err := material(tt.identity, true)
		if tt.want == "" {
			if err != nil || m.Roots != tt.identity.Roots || len(m.Certs) != 1 {
				t.Errorf("%s: %v, %v", tt.name, m, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		// To present a certificate has nothing to do with it.
		if m, err := material(tt.identity, false); err != nil || len(m.Certs) != 1 || m.Roots != nil {
			t.Errorf("%s, without verifying: %v, %v", tt.name, m, err)
		}
	}
}

// TestTheRootsOfEachTrustDomainAreInAMap: and there is one even if nobody is verified,
// for without one grpc-go takes the pool, and without a pool the operating system's.
func TestTheRootsOfEachTrustDomainAreInAMap(t *testing.T) {
	t.Parallel()
	root, other := tlstest.NewCA(t), tlstest.NewCA(t)
	plain := identityOf(t, root)
	there := map[string][]*x509.Certificate{"other": {other.Certificate, root.Certificate}}
	bundles, err := meshtls.NewBundles(there)
	if err != nil {
		t.Fatal(err)
	}
	rootless := *plain.WithFederated(nil)
	rootless.Roots = nil
	for _, tt := range []struct {
		name     string
		identity *meshtls.Identity
		want     map[string]int // roots of a trust domain
	}{
		{"the own one and another", plain.WithFederated(there), map[string]int{"cluster.local": 1, "other": 2}},
		{"the own one", plain.WithFederated(nil), map[string]int{"cluster.local": 1}},
		{"others", bundles, map[string]int{"other": 2}},
		{"nobody", &rootless, map[string]int{}},
	} {
		m, err := material(tt.identity, true)
		if err != nil || m.SPIFFEBundleMap == nil || m.Roots != nil {
			t.Errorf("%s: %v, %v", tt.name, m, err)
			continue
		}
		got := make(map[string]int)
		for domain, bundle := range m.SPIFFEBundleMap {
			got[domain] = len(bundle.X509Authorities())
		}
		if !maps.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestEveryFieldOfAnIdentityIsDecidedAbout: a new one may limit whom roots verify.
func TestEveryFieldOfAnIdentityIsDecidedAbout(t *testing.T) {
	t.Parallel()
	decided := " Certificate Roots Federated Revocation RootsKey ID IssuerKey NotAfter "
	typ := reflect.TypeFor[meshtls.Identity]()
	for f := range typ.Fields() {
		if f.IsExported() && !strings.Contains(decided, " "+f.Name+" ") {
			t.Errorf("Identity.%s: say in material what it is to grpc-go", f.Name)
		}
	}
}

// TestCertificatesAreThoseOfNow: a provider waits for the first, has each one that
// follows, and finds the sources by whatever way a bootstrap names them.
func TestCertificatesAreThoseOfNow(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA(t)
	source := new(meshtls.Static)
	r, err := relay.New(relay.Options{
		Config: &bootstrap.Config{CertificateProviders: map[string]bootstrap.CertificateProvider{
			"default": {Plugin: "istio_ca", Config: []byte(`{"a": 1, "b": 2}`)},
		}},
		Logger: slog.New(slog.DiscardHandler), Instances: []string{"default"},
		Identity: func(instance string) (meshtls.Source, error) {
			if instance != "default" {
				return nil, errors.New("there is none")
			}
			return source, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	name := guests.add(r)
	build := func(plugin, config string) certprovider.Provider {
		t.Helper()
		p, err := certprovider.GetProvider(plugin, json.RawMessage(config), certprovider.BuildOptions{WantIdentity: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		return p
	}
	own := build("inboard", `{"mesh": "`+name+`", "instance": "default"}`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := own.KeyMaterial(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("without a certificate: %v", err)
	}
	first := identityOf(t, root)
	got := make(chan *certprovider.KeyMaterial, 1)
	go func() {
		m, err := own.KeyMaterial(t.Context())
		if err != nil {
			t.Error(err)
		}
		got <- m
	}()
	source.Set(first)
	if m := <-got; &m.Certs[0].Certificate[0][0] != &first.Certificate.Certificate[0][0] {
		t.Error("the first certificate is another one")
	}
	second := identityOf(t, root)
	source.Set(second)
	if m, err := own.KeyMaterial(t.Context()); err != nil || &m.Certs[0].Certificate[0][0] != &second.Certificate.Certificate[0][0] {
		t.Errorf("after a rotation: %v", err)
	}
	for _, config := range []string{`{"mesh": "` + name + `", "instance": "other"}`, `{"mesh": "none", "instance": "default"}`} {
		if _, err := build("inboard", config).KeyMaterial(t.Context()); err == nil {
			t.Errorf("%s has certificates", config)
		}
	}
	for _, config := range []string{`{}`, `{"instance": 1}`, `{"instance": "a", "other": 1}`, `[]`} {
		if _, err := certprovider.ParseConfig("inboard", json.RawMessage(config)); err == nil {
			t.Errorf("%s is taken", config)
		}
	}
}
