package controlplane

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	pb "istio.io/api/security/v1alpha1"

	"github.com/inboardmesh/inboard/controlplane/ca"
	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/internal/memnet"
)

func mustCA(t testing.TB, config ca.Config) *ca.CA {
	t.Helper()
	authority, err := ca.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

// bearer is a token on every call, as from a token file.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

func tokenFor(t testing.TB, authority *ca.CA, namespace, account string, ttl time.Duration) grpc.DialOption {
	t.Helper()
	token, err := authority.IssueToken(namespace, account, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return grpc.WithPerRPCCredentials(bearer(token))
}

func dialTLS(t testing.TB, network *memnet.Network, authority *ca.CA, cert *tls.Certificate, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: authority.Roots(), ServerName: "localhost"}
	if cert != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return dial(t, network, "secure:1", append(options, grpc.WithTransportCredentials(credentials.NewTLS(config)))...)
}

// certificateFor asks the CA's service, as a workload does.
func certificateFor(t testing.TB, conn *grpc.ClientConn, seconds int64) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	response, err := pb.NewIstioCertificateServiceClient(conn).CreateCertificate(context.Background(), &pb.IstioCertificateRequest{
		Csr:              string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
		ValidityDuration: seconds,
	})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(response.GetCertChain()[0]))
	return &tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
}

// secureBubble runs a test in fake time with a secure and a plaintext
// listener in memory.
func secureBubble(t *testing.T, run func(t *testing.T, s *Server, network *memnet.Network, logs *logBuffer)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		logs := new(logBuffer)
		s := mustNew(t, Config{
			CA:     mustCA(t, ca.Config{}),
			Files:  []istio.File{service("payment", "10.0.0.1")},
			Logger: logs.logger(),
		})
		run(t, s, serveMemory(t, s), logs)
	})
}

func wantCode(t testing.TB, err error, code codes.Code) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("got %v, want %v", err, code)
	}
}

func TestSecureListenerServesTheNodeThatTheCallerIs(t *testing.T) {
	secureBubble(t, func(t *testing.T, s *Server, network *memnet.Network, logs *logBuffer) {
		token := tokenFor(t, s.ca, "shop", "customer", time.Hour)
		byToken := dialTLS(t, network, s.ca, nil, token)
		cert := certificateFor(t, byToken, 3600)
		byCert := dialTLS(t, network, s.ca, cert)

		for _, tt := range []struct {
			name string
			conn *grpc.ClientConn
			ns   string
			sa   string
			want codes.Code
		}{
			{"token", byToken, "shop", "customer", codes.OK},
			{"token, account not named", byToken, "shop", "", codes.OK},
			{"certificate", byCert, "shop", "customer", codes.OK},
			{"certificate, account not named", byCert, "shop", "", codes.OK},
			{"another namespace", byToken, "bank", "customer", codes.PermissionDenied},
			{"no namespace", byToken, "", "customer", codes.PermissionDenied},
			{"another account", byToken, "shop", "admin", codes.PermissionDenied},
			{"certificate, another account", byCert, "shop", "admin", codes.PermissionDenied},
			{"no credentials", dialTLS(t, network, s.ca, nil), "shop", "customer", codes.Unauthenticated},
			{"a token of another CA", dialTLS(t, network, s.ca, nil, tokenFor(t, mustCA(t, ca.Config{}), "shop", "customer", time.Hour)), "shop", "customer", codes.Unauthenticated},
		} {
			c := newDelta(t, tt.conn, node(tt.ns, tt.sa))
			c.subscribe(cds, cluster("payment"))
			if tt.want == codes.OK {
				c.want(cds, []string{cluster("payment")}, nil)
				c.quiet()
				continue
			}
			if err := c.end(); status.Code(err) != tt.want {
				t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
			}
			d := newSotw(t, tt.conn, node(tt.ns, tt.sa))
			d.subscribe(cds, cluster("payment"))
			if err := d.end(); status.Code(err) != tt.want {
				t.Errorf("%s, state of the world: got %v, want %v", tt.name, err, tt.want)
			}
		}
		if logs.count("the node is not the caller's") != 8 {
			t.Errorf("refusals are not logged:\n%s", logs)
		}
		for _, c := range s.Status().Clients {
			if c.Identity != "spiffe://cluster.local/ns/shop/sa/customer" || c.Namespace != "shop" {
				t.Errorf("status shows %+v", c)
			}
		}
	})
}

func TestNodeCannotChangeOnAStream(t *testing.T) {
	secureBubble(t, func(t *testing.T, s *Server, network *memnet.Network, _ *logBuffer) {
		conn := dialTLS(t, network, s.ca, nil, tokenFor(t, s.ca, "shop", "customer", time.Hour))
		c := newDelta(t, conn, node("shop", "customer"))
		c.subscribe(cds, cluster("payment"))
		c.want(cds, []string{cluster("payment")}, nil)
		c.node = node("bank", "admin")
		c.subscribe(lds, host("payment")+":8080")
		c.want(lds, []string{host("payment") + ":8080"}, nil)
		c.quiet()
		if got := s.Status().Clients[0]; got.Namespace != "shop" {
			t.Errorf("node became %+v", got)
		}
	})
}

