package mesh_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// outsideYAML are services outside of the mesh, which clients find by DNS.
const outsideYAML = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec:
  hosts: [api.example, mutual.example, other.example]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: &ports
  - {number: 80, name: http, protocol: HTTP, targetPort: PORT}
  - {number: 82, name: http2, protocol: HTTP2, targetPort: PORT}
  - {number: 9090, name: grpc, protocol: GRPC, targetPort: PORT}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: one, namespace: shop}
spec:
  hosts: [one.example]
  location: MESH_EXTERNAL
  resolution: DNS_ROUND_ROBIN
  endpoints: [{address: api.example}]
  ports:
  - {number: 80, name: http, protocol: HTTP, targetPort: PORT}
  - {number: 82, name: http2, protocol: HTTP2, targetPort: PORT}
  - {number: 9090, name: grpc, protocol: GRPC, targetPort: PORT}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: example, namespace: shop}
spec: {host: "*.example", trafficPolicy: {tls: {mode: SIMPLE, credentialName: outside}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: mutual, namespace: shop}
spec: {host: mutual.example, trafficPolicy: {tls: {mode: MUTUAL, credentialName: outside-own}}}
`

// outsideService answers with what it knows of the client.
type outsideService struct {
	grpc_testing.UnimplementedTestServiceServer
}

func whoCalls(state *tls.ConnectionState) string {
	who := "nobody"
	if state != nil && len(state.PeerCertificates) > 0 {
		who = state.PeerCertificates[0].DNSNames[0]
	}
	return state.ServerName + " called by " + who
}

func (outsideService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Who", whoCalls(r.TLS))
	_, _ = io.WriteString(w, r.Proto)
}

func (outsideService) EmptyCall(context.Context, *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return &grpc_testing.Empty{}, nil
}

// startOutside serves HTTP/1.1, HTTP/2 and gRPC over TLS, with a certificate that
// has names of DNS only. It returns the port.
func startOutside(t *testing.T, own tls.Certificate, clients *x509.Certificate) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(clients)
	calls := grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(calls, outsideService{})
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
				w.Header().Set("X-Who", whoCalls(r.TLS))
				calls.ServeHTTP(w, r)
				return
			}
			outsideService{}.ServeHTTP(w, r)
		}),
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{own}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool, MinVersion: tls.VersionTLS12,
		},
		ReadHeaderTimeout: time.Minute,
	}
	done := make(chan struct{})
	go func() { // ends with the server
		defer close(done)
		_ = server.ServeTLS(listener, "", "")
	}()
	t.Cleanup(func() {
		_ = server.Close()
		calls.Stop()
		<-done
	})
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestServicesOutsideTheMeshAreFoundByDNSAndReachedByTLS(t *testing.T) {
	t.Parallel()
	theirs, ours := tlstest.NewCA(t), tlstest.NewCA(t)
	port := startOutside(t,
		theirs.Issue(t, tlstest.Leaf{DNSNames: []string{"api.example", "one.example", "mutual.example"}}), ours.Certificate)
	w := worldtest.New(t, strings.NewReplacer("PORT", port, "&ports", "").Replace(outsideYAML))
	roots, err := meshtls.NewRoots([]*x509.Certificate{theirs.Certificate})
	if err != nil {
		t.Fatal(err)
	}
	identity, err := meshtls.NewIdentity(ours.Issue(t, tlstest.Leaf{
		DNSNames: []string{"customer.example"}, URIs: []string{"spiffe://cluster.local/ns/shop/sa/customer"},
	}), []*x509.Certificate{theirs.Certificate})
	if err != nil {
		t.Fatal(err)
	}
	m := w.Join("shop", "customer", nil,
		mesh.WithIdentity("outside", meshtls.NewStatic(roots)),
		mesh.WithIdentity("outside-own", meshtls.NewStatic(identity)),
		mesh.Network{Lookup: func(_ context.Context, _, host string) ([]netip.Addr, error) {
			if !strings.HasSuffix(host, ".example") {
				return nil, errors.New("no such host")
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}})
	for _, tt := range []struct {
		name, host, who string
		fails           bool
	}{
		{name: "SIMPLE", host: "api.example", who: "api.example called by nobody"},
		{name: "SIMPLE, one endpoint", host: "one.example", who: "one.example called by nobody"},
		{name: "MUTUAL", host: "mutual.example", who: "mutual.example called by customer.example"},
		{name: "another name than that of the certificate", host: "other.example", fails: true},
	} {
		for _, p := range parityProtocols {
			t.Run(tt.name+", "+p.name, func(t *testing.T) {
				t.Parallel()
				who, err := callOutside(t, m, p, tt.host)
				if failure, ok := errors.AsType[*mesh.Error](err); tt.fails != ok || tt.fails && failure.Kind != outcome.ConnectFailure {
					t.Fatalf("error %v", err)
				}
				if who != tt.who {
					t.Errorf("the server says %q, want %q", who, tt.who)
				}
			})
		}
	}
}

// callOutside makes a call and returns what the server knows of the client.
func callOutside(t *testing.T, m *mesh.Mesh, p parityProtocol, host string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	target := net.JoinHostPort(host, p.port)
	if p.grpc {
		conn, err := grpc.NewClient("mesh:///"+target, m.DialOptions()...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		var header metadata.MD
		_, err = grpc_testing.NewTestServiceClient(conn).EmptyCall(ctx, &grpc_testing.Empty{}, grpc.Header(&header))
		return strings.Join(header.Get("x-who"), ","), err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+target+"/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := m.Transport().RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || !strings.HasPrefix(string(body), p.name[:len("HTTP/1")]) {
		t.Errorf("over %q, error %v", body, err)
	}
	return resp.Header.Get("X-Who"), nil
}
