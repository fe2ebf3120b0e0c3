package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/tls/istioca"
)

func TestBootstrapSaysWhereTheCertificateIsFrom(t *testing.T) {
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "")
	for name, tt := range map[string]struct {
		flags  []string
		plugin string
		config string // some of it
		// without is no part of it, if not "".
		without string
		token   bool
		wrong   string
	}{
		"files": {
			flags:  []string{"--certificate-file", "/c.pem", "--key-file", "/k.pem", "--root-file", "/r.pem"},
			plugin: "file_watcher", config: `"private_key_file": "/k.pem"`,
		},
		"files with a bundle map": {
			flags:  []string{"--certificate-file", "/c.pem", "--key-file", "/k.pem", "--bundle-map-file", "/b.json", "--root-file", "/r.pem"},
			plugin: "file_watcher", config: `"spiffe_trust_bundle_map_file": "/b.json"`, without: "ca_certificate_file",
		},
		"files with a bundle map, in the clear": {
			flags:  []string{"--certificate-file", "/c.pem", "--key-file", "/k.pem", "--bundle-map-file", "/b.json", "--plaintext"},
			plugin: "file_watcher", config: `"spiffe_trust_bundle_map_file": "/b.json"`, without: "ca_certificate_file",
		},
		"the Workload API": {
			flags:  []string{"--workload-api", "unix:///spire.sock", "--root-file", "/r.pem"},
			plugin: "spiffe_workload_api", config: `"socket": "unix:///spire.sock"`,
		},
		"an agent": {
			flags:  []string{"--sds", "unix:///agent.sock", "--root-file", "/r.pem"},
			plugin: "sds", config: `"socket": "unix:///agent.sock"`,
		},
		"with a token for the control plane": {
			flags:  []string{"--sds", "unix:///agent.sock", "--root-file", "/r.pem", "--token-file", "/t"},
			plugin: "sds", config: `"socket"`, token: true,
		},
		"with a control plane in the clear": {
			flags:  []string{"--sds", "unix:///agent.sock", "--plaintext"},
			plugin: "sds", config: `"socket"`,
		},
		"a certificate without its key":          {flags: []string{"--certificate-file", "/c.pem", "--root-file", "/r.pem"}, wrong: "give all three"},
		"a key without its certificate":          {flags: []string{"--key-file", "/k.pem", "--root-file", "/r.pem"}, wrong: "give all three"},
		"files without roots":                    {flags: []string{"--certificate-file", "/c.pem", "--key-file", "/k.pem", "--plaintext"}, wrong: "give all three"},
		"a bundle map alone":                     {flags: []string{"--bundle-map-file", "/b.json", "--root-file", "/r.pem"}, wrong: "give --certificate-file and --key-file, too"},
		"a bundle map beside an agent":           {flags: []string{"--sds", "unix:///a", "--bundle-map-file", "/b.json", "--root-file", "/r.pem"}, wrong: "give --certificate-file and --key-file, too"},
		"a bundle map, no control plane's roots": {flags: []string{"--certificate-file", "/c.pem", "--key-file", "/k.pem", "--bundle-map-file", "/b.json"}, wrong: "missing --root-file"},
		"a bundle map and roots in the clear":    {flags: []string{"--certificate-file", "/c.pem", "--key-file", "/k.pem", "--bundle-map-file", "/b.json", "--root-file", "/r.pem", "--plaintext"}, wrong: "--root-file has no use with --plaintext"},
		"two sources":                            {flags: []string{"--sds", "unix:///a", "--workload-api", "unix:///b", "--root-file", "/r.pem"}, wrong: "give one of them"},
		"a socket that is none":                  {flags: []string{"--workload-api", "127.0.0.1:80", "--root-file", "/r.pem"}, wrong: "--workload-api: spiffe_workload_api: socket:"},
		"a CA beside a source":                   {flags: []string{"--sds", "unix:///a", "--root-file", "/r.pem", "--ca-server", "ca:1"}, wrong: "--ca-server and --certificate-lifetime have no use"},
		"no roots":                               {flags: []string{"--sds", "unix:///a"}, wrong: "missing --root-file"},
		"a token in the clear":                   {flags: []string{"--sds", "unix:///a", "--plaintext", "--token-file", "/t"}, wrong: "--token-file has no use with --plaintext"},
		"roots for nothing":                      {flags: []string{"--sds", "unix:///a", "--plaintext", "--root-file", "/r.pem"}, wrong: "--root-file has no use with --plaintext"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := call(t, append([]string{"bootstrap", "--namespace", "shop", "--service-account", "payment"}, tt.flags...)...)
			if tt.wrong != "" {
				if code != exitUsage || stdout != "" || !strings.Contains(stderr, tt.wrong) {
					t.Errorf("code %d, %q, %q; want %q", code, stdout, stderr, tt.wrong)
				}
				return
			}
			config, err := bootstrap.Parse([]byte(stdout))
			if code != exitOK || err != nil {
				t.Fatalf("code %d, %q, %v", code, stderr, err)
			}
			provider := config.CertificateProviders["default"]
			if provider.Plugin != tt.plugin || !strings.Contains(string(provider.Config), tt.config) ||
				tt.without != "" && strings.Contains(string(provider.Config), tt.without) {
				t.Errorf("provider %s %s", provider.Plugin, provider.Config)
			}
			if strings.Contains(stdout, "jwt_token_file") != tt.token {
				t.Errorf("token wanted: %t\n%s", tt.token, stdout)
			}
		})
	}
}

