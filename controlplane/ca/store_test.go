package ca

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	pb "istio.io/api/security/v1alpha1"
)

func wantMode(t *testing.T, path string, want os.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); runtime.GOOS != "windows" && got != want {
		t.Errorf("%s has mode %#o, want %#o", filepath.Base(path), got, want)
	}
}

func TestDirectoryIsFilledOnceAndKept(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "deep", "ca")
	first := mustNew(t, Config{Dir: dir, TrustDomain: "example.org"})
	wantMode(t, dir, 0o700)
	wantMode(t, filepath.Join(dir, "ca-key.pem"), 0o600)
	wantMode(t, filepath.Join(dir, "token-key.pem"), 0o600)
	wantMode(t, filepath.Join(dir, "root-cert.pem"), 0o644)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("directory has %v (%v), want three files", entries, err)
	}
	token := mustToken(t, first, "shop", "payment")

	second := mustNew(t, Config{Dir: dir}) // the root tells the trust domain
	if !bytes.Equal(first.RootsPEM(), second.RootsPEM()) {
		t.Error("the root changed")
	}
	if second.TrustDomain() != "example.org" {
		t.Errorf("trust domain %q, want that of the root", second.TrustDomain())
	}
	if _, _, err := second.tokens.verify(token); err != nil {
		t.Errorf("token of the first is refused by the second: %v", err)
	}
	onDisk, err := os.ReadFile(filepath.Join(dir, "root-cert.pem"))
	if err != nil || !bytes.Equal(onDisk, second.RootsPEM()) {
		t.Errorf("root file differs from the bundle (%v)", err)
	}
	if _, err := New(Config{Dir: dir, TrustDomain: "other.org"}); err == nil || !strings.Contains(err.Error(), `its root is for trust domain "example.org", not "other.org"`) {
		t.Errorf("got %v", err)
	}
}

func TestEmptyDirectoryIsFilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mustNew(t, Config{Dir: dir})
	wantMode(t, filepath.Join(dir, "ca-key.pem"), 0o600)
}

func TestProcessesThatStartTogetherShareOneCA(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	roots := make([][]byte, 8)
	var wg sync.WaitGroup
	for i := range roots {
		wg.Go(func() {
			c, err := New(Config{Dir: dir})
			if err != nil {
				t.Error(err)
				return
			}
			roots[i] = c.RootsPEM()
		})
	}
	wg.Wait()
	for _, pem := range roots {
		if !bytes.Equal(pem, roots[0]) {
			t.Fatal("two processes have different roots")
		}
	}
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v (%v)", entries, err)
	}
}

func TestDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		want  string
	}{
		{"CA key readable by the group", func(t *testing.T, dir string) { chmod(t, dir, "ca-key.pem", 0o640) }, "ca-key.pem: mode 0640 lets others read the key: run chmod 600 on it"},
		{"CA key readable by all", func(t *testing.T, dir string) { chmod(t, dir, "ca-key.pem", 0o604) }, "ca-key.pem: mode 0604"},
		{"token key readable by all", func(t *testing.T, dir string) { chmod(t, dir, "token-key.pem", 0o644) }, "token-key.pem: mode 0644"},
		{"no CA key", func(t *testing.T, dir string) { remove(t, dir, "ca-key.pem") }, "ca-key.pem: no such file or directory: put it back, or"},
		{"a key that is a directory", func(t *testing.T, dir string) { replaceByDirectory(t, dir, "ca-key.pem") }, "ca-key.pem: is not a regular file"},
		{"a root that is a directory", func(t *testing.T, dir string) { replaceByDirectory(t, dir, "root-cert.pem") }, "root-cert.pem: is not a regular file"},
		{"a directory that everybody can write", func(t *testing.T, dir string) { chmod(t, dir, ".", 0o777) }, "mode 0777 lets everybody replace the keys: run chmod 700 on it"},
		{"no root", func(t *testing.T, dir string) { remove(t, dir, "root-cert.pem") }, "root-cert.pem: no such file or directory: put it back, or"},
		{"a key that is no key", func(t *testing.T, dir string) { write(t, dir, "ca-key.pem", "secret-marker", 0o600) }, "ca-key.pem: no PEM private key in it"},
		{"a key of another kind", func(t *testing.T, dir string) {
			write(t, dir, "ca-key.pem", "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n", 0o600)
		}, `PEM block "PUBLIC KEY"`},
		{"a key that is broken", func(t *testing.T, dir string) {
			write(t, dir, "ca-key.pem", "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", 0o600)
		}, "the private key cannot be read"},
		{"a root that is no certificate", func(t *testing.T, dir string) { write(t, dir, "root-cert.pem", "x", 0o644) }, "root-cert.pem: no PEM certificate in it"},
		{"the key of another CA", func(t *testing.T, dir string) {
			data, err := encodeKey(mustKey(t))
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, "ca-key.pem", string(data), 0o600)
		}, "no certificate in it has the key of ca-key.pem"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "ca")
			mustNew(t, Config{Dir: dir})
			tt.spoil(t, dir)
			_, err := New(Config{Dir: dir})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want an error with %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "secret-marker") {
				t.Error("the error holds a part of the key")
			}
		})
	}
	t.Run("a directory of something else", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		write(t, dir, "notes.txt", "x", 0o644)
		if _, err := New(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "root-cert.pem") {
			t.Errorf("got %v, want an error about the missing root", err)
		}
	})
}

