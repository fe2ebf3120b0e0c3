package sds_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
	"github.com/inboardmesh/inboard/tls/sds"
)

const paymentID = "spiffe://cluster.local/ns/shop/sa/payment"

// agent is a secret discovery service on a Unix socket.
type agent struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer

	t      *testing.T
	socket string
	// rejected are the errors of NACKs.
	rejected chan string

	mu      sync.Mutex
	secrets map[string]*tlsv3.Secret // guarded by mu
	version int                      // guarded by mu
	changed chan struct{}            // guarded by mu; closed when the secrets change
	server  *grpc.Server             // guarded by mu; nil while it is down
	done    chan struct{}            // guarded by mu
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	a := &agent{
		t: t, socket: filepath.Join(t.TempDir(), "sds.sock"), rejected: make(chan string, 16),
		secrets: make(map[string]*tlsv3.Secret), changed: make(chan struct{}),
	}
	a.up()
	t.Cleanup(a.down)
	return a
}

func (a *agent) up() {
	a.t.Helper()
	ln, err := new(net.ListenConfig).Listen(context.Background(), "unix", a.socket)
	if err != nil {
		a.t.Fatal(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.server, a.done = grpc.NewServer(), make(chan struct{})
	secretv3.RegisterSecretDiscoveryServiceServer(a.server, a)
	go func(server *grpc.Server, done chan struct{}) { // until down
		defer close(done)
		_ = server.Serve(ln)
	}(a.server, a.done)
}

func (a *agent) down() {
	a.mu.Lock()
	server, done := a.server, a.done
	a.server = nil
	a.mu.Unlock()
	if server != nil {
		server.Stop()
		<-done
	}
}

func (a *agent) send(secrets ...*tlsv3.Secret) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range secrets {
		a.secrets[s.GetName()] = s
	}
	a.version++
	close(a.changed)
	a.changed = make(chan struct{})
}

// StreamSecrets sends what there is of the names that were asked for, at first and
// at every change.
func (a *agent) StreamSecrets(stream secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	go func() { // until the stream ends
		for {
			request, err := stream.Recv()
			if err != nil {
				return
			}
			if detail := request.GetErrorDetail(); detail != nil {
				a.rejected <- detail.GetMessage()
			}
		}
	}()
	for {
		a.mu.Lock()
		response := &discoveryv3.DiscoveryResponse{TypeUrl: first.GetTypeUrl(), VersionInfo: time.Now().String(), Nonce: "n"}
		for _, name := range first.GetResourceNames() {
			if secret := a.secrets[name]; secret != nil {
				packed, err := anypb.New(secret)
				if err != nil {
					a.mu.Unlock()
					return err
				}
				response.Resources = append(response.Resources, packed)
			}
		}
		changed := a.changed
		a.mu.Unlock()
		if err := stream.Send(response); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func inline(text []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: text}}
}

func certificateSecret(t *testing.T, cert tls.Certificate) *tlsv3.Secret {
	t.Helper()
	return &tlsv3.Secret{Name: "default", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inline(tlstest.CertificatePEM(cert.Certificate...)),
		PrivateKey:       &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: string(tlstest.KeyPEM(t, cert))}},
	}}}
}

func rootSecret(t *testing.T, authorities ...*tlstest.CA) *tlsv3.Secret {
	t.Helper()
	var text []byte
	for _, ca := range authorities {
		text = append(text, tlstest.CertificatePEM(ca.Certificate.Raw)...)
	}
	return &tlsv3.Secret{Name: "ROOTCA", Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(text)}}}
}

func start(t *testing.T, a *agent, onChange func(observe.CertificateEvent)) *sds.Source {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := sds.New(ctx, sds.Config{Socket: "unix://" + a.socket, Name: "default", OnChange: onChange})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// until waits for an identity that a test is about.
func until(t *testing.T, s *sds.Source, good func(*meshtls.Identity) bool) {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		changed := s.Changed()
		if identity, err := s.Identity(); err == nil && good(identity) {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatal("it never came")
		}
	}
}

func TestSecretsMakeAnIdentityAndAreFollowed(t *testing.T) {
	t.Parallel()
	a, ca := newAgent(t), tlstest.NewCA(t)
	a.send(rootSecret(t, ca), certificateSecret(t, ca.Workload(t, paymentID)))
	s := start(t, a, nil)
	first, err := s.Identity()
	if err != nil || first.ID.String() != paymentID {
		t.Fatalf("%v, %v", first, err)
	}
	next := ca.Workload(t, paymentID)
	a.send(certificateSecret(t, next))
	until(t, s, func(i *meshtls.Identity) bool {
		return string(i.Certificate.Certificate[0]) == string(next.Certificate[0])
	})
	// A new root alone takes effect, too.
	before, _ := s.Identity()
	a.send(rootSecret(t, ca, tlstest.NewCA(t)))
	until(t, s, func(i *meshtls.Identity) bool { return i.RootsKey != before.RootsKey })
}