// A workload that has its certificate in files needs no token: the certificate is
// what it shows to the control plane.
func TestAWorkloadWithFilesJoinsWithoutAToken(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	path := func(name string) string { return filepath.Join(base, name) }
	if err := os.Mkdir(path("config"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, path("config/payment.yaml"), fmt.Sprintf(goodYAML, "127.0.0.1"))
	where, _ := plane(t, "--config", path("config"), "--ca-dir", path("ca"), "--listen", "127.0.0.1:0", "--status", "")
	issueFiles(t, where.Secure, path)

	code, stdout, stderr := call(t, "bootstrap", "--server", where.Secure, "--namespace", "shop", "--service-account", "payment",
		"--certificate-file", path("cert.pem"), "--key-file", path("key.pem"), "--root-file", path("ca/root-cert.pem"))
	if code != exitOK {
		t.Fatalf("code %d, %q", code, stderr)
	}
	config, err := bootstrap.Parse([]byte(stdout))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m, err := mesh.New(ctx, mesh.WithBootstrap(config))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://payment.shop.svc.cluster.local:8080/", nil)
	if err != nil {
		t.Fatal(err)
	}
	explanation, err := m.Explain(request)
	if err != nil || explanation.Cluster == nil {
		t.Errorf("the control plane told nothing: %+v, %v", explanation, err)
	}
}

// issueFiles has the CA issue a certificate, and writes it to files as an agent
// would.
func issueFiles(t *testing.T, server string, path func(string) string) {
	t.Helper()
	if code, _, stderr := call(t, "token", "--ca-dir", path("ca"), "--namespace", "shop", "--service-account", "payment", "--out", path("token")); code != exitOK {
		t.Fatal(stderr)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	source, err := istioca.New(ctx, istioca.Config{ServerURI: server, TokenFile: path("token"), RootFile: path("ca/root-cert.pem")})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	identity, err := source.Identity()
	if err != nil {
		t.Fatal(err)
	}
	var chain strings.Builder
	for _, certificate := range identity.Certificate.Certificate {
		if err := pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: certificate}); err != nil {
			t.Fatal(err)
		}
	}
	key, err := x509.MarshalPKCS8PrivateKey(identity.Certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path("cert.pem"), chain.String())
	write(t, path("key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
}
