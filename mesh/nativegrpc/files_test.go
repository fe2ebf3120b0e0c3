package nativegrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials/tls/certprovider"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/relay"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/filesource"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// writeFiles writes a certificate, its key, the CA's certificate and a bundle map, and
// returns a bootstrap's configuration with them.
func writeFiles(t *testing.T, ca *tlstest.CA, bundles map[string][]*tlstest.CA) (file func(name string) string, config func(keys ...string) json.RawMessage) {
	t.Helper()
	dir := t.TempDir()
	file = func(name string) string { return filepath.Join(dir, name) }
	cert := ca.Workload(t, "spiffe://cluster.local/ns/shop/sa/a")
	for name, text := range map[string][]byte{
		"certificate_file": tlstest.CertificatePEM(cert.Certificate...), "private_key_file": tlstest.KeyPEM(t, cert),
		"ca_certificate_file": tlstest.CertificatePEM(ca.Certificate.Raw), "spiffe_trust_bundle_map_file": []byte(tlstest.BundleMap(bundles)),
	} {
		if err := os.WriteFile(file(name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file, func(keys ...string) json.RawMessage {
		fields := []string{`"refresh_interval": "0.01s"`}
		for _, key := range keys {
			fields = append(fields, fmt.Sprintf("%q: %q", key, file(key)))
		}
		return json.RawMessage("{" + strings.Join(fields, ", ") + "}")
	}
}

// trusts is which trust domains are told apart, or that none are.
func trusts(m *certprovider.KeyMaterial) string {
	if m == nil {
		return "nothing yet"
	}
	if m.SPIFFEBundleMap == nil {
		if m.Roots == nil {
			return "the system's roots"
		}
		return "roots"
	}
	domains := []string{}
	for name, bundle := range m.SPIFFEBundleMap {
		domains = append(domains, fmt.Sprintf("%s %d", name, len(bundle.X509Authorities())))
	}
	slices.Sort(domains)
	return strings.Join(domains, ", ")
}

const certificateAndKey = "certificate_file private_key_file"

// TestBS2_AGuestsFilesWithABundleMapAreReadByIt: without the experiment of grpc-go, the
// map would be passed over.
func TestBS2_AGuestsFilesWithABundleMapAreReadByIt(t *testing.T) {
	t.Parallel()
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	build := func(config json.RawMessage) certprovider.Provider {
		t.Helper()
		p, err := certprovider.GetProvider("file_watcher", config, certprovider.BuildOptions{WantRoot: true, WantIdentity: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		return p
	}
	_, both := writeFiles(t, ca, map[string][]*tlstest.CA{"partner.example": {other, ca}, "cluster.local": {ca}})
	for _, tt := range []struct {
		keys, want string
		certs      int
	}{
		{"spiffe_trust_bundle_map_file", "cluster.local 1, partner.example 2", 0},
		{"spiffe_trust_bundle_map_file ca_certificate_file", "cluster.local 1, partner.example 2", 0},
		{certificateAndKey + " spiffe_trust_bundle_map_file", "cluster.local 1, partner.example 2", 1},
		{"ca_certificate_file", "roots", 0},
		{certificateAndKey + " ca_certificate_file", "roots", 1},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		m, err := build(both(strings.Fields(tt.keys)...)).KeyMaterial(ctx)
		cancel()
		if err != nil || trusts(m) != tt.want || len(m.Certs) != tt.certs {
			t.Errorf("%s: %s, %v, want %q", tt.keys, trusts(m), err, tt.want)
		}
	}
	file, config := writeFiles(t, ca, nil) // for what has been read is kept
	if err := os.WriteFile(file("spiffe_trust_bundle_map_file"), []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if m, err := build(config("spiffe_trust_bundle_map_file", "ca_certificate_file")).KeyMaterial(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a map that is none: %s, %v", trusts(m), err)
	}
	for _, bad := range []string{`{}`, `{"certificate_file": "/c"}`, `[]`, `{"ca_certificate_file": "/c", "refresh_interval": "x"}`} {
		if _, err := certprovider.ParseConfig("file_watcher", json.RawMessage(bad)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	if _, err := certprovider.ParseConfig("file_watcher", 1); err == nil {
		t.Error("a number is taken")
	}
}

// TestBS2_AGuestHasTheMapOfItsMesh, if both were given the same files. It cannot be
// parallel: there may be one mesh.
func TestBS2_AGuestHasTheMapOfItsMesh(t *testing.T) {
	ca := tlstest.NewCA(t)
	file, config := writeFiles(t, ca, map[string][]*tlstest.CA{"cluster.local": {ca}})
	text := config("certificate_file", "private_key_file", "spiffe_trust_bundle_map_file")
	parsed, err := filesource.ParseConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	source, err := filesource.New(t.Context(), parsed)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	r, err := relay.New(relay.Options{
		Config: &bootstrap.Config{CertificateProviders: map[string]bootstrap.CertificateProvider{
			"default": {Plugin: "file_watcher", Config: text},
		}},
		Logger: slog.New(slog.DiscardHandler), Instances: []string{"default"},
		Identity: func(string) (meshtls.Source, error) { return source, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	name := guests.add(r)
	defer guests.remove(name)
	p, err := certprovider.GetProvider("file_watcher", text, certprovider.BuildOptions{WantRoot: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	m, err := p.KeyMaterial(t.Context())
	if err != nil || trusts(m) != "cluster.local 1" || len(m.Certs) != 1 {
		t.Fatalf("%s, %v", trusts(m), err)
	}
	same := func() bool {
		t.Helper()
		m, err := p.KeyMaterial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		identity, err := source.Identity()
		if err != nil {
			t.Fatal(err)
		}
		return &m.Certs[0].Certificate[0][0] == &identity.Certificate.Certificate[0][0] && trusts(m) == strings.Join(domainsOf(identity), ", ")
	}
	if !same() {
		t.Error("the guest has other certificates than its mesh")
	}
	changed := source.Changed()
	if err := os.WriteFile(file("spiffe_trust_bundle_map_file"), []byte(`{"trust_domains": {}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	<-changed
	if !same() {
		t.Error("the guest has other certificates than its mesh, after a change")
	}
}

func domainsOf(identity *meshtls.Identity) []string {
	var domains []string
	for name, roots := range identity.Bundles() {
		domains = append(domains, fmt.Sprintf("%s %d", name, len(roots)))
	}
	slices.Sort(domains)
	return domains
}
