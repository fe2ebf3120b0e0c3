package bootstrap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/internal/tlstest"
)

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func writePair(t *testing.T, dir string, c tls.Certificate) {
	t.Helper()
	writeFile(t, filepath.Join(dir, "cert.pem"), tlstest.CertificatePEM(c.Certificate...))
	writeFile(t, filepath.Join(dir, "key.pem"), tlstest.KeyPEM(t, c))
}

func issue(t *testing.T, ca *tlstest.CA, name string) tls.Certificate {
	t.Helper()
	return ca.Issue(t, tlstest.Leaf{DNSNames: []string{name}})
}

func rootsOf(ca *tlstest.CA) []byte { return tlstest.CertificatePEM(ca.Certificate.Raw) }

func jwt(expiry time.Time) string {
	return "e30." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, expiry.Unix())) + ".c2ln"
}

// controlPlane serves TLS at the address that it returns and answers every call
// with the authorization that it got, repeated size times. The name of a client
// certificate is in the header "peer". It is on a real
// network because net.Pipe has no buffer: both sides of a failing handshake
// would block in their writes.
func controlPlane(t *testing.T, config *tls.Config, size int) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		md, _ := metadata.FromIncomingContext(s.Context())
		if from, ok := peer.FromContext(s.Context()); ok {
			if certs := from.AuthInfo.(credentials.TLSInfo).State.PeerCertificates; len(certs) > 0 {
				if err := s.SetHeader(metadata.Pairs("peer", certs[0].DNSNames[0])); err != nil {
					return err
				}
			}
		}
		return s.SendMsg(wrapperspb.String(strings.Repeat(strings.Join(md["authorization"], ","), size)))
	}))
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	t.Cleanup(func() {
		srv.Stop()
		<-done
	})
	return ln.Addr().String()
}

// call dials s, which is at address, under the name istiod.test, makes one
// call, and returns the answer.
func call(t *testing.T, address string, s Server) (string, error) {
	t.Helper()
	_, answer, err := callAs(t, address, s)
	return answer, err
}

// callAs is call that also returns whose certificate the server saw.
func callAs(t *testing.T, address string, s Server) (name, answer string, err error) {
	t.Helper()
	s.URI = "passthrough:///istiod.test:15012"
	s.DialOptions = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	})}
	conn, release, err := s.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	defer conn.Close()
	var out wrapperspb.StringValue
	var header metadata.MD
	err = conn.Invoke(t.Context(), "/test/Call", &wrapperspb.StringValue{}, &out, grpc.Header(&header))
	return strings.Join(header.Get("peer"), ","), out.GetValue(), err
}

func TestV26_ControlPlaneIsAlwaysVerified(t *testing.T) {
	t.Parallel()
	ours, theirs := tlstest.NewCA(t), tlstest.NewCA(t)
	dir := t.TempDir()
	roots := filepath.Join(dir, "ca.pem")
	withRoots := Credentials{Type: "tls", Config: json.RawMessage(fmt.Sprintf(`{"ca_certificate_file": %q}`, roots))}
	for _, tt := range []struct {
		name    string
		creds   Credentials
		roots   []byte
		server  tls.Certificate
		wantErr string
	}{
		{"by the roots of the file", withRoots, rootsOf(ours), issue(t, ours, "istiod.test"), ""},
		{"not by other roots", withRoots, rootsOf(theirs), issue(t, ours, "istiod.test"), "certificate signed by unknown authority"},
		{"for the name in the URI", withRoots, rootsOf(ours), issue(t, ours, "other.test"), "not istiod.test"},
		{"by the system's roots without a file", Credentials{Type: "tls"}, nil, issue(t, ours, "istiod.test"), "certificate signed by unknown authority"},
		{"not with an empty file", withRoots, nil, issue(t, ours, "istiod.test"), "no PEM certificate in it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			writeFile(t, roots, tt.roots)
			address := controlPlane(t, &tls.Config{Certificates: []tls.Certificate{tt.server}}, 1)
			_, err := call(t, address, Server{ChannelCreds: tt.creds})
			switch {
			case tt.wantErr == "" && err != nil:
				t.Errorf("error %v", err)
			case tt.wantErr != "" && (status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), tt.wantErr)):
				t.Errorf("error %v, want UNAVAILABLE with %q", err, tt.wantErr)
			}
		})
	}
}