// TestV61_WithoutTheServiceThereIsNoIdentity: neither an empty one nor that of
// somebody else.
func TestV61_WithoutTheServiceThereIsNoIdentity(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	a.down()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := sds.New(ctx, sds.Config{Socket: "unix://" + a.socket})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestAnIdentityOutlivesTheService(t *testing.T) {
	t.Parallel()
	a, ca := newAgent(t), tlstest.NewCA(t)
	a.send(rootSecret(t, ca), certificateSecret(t, ca.Workload(t, paymentID)))
	failed := make(chan struct{}, 64)
	s := start(t, a, func(e observe.CertificateEvent) {
		if e.Err != nil {
			failed <- struct{}{}
		}
	})
	a.down()
	<-failed
	if _, err := s.Identity(); err != nil {
		t.Error(err)
	}
	next := ca.Workload(t, paymentID)
	a.send(certificateSecret(t, next))
	a.up()
	until(t, s, func(i *meshtls.Identity) bool {
		return string(i.Certificate.Certificate[0]) == string(next.Certificate[0])
	})
}

// TestV59_V55_ABadSecretIsRejectedWithoutItsText: what is there stays, and no error
// shows what the secret holds.
func TestV59_V55_ABadSecretIsRejectedWithoutItsText(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	const marker = "c2VjcmV0LW1hcmtlcg=="
	decoded, err := base64.StdEncoding.DecodeString(marker)
	if err != nil {
		t.Fatal(err)
	}
	pemOf := func(kind string) []byte {
		return []byte("-----BEGIN " + kind + "-----\n" + marker + "\n-----END " + kind + "-----\n")
	}
	tests := []struct {
		name   string
		secret func(good *tlsv3.Secret) // edits the certificate
		want   string
	}{
		{"a file", func(s *tlsv3.Secret) {
			s.GetTlsCertificate().PrivateKey = &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: "/etc/passwd"}}
		}, "private_key: must be inline_bytes or inline_string"},
		{"the environment", func(s *tlsv3.Secret) {
			s.GetTlsCertificate().CertificateChain = &corev3.DataSource{Specifier: &corev3.DataSource_EnvironmentVariable{EnvironmentVariable: "HOME"}}
		}, "certificate_chain: must be inline_bytes or inline_string"},
		{"no key", func(s *tlsv3.Secret) { s.GetTlsCertificate().PrivateKey = nil }, "private_key: must be set"},
		{"a key that is none", func(s *tlsv3.Secret) { s.GetTlsCertificate().PrivateKey = inline(pemOf("PRIVATE KEY")) }, "tls_certificate: tls: "},
		{"text in the place of a key", func(s *tlsv3.Secret) { s.GetTlsCertificate().PrivateKey = inline([]byte(marker)) }, "tls_certificate: tls: "},
		{"the key of another", func(s *tlsv3.Secret) {
			s.GetTlsCertificate().PrivateKey = inline(tlstest.KeyPEM(t, ca.Workload(t, paymentID)))
		}, "tls_certificate: tls: "},
		{"a password", func(s *tlsv3.Secret) { s.GetTlsCertificate().Password = inline([]byte(marker)) }, "tls_certificate.password: not supported"},
		{"roots in its place", func(s *tlsv3.Secret) { s.Type = rootSecret(t, ca).GetType() }, "tls_certificate: must be set"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := newAgent(t)
			a.send(rootSecret(t, ca), certificateSecret(t, ca.Workload(t, paymentID)))
			events := make(chan error, 16)
			s := start(t, a, func(e observe.CertificateEvent) {
				if e.Err != nil {
					events <- e.Err
				}
			})
			before, _ := s.Identity()
			bad := certificateSecret(t, ca.Workload(t, paymentID))
			tt.secret(bad)
			a.send(bad)
			for _, got := range []string{<-a.rejected, (<-events).Error()} {
				if !strings.Contains(got, tt.want) {
					t.Errorf("%q, want %q", got, tt.want)
				}
				if strings.Contains(got, marker) || strings.Contains(got, string(decoded)) {
					t.Errorf("%q shows the secret", got)
				}
			}
			if after, err := s.Identity(); after != before || err != nil {
				t.Errorf("another identity, error %v", err)
			}
		})
	}
}

func TestBadRootsAreRejected(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	for name, text := range map[string][]byte{
		"none": nil, "no PEM": []byte("junk"), "a key": tlstest.KeyPEM(t, ca.Workload(t, paymentID)),
		"junk after a certificate": append(tlstest.CertificatePEM(ca.Certificate.Raw), "junk"...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAgent(t)
			a.send(rootSecret(t, ca), certificateSecret(t, ca.Workload(t, paymentID)))
			s := start(t, a, nil)
			bad := rootSecret(t)
			bad.GetValidationContext().TrustedCa = inline(text)
			a.send(bad)
			if got := <-a.rejected; !strings.Contains(got, "validation_context.trusted_ca: ") {
				t.Errorf("rejected with %q", got)
			}
			if _, err := s.Identity(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	config, err := sds.ParseConfig([]byte(`{"socket": "unix:///s", "certificate_name": "c", "root_name": "r", "node_id": "n"}`))
	if err != nil || config.Socket != "unix:///s" || config.CertificateName != "c" || config.RootName != "r" || config.NodeID != "n" {
		t.Errorf("%+v, %v", config, err)
	}
	for text, want := range map[string]string{
		`{}`:                                 "sds: socket: is required",
		`{"socket": "10.0.0.1:1"}`:           "want a Unix socket",
		`{"socket": "unix:///s", "name": 1}`: "sds: name: unknown field",
	} {
		if _, err := sds.ParseConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}