func chmod(t *testing.T, dir, name string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func replaceByDirectory(t *testing.T, dir, name string) {
	t.Helper()
	remove(t, dir, name)
	if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, dir, name, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	chmod(t, dir, name, mode)
}

// pluggedIn writes an intermediate CA in Istio's layout.
func pluggedIn(t *testing.T, dir string, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	root, err := newRoot("example.org", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key := mustKey(t)
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "intermediate"},
		NotBefore:             time.Now().Add(-time.Minute),
		NotAfter:              time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, root.cert, key.Public(), root.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "ca-key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: ecDER})), 0o600)
	write(t, dir, "ca-cert.pem", string(encodeCertificates(cert)), 0o644)
	write(t, dir, "root-cert.pem", string(encodeCertificates(root.cert)), 0o644)
	// As istiod's documentation has it, the chain holds the CA and the root.
	write(t, dir, "cert-chain.pem", string(encodeCertificates(cert, root.cert)), 0o644)
	return cert
}

func TestPluggedInIntermediateSigns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	intermediate := pluggedIn(t, dir, nil)
	c := mustNew(t, Config{Dir: dir, TrustDomain: "example.org"})
	wantMode(t, filepath.Join(dir, "token-key.pem"), 0o600)
	network := serve(t, c)
	chain, err := caller{tokens: []string{"Bearer " + mustToken(t, c, "shop", "payment")}}.create(t, network, c.Roots(),
		&pb.IstioCertificateRequest{Csr: csrPEM(t, mustKey(t))})
	if err != nil {
		t.Fatal(err)
	}
	certs := parseChain(t, chain)
	if len(certs) != 3 || !certs[1].Equal(intermediate) || certs[2].Subject.String() != certs[1].Issuer.String() {
		t.Fatalf("chain of %d, want leaf, intermediate, root", len(certs))
	}
	if !certs[0].NotAfter.Equal(intermediate.NotAfter) {
		t.Errorf("certificate ends on %v, its issuer on %v", certs[0].NotAfter, intermediate.NotAfter)
	}
	if err := c.PrepareRotation(); err == nil || !strings.Contains(err.Error(), "plugged in from files") {
		t.Errorf("rotation of somebody else's files: %v", err)
	}
}

func TestPluggedInFilesAreChecked(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*x509.Certificate)
		spoil  func(t *testing.T, dir string)
		want   string
	}{
		{"a certificate that is no CA", func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature }, nil, "is not one of a CA"},
		{"an expired CA", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }, nil, "expired"},
		{"a root that did not sign it", nil, func(t *testing.T, dir string) {
			root, err := newRoot("unused", time.Now())
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, "root-cert.pem", string(encodeCertificates(root.cert)), 0o644)
		}, "does not lead to a root"},
		{"the key of somebody else", nil, func(t *testing.T, dir string) {
			data, err := encodeKey(mustKey(t))
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, "ca-key.pem", string(data), 0o600)
		}, "the key is not that of the CA certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			pluggedIn(t, dir, tt.change)
			if tt.spoil != nil {
				tt.spoil(t, dir)
			}
			if _, err := New(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestConfigProblemsAreReportedTogether(t *testing.T) {
	t.Parallel()
	_, err := New(Config{TrustDomain: "Not A Domain", MaxTTL: time.Minute, TTL: time.Hour})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`trust domain "Not A Domain"`, "TTL 1h0m0s: want between 1s and MaxTTL 1m0s"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
}
