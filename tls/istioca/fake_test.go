package istioca_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	security "istio.io/api/security/v1alpha1"

	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/istioca"
)

const (
	workloadID = "spiffe://cluster.local/ns/shop/sa/payment"
	secret     = "s3cr3t-token"
	address    = "ca.test:15012"
)

// request is what the fake CA saw.
type request struct {
	at        time.Time
	token     string // without "Bearer "
	peer      string // URI SAN of the client's certificate
	clusterID string
	validity  time.Duration
	public    any
}

// fake is a CA service over a network in memory. It signs for workloadID,
// whoever asks with the token or with a certificate of its own.
type fake struct {
	security.UnimplementedIstioCertificateServiceServer
	network memnet.Network

	mu       sync.Mutex
	issuer   *tlstest.CA // signs workloads; guarded by mu
	root     *tlstest.CA // what the reply gives as root; guarded by mu
	serving  *tlstest.CA // signs the service's own certificate; guarded by mu
	lifetime time.Duration
	token    string
	// answer replaces the reply if it is not nil; guarded by mu.
	answer   func(r request, csr *x509.CertificateRequest) ([]string, error)
	requests []request // guarded by mu

	config istioca.Config
	events []observe.CertificateEvent // guarded by mu
}

// newFake starts a fake CA, and writes the files that a workload needs.
func newFake(t *testing.T) *fake {
	t.Helper()
	root := tlstest.NewCA(t)
	f := &fake{issuer: root, root: root, serving: root, lifetime: time.Hour, token: secret}
	dir := t.TempDir()
	f.config = istioca.Config{
		ServerURI: "passthrough:///" + address,
		TokenFile: filepath.Join(dir, "token"),
		RootFile:  filepath.Join(dir, "root.pem"),
		Name:      "default",
		OnChange: func(event observe.CertificateEvent) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.events = append(f.events, event)
		},
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			return f.network.DialContext(ctx, "mem", address)
		},
	}
	write(t, f.config.TokenFile, secret+"\n")
	f.writeRoots(t, root)
	return f
}

// start serves until stop or the end of the test.
func (f *fake) start(t *testing.T) (stop func()) {
	t.Helper()
	listener, err := f.network.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			pool := x509.NewCertPool()
			pool.AddCert(f.root.Certificate)
			return &tls.Config{
				Certificates: []tls.Certificate{f.serving.Issue(t, tlstest.Leaf{DNSNames: []string{"ca.test"}})},
				ClientAuth:   tls.VerifyClientCertIfGiven,
				ClientCAs:    pool,
				NextProtos:   []string{"h2"},
			}, nil
		},
	})))
	security.RegisterIstioCertificateServiceServer(server, f)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	stop = sync.OnceFunc(func() {
		server.Stop()
		serving.Wait()
	})
	t.Cleanup(stop)
	return stop
}

func (f *fake) CreateCertificate(ctx context.Context, in *security.IstioCertificateRequest) (*security.IstioCertificateResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	block, _ := pem.Decode([]byte(in.GetCsr()))
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, status.Error(codes.InvalidArgument, "csr is not PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	r := request{at: time.Now(), validity: time.Duration(in.GetValidityDuration()) * time.Second, public: csr.PublicKey}
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		r.token, _ = strings.CutPrefix(strings.Join(md["authorization"], ","), "Bearer ")
		r.clusterID = strings.Join(md["clusterid"], ",")
	}
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
			r.peer = info.State.PeerCertificates[0].URIs[0].String()
		}
	}
	f.requests = append(f.requests, r)
	if f.answer != nil {
		chain, err := f.answer(r, csr)
		return &security.IstioCertificateResponse{CertChain: chain}, err
	}
	if r.peer != workloadID && r.token != f.token {
		return nil, status.Error(codes.Unauthenticated, "authentication failure")
	}
	return &security.IstioCertificateResponse{CertChain: f.sign(csr, tlstest.Leaf{})}, nil
}

// sign issues a certificate for the workload, changed by leaf. f.mu is held.
func (f *fake) sign(csr *x509.CertificateRequest, leaf tlstest.Leaf) []string {
	if leaf.URIs == nil {
		leaf.URIs = []string{workloadID}
	}
	if leaf.NotBefore.IsZero() {
		leaf.NotBefore = time.Now()
	}
	if leaf.NotAfter.IsZero() {
		leaf.NotAfter = leaf.NotBefore.Add(f.lifetime)
	}
	var chain []string
	for _, der := range f.issuer.Sign(must{}, leaf, csr.PublicKey) {
		chain = append(chain, string(tlstest.CertificatePEM(der)))
	}
	return append(chain, string(tlstest.CertificatePEM(f.root.Certificate.Raw)))
}

// set changes the fake while it serves.
func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fake) seen() []request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests
}

func (f *fake) reported() []observe.CertificateEvent {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.events
}

func (f *fake) writeRoots(t *testing.T, cas ...*tlstest.CA) {
	t.Helper()
	var text []byte
	for _, ca := range cas {
		text = append(text, tlstest.CertificatePEM(ca.Certificate.Raw)...)
	}
	write(t, f.config.RootFile, string(text))
}

// newSource starts a source that is closed at the end of the test.
func (f *fake) newSource(t *testing.T) *istioca.Source {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	source, err := istioca.New(ctx, f.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Close)
	return source
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// must panics where there is no test to fail: on the goroutines of the fake.
type must struct{}

func (must) Helper()           {}
func (must) Fatal(args ...any) { panic(args) }
