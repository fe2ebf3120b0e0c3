package filesource_test

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/filesource"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

const workloadID = "spiffe://cluster.local/ns/shop/sa/payment"

// agent writes the files.
type agent struct {
	ca     *tlstest.CA
	config filesource.Config

	mu     sync.Mutex
	events []observe.CertificateEvent // guarded by mu
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	dir := t.TempDir()
	a := &agent{ca: tlstest.NewCA(t)}
	a.config = filesource.Config{
		CertificateFile:   filepath.Join(dir, "cert.pem"),
		PrivateKeyFile:    filepath.Join(dir, "key.pem"),
		CACertificateFile: filepath.Join(dir, "root.pem"),
		Name:              "default",
		OnChange: func(event observe.CertificateEvent) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.events = append(a.events, event)
		},
	}
	return a
}

func (a *agent) writeAll(t *testing.T, cert tls.Certificate) {
	t.Helper()
	write(t, a.config.CertificateFile, tlstest.CertificatePEM(cert.Certificate...))
	write(t, a.config.PrivateKeyFile, tlstest.KeyPEM(t, cert))
	a.writeRoots(t, a.ca)
}

func (a *agent) writeRoots(t *testing.T, cas ...*tlstest.CA) {
	t.Helper()
	var text []byte
	for _, ca := range cas {
		text = append(text, tlstest.CertificatePEM(ca.Certificate.Raw)...)
	}
	write(t, a.config.CACertificateFile, text)
}

// workload is a certificate that lives for a day.
func (a *agent) workload(t *testing.T) tls.Certificate {
	t.Helper()
	return a.ca.Issue(t, tlstest.Leaf{URIs: []string{workloadID}, NotAfter: time.Now().Add(24 * time.Hour)})
}

func (a *agent) newSource(t *testing.T) *filesource.Source {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	source, err := filesource.New(ctx, a.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Close)
	return source
}

func (a *agent) reported() []observe.CertificateEvent {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.events
}

// failures returns the errors that were reported.
func (a *agent) failures() []error {
	var errs []error
	for _, event := range a.reported() {
		if event.Err != nil {
			errs = append(errs, event.Err)
		}
	}
	return errs
}

func write(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func current(t *testing.T, source meshtls.Source) *meshtls.Identity {
	t.Helper()
	identity, err := source.Identity()
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

func TestANewCertificateIsUsedAfterTheInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t)
		a.writeAll(t, a.workload(t))
		source := a.newSource(t)
		first := current(t, source)
		if first.ID.String() != workloadID || first.Roots == nil {
			t.Errorf("got %+v", first)
		}
		start, changed := time.Now(), source.Changed()
		a.writeAll(t, a.workload(t))
		<-changed
		if waited := time.Since(start); waited != filesource.DefaultRefreshInterval {
			t.Errorf("waited %v, want %v", waited, filesource.DefaultRefreshInterval)
		}
		second := current(t, source)
		if second == first || second.RootsKey != first.RootsKey {
			t.Error("want another certificate and the same roots")
		}
		time.Sleep(time.Hour)
		if current(t, source) != second {
			t.Error("the same files made another identity")
		}
		events := a.reported()
		if len(events) != 2 || events[1].Source != "default" || events[1].ID != workloadID || !events[1].NotAfter.Equal(second.NotAfter) {
			t.Errorf("reported %+v", events)
		}
	})
}