func TestCAIsNotOfferedInPlaintext(t *testing.T) {
	secureBubble(t, func(t *testing.T, s *Server, network *memnet.Network, _ *logBuffer) {
		token, err := s.ca.IssueToken("shop", "customer", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token)
		_, err = pb.NewIstioCertificateServiceClient(dial(t, network, "plaintext:1")).CreateCertificate(ctx, &pb.IstioCertificateRequest{})
		wantCode(t, err, codes.Unimplemented)
	})
}

func TestTLSOfTheSecureListener(t *testing.T) {
	secureBubble(t, func(t *testing.T, s *Server, network *memnet.Network, logs *logBuffer) {
		handshake := func(config *tls.Config) (tls.ConnectionState, error) {
			t.Helper()
			config.NextProtos = []string{"h2"}
			raw, err := network.DialContext(context.Background(), "mem", "secure:1")
			if err != nil {
				t.Fatal(err)
			}
			conn := tls.Client(raw, config)
			defer raw.Close()
			if err := conn.HandshakeContext(t.Context()); err != nil {
				return tls.ConnectionState{}, err
			}
			_, err = conn.Read(make([]byte, 1)) // the settings frame, or the alert
			return conn.ConnectionState(), err
		}
		for _, name := range []string{"localhost", "127.0.0.1", "::1", "istiod.istio-system.svc"} {
			state, err := handshake(&tls.Config{RootCAs: s.ca.Roots(), ServerName: name})
			if err != nil || state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != "h2" {
				t.Errorf("%s: version %x, %q, %v", name, state.Version, state.NegotiatedProtocol, err)
			}
		}
		if _, err := handshake(&tls.Config{RootCAs: s.ca.Roots(), ServerName: "evil.test"}); err == nil {
			t.Error("certificate is for any name")
		}
		if _, err := handshake(&tls.Config{RootCAs: s.ca.Roots(), ServerName: "localhost", MaxVersion: tls.VersionTLS12}); err == nil {
			t.Error("TLS 1.2 is spoken")
		}
		foreign, err := mustCA(t, ca.Config{}).ServerCertificate([]string{"x"}, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = handshake(&tls.Config{RootCAs: s.ca.Roots(), ServerName: "localhost",
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return foreign, nil }})
		if err == nil {
			t.Error("certificate of another CA is accepted")
		}
		synctest.Wait()
		for _, want := range []string{"unsupported versions", "unknown authority"} {
			if !strings.Contains(logs.String(), want) {
				t.Errorf("log lacks %q:\n%s", want, logs)
			}
		}
	})
}

func TestCertificateOfTheSecureListenerRenewsItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		authority := mustCA(t, ca.Config{MaxTTL: time.Hour})
		c := newCertificate(authority, []string{"control.test", "localhost"})
		first, err := c.current()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(first.Leaf.DNSNames, " "); got != "control.test istiod.istio-system.svc localhost" {
			t.Errorf("names %q", got)
		}
		time.Sleep(30 * time.Minute)
		second, err := c.current()
		if err != nil || second != first {
			t.Errorf("renewed too early (%v)", err)
		}
		time.Sleep(15 * time.Minute)
		third, err := c.current()
		if err != nil || third == first || time.Until(third.Leaf.NotAfter) != time.Hour {
			t.Errorf("not renewed (%v)", err)
		}
	})
}

func TestManyClientsFollowAChange(t *testing.T) {
	secureBubble(t, func(t *testing.T, s *Server, network *memnet.Network, _ *logBuffer) {
		conn := dialTLS(t, network, s.ca, nil, tokenFor(t, s.ca, "shop", "customer", time.Hour))
		plain := dial(t, network, "plaintext:1")
		var deltas []*deltaClient
		var sotws []*sotwClient
		for range 50 {
			deltas = append(deltas, newDelta(t, conn, node("shop", "customer")))
			sotws = append(sotws, newSotw(t, plain, node("shop", "customer")))
		}
		for i := range deltas {
			deltas[i].subscribe(eds, cluster("payment"))
			sotws[i].subscribe(eds, cluster("payment"))
		}
		for round := range 5 {
			for i := range deltas {
				deltas[i].want(eds, []string{cluster("payment")}, nil)
				sotws[i].want(eds, []string{cluster("payment")}, cluster("payment"))
			}
			synctest.Wait()
			mustUpdate(t, s, service("payment", fmt.Sprintf("10.0.1.%d", round)))
		}
		if got := len(s.Status().Clients); got != 100 {
			t.Errorf("%d clients in the status, want 100", got)
		}
	})
}

func TestHealthIsServed(t *testing.T) {
	secureBubble(t, func(t *testing.T, _ *Server, network *memnet.Network, _ *logBuffer) {
		health := grpc_health_v1.NewHealthClient(dial(t, network, "plaintext:1"))
		response, err := health.Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil || response.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("got %v, %v", response, err)
		}
	})
}
