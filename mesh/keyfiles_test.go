package mesh_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/mesh"
)

// TestV60_AKeyThatOthersMayReadIsWarnedOf, wherever the bootstrap names it; the mesh
// starts all the same.
func TestV60_AKeyThatOthersMayReadIsWarnedOf(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("modes say nothing of who may read")
	}
	dir, root := t.TempDir(), tlstest.NewCA(t)
	cert := root.Workload(t, customerID)
	write := func(name string, data []byte, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certificate := write("cert.pem", tlstest.CertificatePEM(cert.Certificate...), 0o644)
	for _, tt := range []struct {
		mode os.FileMode
		warn bool
	}{{0o600, false}, {0o400, false}, {0o640, false}, {0o644, true}, {0o604, true}, {0o660, true}, {0o622, true}} {
		t.Run(tt.mode.String(), func(t *testing.T) {
			key := write("key.pem", tlstest.KeyPEM(t, cert), tt.mode)
			link := filepath.Join(dir, "link-"+tt.mode.String())
			if err := os.Symlink(key, link); err != nil { // as Kubernetes has them
				t.Fatal(err)
			}
			files := func(key string) []byte {
				return fmt.Appendf(nil, `{"certificate_file": %q, "private_key_file": %q, "ca_certificate_file": %[1]q}`, certificate, key)
			}
			var log bytes.Buffer
			m, err := mesh.New(t.Context(), mesh.WithLogger(slog.New(slog.NewTextHandler(&log, nil))), mesh.WithBootstrap(&bootstrap.Config{
				Servers: []bootstrap.Server{{URI: "dns:///xds.invalid:443", ChannelCreds: bootstrap.Credentials{Type: "tls", Config: files(key)}}},
				Node:    bootstrap.Node{ID: "customer-1"},
				CertificateProviders: map[string]bootstrap.CertificateProvider{
					"default": {Plugin: "file_watcher", Config: files(link)},
				},
			}))
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			want := 0
			if tt.warn {
				want = 2
			}
			text := log.String()
			if got := strings.Count(text, "others may read or change a private key"); got != want || tt.warn && !strings.Contains(text, "file="+link) {
				t.Errorf("%d warnings, want %d:\n%s", got, want, text)
			}
		})
	}
}