func TestCredentialFilesAreReadAgain(t *testing.T) {
	t.Parallel()
	first, second := tlstest.NewCA(t), tlstest.NewCA(t)
	dir := t.TempDir()
	clients := x509.NewCertPool()
	clients.AddCert(second.Certificate)
	address := controlPlane(t, &tls.Config{
		Certificates: []tls.Certificate{issue(t, second, "istiod.test")},
		ClientCAs:    clients, ClientAuth: tls.RequireAndVerifyClientCert,
	}, 1)
	s := Server{
		ChannelCreds: Credentials{Type: "tls", Config: json.RawMessage(fmt.Sprintf(
			`{"ca_certificate_file": %q, "certificate_file": %q, "private_key_file": %q}`,
			filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")))},
		CallCreds: []Credentials{{Type: "jwt_token_file", Config: json.RawMessage(fmt.Sprintf(`{"jwt_token_file": %q}`, filepath.Join(dir, "token")))}},
	}
	expect := func(step, want string) {
		t.Helper()
		if got, err := call(t, address, s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %q, %v, want an error with %q", step, got, err, want)
		}
	}
	expect("no files", "ca_certificate_file: open ")
	writeFile(t, filepath.Join(dir, "ca.pem"), rootsOf(first))
	expect("no certificate", "certificate_file: open ")
	writePair(t, dir, issue(t, first, "client.test"))
	expect("old roots", "unknown authority")
	writeFile(t, filepath.Join(dir, "ca.pem"), rootsOf(second))
	writePair(t, dir, issue(t, second, "client.test"))
	expect("no token", "token file: open ")
	if err := os.Mkdir(filepath.Join(dir, "token"), 0o700); err != nil {
		t.Fatal(err)
	}
	expect("no file for a token", "is a directory: want a regular file")
	if err := os.Remove(filepath.Join(dir, "token")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "token"), []byte("not-a-token"))
	expect("no JWT", "not a JSON web token with an expiry")
	writeFile(t, filepath.Join(dir, "token"), []byte(jwt(time.Now().Add(-time.Second))))
	expect("old token", "was not replaced")
	good := jwt(time.Now().Add(time.Hour))
	writeFile(t, filepath.Join(dir, "token"), []byte(good+"\n"))
	if got, err := call(t, address, s); err != nil || got != "Bearer "+good {
		t.Errorf("got %q, %v, want the token", got, err)
	}
	writeFile(t, filepath.Join(dir, "key.pem"), []byte("junk"))
	expect("junk key", "with private_key_file")
}

func TestCertificateOfAProviderIsPresented(t *testing.T) {
	t.Parallel()
	ours, theirs := tlstest.NewCA(t), tlstest.NewCA(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "ca.pem"), rootsOf(ours))
	clients := x509.NewCertPool()
	clients.AddCert(ours.Certificate)
	good, valid, expired := issue(t, ours, "client.test"), jwt(time.Now().Add(time.Hour)), jwt(time.Now().Add(-time.Hour))
	for _, tt := range []struct {
		name        string
		certificate *tls.Certificate
		err         error
		token       string
		want        string // whose certificate, and which authorization
		wantErr     string
	}{
		{"with a token, both are sent", &good, nil, valid, "client.test Bearer " + valid, ""},
		{"with an expired token, it does alone", &good, nil, expired, "client.test ", ""},
		{"with a junk token, it does alone", &good, nil, "junk", "client.test ", ""},
		{"without a token, it does alone", &good, nil, "", "client.test ", ""},
		{"without a certificate yet, the token does", nil, errors.New("no certificate yet"), valid, " Bearer " + valid, ""},
		{"with roots only, the token does", new(tls.Certificate), nil, valid, " Bearer " + valid, ""},
		{"without a certificate, an expired token is an error", nil, errors.New("no certificate yet"), expired, "", "was not replaced"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			token := filepath.Join(t.TempDir(), "token")
			if tt.token != "" {
				writeFile(t, token, []byte(tt.token))
			}
			address := controlPlane(t, &tls.Config{
				Certificates: []tls.Certificate{issue(t, ours, "istiod.test")},
				ClientCAs:    clients, ClientAuth: tls.VerifyClientCertIfGiven,
			}, 1)
			name, got, err := callAs(t, address, Server{
				ChannelCreds: Credentials{Type: "tls", Config: json.RawMessage(fmt.Sprintf(
					`{"ca_certificate_file": %q, "certificate_provider_instance": "own"}`, filepath.Join(dir, "ca.pem")))},
				CallCreds: []Credentials{{Type: "jwt_token_file", Config: json.RawMessage(fmt.Sprintf(`{"jwt_token_file": %q}`, token))}},
				Certificate: func(instance string) (*tls.Certificate, error) {
					if instance != "own" {
						t.Errorf("asked for instance %q", instance)
					}
					return tt.certificate, tt.err
				},
			})
			switch {
			case tt.wantErr != "":
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("error %v, want %q", err, tt.wantErr)
				}
			case err != nil || name+" "+got != tt.want:
				t.Errorf("got %q, %v, want %q", name+" "+got, err, tt.want)
			}
		})
	}

	// A server that asks for another CA's certificates gets none, as from any
	// TLS client, and decides by the token.
	others := x509.NewCertPool()
	other := theirs.Intermediate(t)
	others.AddCert(other.Certificate)
	address := controlPlane(t, &tls.Config{
		Certificates: []tls.Certificate{issue(t, ours, "istiod.test")}, ClientCAs: others, ClientAuth: tls.VerifyClientCertIfGiven,
	}, 1)
	name, _, err := callAs(t, address, Server{
		ChannelCreds: Credentials{Type: "tls", Config: json.RawMessage(fmt.Sprintf(
			`{"ca_certificate_file": %q, "certificate_provider_instance": "own"}`, filepath.Join(dir, "ca.pem")))},
		Certificate: func(string) (*tls.Certificate, error) { return &good, nil },
	})
	if err != nil || name != "" {
		t.Errorf("a server that asks for another CA's certificates got %q, %v", name, err)
	}
}