// TestBS2_ABrokenLaterFileKeepsTheOldMaterial breaks each file in turn, and
// mends it.
func TestBS2_ABrokenLaterFileKeepsTheOldMaterial(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		breakIt func(t *testing.T, a *agent)
		want    string
	}{
		{"a certificate without its key", func(t *testing.T, a *agent) {
			write(t, a.config.CertificateFile, tlstest.CertificatePEM(a.workload(t).Certificate...))
		}, "private key does not match public key"},
		{"a key without its certificate", func(t *testing.T, a *agent) {
			write(t, a.config.PrivateKeyFile, tlstest.KeyPEM(t, a.workload(t)))
		}, "private key does not match public key"},
		{"no certificate", func(t *testing.T, a *agent) { remove(t, a.config.CertificateFile) }, "certificate_file: open "},
		{"no key", func(t *testing.T, a *agent) { remove(t, a.config.PrivateKeyFile) }, "private_key_file: open "},
		{"no roots", func(t *testing.T, a *agent) { remove(t, a.config.CACertificateFile) }, "ca_certificate_file: open "},
		{"an empty certificate", func(t *testing.T, a *agent) { write(t, a.config.CertificateFile, nil) }, "failed to find any PEM data in certificate input"},
		{"empty roots", func(t *testing.T, a *agent) { write(t, a.config.CACertificateFile, nil) }, "no certificate in PEM"},
		{"half of the roots", func(t *testing.T, a *agent) {
			text := tlstest.CertificatePEM(a.ca.Certificate.Raw, tlstest.NewCA(t).Certificate.Raw)
			write(t, a.config.CACertificateFile, text[:len(text)-100])
		}, "the last PEM block is not complete"},
		{"a key among the roots", func(t *testing.T, a *agent) {
			write(t, a.config.CACertificateFile, tlstest.KeyPEM(t, a.workload(t)))
		}, `PEM block of type "PRIVATE KEY": want CERTIFICATE`},
		{"junk among the roots", func(t *testing.T, a *agent) {
			write(t, a.config.CACertificateFile, tlstest.CertificatePEM([]byte("junk")))
		}, "ca_certificate_file"},
		{"a certificate without a SPIFFE ID", func(t *testing.T, a *agent) {
			a.writeAll(t, a.ca.Issue(t, tlstest.Leaf{DNSNames: []string{"payment"}}))
		}, "certificate has no URI SAN"},
		{"an expired certificate", func(t *testing.T, a *agent) {
			a.writeAll(t, a.ca.Issue(t, tlstest.Leaf{URIs: []string{workloadID}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(-time.Minute)}))
		}, `certificate of "` + workloadID + `" expired at `},
		{"a certificate of the future", func(t *testing.T, a *agent) {
			a.writeAll(t, a.ca.Issue(t, tlstest.Leaf{URIs: []string{workloadID}, NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour)}))
		}, `certificate of "` + workloadID + `" is not valid before `},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAgent(t)
				a.writeAll(t, a.workload(t))
				source := a.newSource(t)
				first := current(t, source)

				test.breakIt(t, a)
				time.Sleep(40 * time.Minute)
				if current(t, source) != first {
					t.Error("the old material is gone")
				}
				failures := a.failures()
				if len(failures) != 1 || !strings.Contains(failures[0].Error(), test.want) || !strings.HasPrefix(failures[0].Error(), "file_watcher: ") {
					t.Errorf("reported %v, want %q once", failures, test.want)
				}

				a.writeAll(t, a.workload(t))
				time.Sleep(filesource.DefaultRefreshInterval)
				synctest.Wait()
				if current(t, source) == first {
					t.Error("the mended files are not used")
				}
			})
		})
	}
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

func TestABrokenReadingIsTriedAgainSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t)
		a.writeAll(t, a.workload(t))
		source := a.newSource(t)
		next := a.workload(t)
		write(t, a.config.CertificateFile, tlstest.CertificatePEM(next.Certificate...))
		time.Sleep(filesource.DefaultRefreshInterval)
		synctest.Wait()
		start, changed := time.Now(), source.Changed()
		write(t, a.config.PrivateKeyFile, tlstest.KeyPEM(t, next))
		<-changed
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("waited %v, want a second", waited)
		}
	})
}

func TestNewRootsAreUsedWhileTheKeyIsBroken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t)
		a.writeAll(t, a.workload(t))
		source := a.newSource(t)
		first := current(t, source)
		remove(t, a.config.PrivateKeyFile)
		a.writeRoots(t, a.ca, tlstest.NewCA(t))
		<-source.Changed()
		second := current(t, source)
		if second.RootsKey == first.RootsKey || !second.Certificate.Leaf.Equal(first.Certificate.Leaf) {
			t.Error("want other roots and the same certificate")
		}
	})
}

func TestTheCertificateExpiresInUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t)
		a.writeAll(t, a.workload(t))
		source := a.newSource(t)
		first := current(t, source)
		changed := source.Changed()
		time.Sleep(time.Until(first.NotAfter))
		current(t, source)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		<-changed
		if _, err := source.Identity(); err == nil || !strings.Contains(err.Error(), `file_watcher: certificate of "`+workloadID+`" expired at `) {
			t.Errorf("got %v", err)
		}
		changed = source.Changed()
		a.writeAll(t, a.workload(t))
		for range 3 { // the reason may change once before
			<-changed
			if _, err := source.Identity(); err == nil {
				return
			}
			changed = source.Changed()
		}
		t.Error("the new certificate is not used")
	})
}

func TestRootsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t)
		a.config.CertificateFile, a.config.PrivateKeyFile = "", ""
		a.config.RefreshInterval = 365 * 24 * time.Hour
		a.writeRoots(t, a.ca)
		source := a.newSource(t)
		identity := current(t, source)
		if len(identity.Certificate.Certificate) != 0 || identity.Roots == nil || !identity.ID.IsZero() {
			t.Errorf("got %+v", identity)
		}
		time.Sleep(20 * 365 * 24 * time.Hour)
		current(t, source)
	})
}

func TestACertificateAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t)
		a.writeAll(t, a.workload(t))
		a.config.CACertificateFile = ""
		if identity := current(t, a.newSource(t)); identity.Roots != nil || identity.ID.String() != workloadID {
			t.Errorf("got %+v", identity)
		}
	})
}

func TestNewWaitsForTheAgent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t)
		cert := a.workload(t)
		time.AfterFunc(10*time.Second, func() { a.writeAll(t, cert) })
		start := time.Now()
		a.newSource(t)
		if waited := time.Since(start); waited < 10*time.Second || waited > 16*time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}

func TestNewSaysWhatIsWrongWithTheFiles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t)
		a.writeAll(t, a.workload(t))
		remove(t, a.config.PrivateKeyFile)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := filesource.New(ctx, a.config)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "first certificate: context deadline exceeded: file_watcher: private_key_file: open ") {
			t.Errorf("got %v", err)
		}
	})
}

func TestCloseEndsTheReadings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t)
		a.writeAll(t, a.workload(t))
		source := a.newSource(t)
		first := current(t, source)
		source.Close()
		source.Close()
		a.writeAll(t, a.workload(t))
		time.Sleep(23 * time.Hour)
		if current(t, source) != first {
			t.Error("the files were read after Close")
		}
		time.Sleep(2 * time.Hour)
		if _, err := source.Identity(); err == nil || !strings.Contains(err.Error(), "the files hold no newer one") {
			t.Errorf("got %v", err)
		}
	})
}

// TestV24_AHundredRotationsFailNoHandshake replaces the files between readings
// while connections are made.
func TestV24_AHundredRotationsFailNoHandshake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t)
		a.config.RefreshInterval = time.Second
		a.writeAll(t, a.workload(t))
		source := a.newSource(t)
		server, err := meshtls.ServerConfig(meshtls.ServerParams{
			Identity: source, Roots: source, Authorize: meshtls.AuthorizeAny(), RequireClientCertificate: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		client, err := meshtls.ClientConfig(meshtls.ClientParams{Identity: source, Roots: source, Authorize: meshtls.AuthorizeAny()})
		if err != nil {
			t.Fatal(err)
		}
		used := make(map[string]bool)
		for n := range 200 {
			time.Sleep(500 * time.Millisecond)
			a.writeAll(t, a.workload(t))
			clientConn, serverConn := memnet.Pipe()
			served := make(chan error, 1)
			go func() { served <- tls.Server(serverConn, server).Handshake() }()
			secure := tls.Client(clientConn, client)
			clientErr := secure.Handshake()
			if serverErr := <-served; clientErr != nil || serverErr != nil {
				t.Fatalf("connection %d: client %v, server %v", n, clientErr, serverErr)
			}
			used[string(secure.ConnectionState().PeerCertificates[0].Raw)] = true
			_, _ = clientConn.Close(), serverConn.Close()
		}
		if len(used) < 50 {
			t.Errorf("%d certificates were used", len(used))
		}
	})
}
