package spiffe_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
	"github.com/inboardmesh/inboard/tls/spiffe"
)

const (
	paymentID = "spiffe://cluster.local/ns/shop/sa/payment"
	ledgerID  = "spiffe://cluster.local/ns/shop/sa/ledger"
	partnerID = "spiffe://partner.example/api"
)

// agent is a Workload API on a Unix socket.
type agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer

	t      *testing.T
	socket string

	mu      sync.Mutex
	current *workload.X509SVIDResponse // guarded by mu; nil refuses
	changed chan struct{}              // guarded by mu; closed when current is replaced
	server  *grpc.Server               // guarded by mu; nil while it is down
	done    chan struct{}              // guarded by mu
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	a := &agent{t: t, socket: filepath.Join(t.TempDir(), "api.sock"), changed: make(chan struct{})}
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
	workload.RegisterSpiffeWorkloadAPIServer(a.server, a)
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

// send replaces what the workload gets.
func (a *agent) send(response *workload.X509SVIDResponse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.current = response
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *agent) FetchX509SVID(_ *workload.X509SVIDRequest, stream workload.SpiffeWorkloadAPI_FetchX509SVIDServer) error {
	if md, _ := metadata.FromIncomingContext(stream.Context()); !slices.Equal(md.Get("workload.spiffe.io"), []string{"true"}) {
		return status.Error(codes.InvalidArgument, "no security header")
	}
	for {
		a.mu.Lock()
		current, changed := a.current, a.changed
		a.mu.Unlock()
		if current == nil {
			return status.Error(codes.PermissionDenied, "no identity issued")
		}
		if err := stream.Send(current); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// issued is what the API sends of a certificate.
func issued(t *testing.T, cert tls.Certificate, id string, roots ...*tlstest.CA) *workload.X509SVID {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	svid := &workload.X509SVID{SpiffeId: id, X509Svid: slices.Concat(cert.Certificate...), X509SvidKey: key}
	for _, root := range roots {
		svid.Bundle = append(svid.Bundle, root.Certificate.Raw...)
	}
	return svid
}

func one(svids ...*workload.X509SVID) *workload.X509SVIDResponse {
	return &workload.X509SVIDResponse{Svids: svids}
}

func (a *agent) source(config spiffe.Config) *spiffe.Source {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Minute)
	defer cancel()
	config.Socket = "unix://" + a.socket
	s, err := spiffe.New(ctx, config)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(s.Close)
	return s
}

// eventually waits until the source has what is wanted.
func eventually(t *testing.T, s meshtls.Source, want func(*meshtls.Identity, error) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		changed := s.Changed()
		identity, err := s.Identity()
		if want(identity, err) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("it is still %+v, %v", identity, err)
		}
	}
}

func TestAnIdentityAndItsSuccessor(t *testing.T) {
	t.Parallel()
	a, ca, next := newAgent(t), tlstest.NewCA(t), tlstest.NewCA(t)
	a.send(one(issued(t, ca.Workload(t, paymentID), paymentID, ca), issued(t, ca.Workload(t, ledgerID), ledgerID, ca)))
	events := make(chan observe.CertificateEvent, 10)
	s := a.source(spiffe.Config{Name: "default", OnChange: func(e observe.CertificateEvent) { events <- e }})
	first, err := s.Identity()
	if err != nil || first.ID.String() != paymentID {
		t.Fatalf("got %+v, %v", first, err)
	}
	if e := <-events; e.Source != "default" || e.ID != paymentID || e.Err != nil {
		t.Errorf("event %+v", e)
	}
	other := a.source(spiffe.Config{ID: ledgerID})
	if got, err := other.Identity(); err != nil || got.ID.String() != ledgerID {
		t.Errorf("of several it took %+v, %v", got, err)
	}
	a.send(one(issued(t, next.Workload(t, paymentID), paymentID, ca, next)))
	eventually(t, s, func(i *meshtls.Identity, _ error) bool { return i != nil && i.RootsKey != first.RootsKey })
}