func TestX30_LargeResponseIsAccepted(t *testing.T) {
	t.Parallel()
	a := tlstest.NewCA(t)
	dir := t.TempDir()
	token := jwt(time.Now().Add(time.Hour))
	writeFile(t, filepath.Join(dir, "ca.pem"), rootsOf(a))
	writeFile(t, filepath.Join(dir, "token"), []byte(token))
	size := (25 << 20) / len("Bearer "+token)
	address := controlPlane(t, &tls.Config{Certificates: []tls.Certificate{issue(t, a, "istiod.test")}}, size)
	got, err := call(t, address, Server{
		ChannelCreds: Credentials{Type: "tls", Config: json.RawMessage(fmt.Sprintf(`{"ca_certificate_file": %q}`, filepath.Join(dir, "ca.pem")))},
		CallCreds:    []Credentials{{Type: "jwt_token_file", Config: json.RawMessage(fmt.Sprintf(`{"jwt_token_file": %q}`, filepath.Join(dir, "token")))}},
	})
	if want := size * len("Bearer "+token); err != nil || len(got) != want {
		t.Errorf("got %d bytes, %v, want %d", len(got), err, want)
	}
}

func TestDialReportsMistakes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		in   Server
		want string
	}{
		{"of an unknown type", Server{URI: "x:1"}, `server "x:1": channel_creds "": the type is not registered with google.golang.org/grpc/xds/bootstrap`},
		{"of a configuration", Server{URI: "x:1", ChannelCreds: Credentials{Type: "tls", Config: json.RawMessage(`{"certificate_file":"c"}`)}},
			`server "x:1": bootstrap: channel_creds.private_key_file: is required: the key of certificate_file`},
		{"of a certificate that nothing provides", Server{URI: "x:1", ChannelCreds: Credentials{Type: "tls", Config: json.RawMessage(`{"certificate_provider_instance":"default"}`)}},
			`server "x:1": channel_creds: certificate_provider_instance "default": nothing provides certificates: set Server.Certificate`},
		{"of call credentials", Server{URI: "x:1", ChannelCreds: Credentials{Type: "tls"}, CallCreds: []Credentials{{Type: "pigeon"}}},
			`server "x:1": call_creds "pigeon": the type is not registered with google.golang.org/grpc/xds/bootstrap`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, _, err := tt.in.Dial(); err == nil || err.Error() != tt.want {
				t.Errorf("error %v\nwant  %s", err, tt.want)
			}
		})
	}
}