// TestV61_WithoutTheAgentThereIsNoIdentity: the source does not begin, and what
// it has ends with the certificate's life, and not before.
func TestV61_WithoutTheAgentThereIsNoIdentity(t *testing.T) {
	t.Parallel()
	t.Run("at the start", func(t *testing.T) {
		t.Parallel()
		a := newAgent(t)
		a.down()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := spiffe.New(ctx, spiffe.Config{Socket: "unix://" + a.socket})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), a.socket) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("without a registration", func(t *testing.T) {
		t.Parallel()
		a := newAgent(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := spiffe.New(ctx, spiffe.Config{Socket: "unix://" + a.socket})
		if err == nil || !strings.Contains(err.Error(), "no identity issued") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("later", func(t *testing.T) {
		t.Parallel()
		a, ca := newAgent(t), tlstest.NewCA(t)
		const life = 2 * time.Second
		a.send(one(issued(t, ca.Issue(t, tlstest.Leaf{URIs: []string{paymentID}, NotAfter: time.Now().Add(life)}), paymentID, ca)))
		s := a.source(spiffe.Config{})
		a.down()
		eventually(t, s, func(_ *meshtls.Identity, err error) bool {
			return err != nil && strings.Contains(err.Error(), "expired")
		})
		// Nothing is left to shake hands with.
		config, err := meshtls.ServerConfig(meshtls.ServerParams{Identity: s})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := config.GetCertificate(nil); err == nil {
			t.Error("it has a certificate to show")
		}
		a.send(one(issued(t, ca.Workload(t, paymentID), paymentID, ca)))
		a.up()
		eventually(t, s, func(i *meshtls.Identity, _ error) bool { return i != nil })
	})
}

// TestBS2_ABundleIsForItsTrustDomain: that of a partner verifies the partner's
// workloads, and does not vouch for ours.
func TestBS2_ABundleIsForItsTrustDomain(t *testing.T) {
	t.Parallel()
	a, ca, partner := newAgent(t), tlstest.NewCA(t), tlstest.NewCA(t)
	response := one(issued(t, ca.Workload(t, paymentID), paymentID, ca))
	response.FederatedBundles = map[string][]byte{"spiffe://partner.example": partner.Certificate.Raw}
	a.send(response)
	s := a.source(spiffe.Config{})
	tests := []struct {
		name   string
		client tls.Certificate
		want   meshtls.Reason
	}{
		{"a member of the own trust domain", ca.Workload(t, ledgerID), 0},
		{"a partner", partner.Workload(t, partnerID), 0},
		{"a partner that says it is ours", partner.Workload(t, ledgerID), meshtls.UnknownAuthority},
		{"one of ours that says it is a partner", ca.Workload(t, partnerID), meshtls.UnknownAuthority},
		{"a trust domain without a bundle", ca.Workload(t, "spiffe://other.example/a"), meshtls.UnknownAuthority},
	}
	config, err := meshtls.ServerConfig(meshtls.ServerParams{
		Identity: s, Roots: s, Authorize: meshtls.AuthorizeAny(), RequireClientCertificate: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		leaf, err := x509.ParseCertificate(tt.client.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		err = config.VerifyConnection(tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}})
		refused, _ := errors.AsType[*meshtls.HandshakeError](err)
		if (tt.want == 0) != (err == nil) || refused != nil && refused.Reason != tt.want {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

func TestParseConfig(t *testing.T) {
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "")
	tests := []struct{ name, json, want string }{
		{"all of it", `{"socket": "unix:///s", "id": "` + paymentID + `"}`, ""},
		{"nothing", `{}`, `spiffe_workload_api: socket: is required without SPIFFE_ENDPOINT_SOCKET: use an address such as "unix:///run/spire/sockets/agent.sock"`},
		{"a network", `{"socket": "tcp://1.2.3.4:80"}`, `spiffe_workload_api: socket: "tcp://1.2.3.4:80": want a Unix socket such as "unix:///run/spire/sockets/agent.sock"`},
		{"no ID", `{"socket": "unix:///s", "id": "payment"}`, `spiffe_workload_api: id: SPIFFE ID "payment": scheme is missing or invalid`},
		{"an unknown field", `{"sokcet": "unix:///s"}`, `spiffe_workload_api: sokcet: unknown field`},
	}
	for _, tt := range tests {
		_, err := spiffe.ParseConfig([]byte(tt.json))
		if got := textOf(err); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "unix:///s")
	if _, err := spiffe.ParseConfig([]byte(`{}`)); err != nil {
		t.Errorf("with the variable: %v", err)
	}
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
