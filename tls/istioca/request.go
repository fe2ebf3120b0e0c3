package istioca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	security "istio.io/api/security/v1alpha1"

	"github.com/inboardmesh/inboard/internal/regularfile"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// requestTimeout bounds one request, with its connection.
const requestTimeout = 10 * time.Second

// obtain gets a new certificate. current is the valid certificate to
// authenticate by, or nil.
func (s *Source) obtain(ctx context.Context, current *meshtls.Identity) (*meshtls.Identity, error) {
	var refusal error
	if current != nil {
		identity, err := s.request(ctx, &current.Certificate, "")
		if err == nil || !refused(err) {
			return identity, err
		}
		refusal = err
	}
	token, err := readToken(s.config.TokenFile)
	if err == nil {
		var identity *meshtls.Identity
		if identity, err = s.request(ctx, nil, token); err == nil {
			return identity, nil
		}
		if status.Code(err) == codes.Unauthenticated {
			err = fmt.Errorf("%w (has the token in %q expired? put a new one there)", err, s.config.TokenFile)
		}
	}
	if refusal != nil {
		return nil, fmt.Errorf("by the token: %w; by the current certificate: %w", err, refusal)
	}
	return nil, err
}

// refused reports whether the CA, or its TLS, did not accept our certificate. A
// refusal by TLS comes as UNAVAILABLE, like any other trouble with the
// connection; then asking once more by the token does no harm.
func refused(err error) bool {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.Unavailable:
		return true
	}
	return false
}

// request makes one request on a connection of its own, authenticated by cert
// or by token.
func (s *Source) request(ctx context.Context, cert *tls.Certificate, token string) (_ *meshtls.Identity, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()

	secure := &tls.Config{ServerName: s.config.ServerName, MinVersion: tls.VersionTLS12}
	if s.config.RootFile != "" {
		if secure.RootCAs, err = readRoots(s.config.RootFile); err != nil {
			return nil, err
		}
	}
	if cert != nil {
		secure.Certificates = []tls.Certificate{*cert}
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(secure)),
		grpc.WithDisableServiceConfig(),
	}
	if token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer(token)))
	}
	if s.config.Dial != nil {
		options = append(options, grpc.WithContextDialer(s.config.Dial))
	}
	conn, err := grpc.NewClient(s.config.ServerURI, options...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	conn.Connect() // beside what follows, which needs none

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	// The CA takes the name from who authenticated, and nothing from the CSR
	// but the key.
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if s.config.ClusterID != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "ClusterID", s.config.ClusterID)
	}
	reply, err := security.NewIstioCertificateServiceClient(conn).CreateCertificate(ctx, &security.IstioCertificateRequest{
		Csr:              string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
		ValidityDuration: int64((s.config.Lifetime + time.Second - 1) / time.Second),
	})
	if err != nil {
		return nil, err
	}
	return identityOf(reply.GetCertChain(), key, time.Now())
}

// bearer sends a token, and only over TLS.
type bearer string

var _ credentials.PerRPCCredentials = bearer("")

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

func readToken(file string) (string, error) {
	text, err := regularfile.Read(file, regularfile.MaxToken)
	if err != nil {
		return "", fmt.Errorf("token_file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("token_file: %q is empty", file)
	}
	return token, nil
}

func readRoots(file string) (*x509.CertPool, error) {
	text, err := regularfile.Read(file, regularfile.MaxCertificates)
	if err != nil {
		return nil, fmt.Errorf("root_file: %w", err)
	}
	certs, err := parsePEM(text)
	if err != nil {
		return nil, fmt.Errorf("root_file: %q: %w", file, err)
	}
	pool := x509.NewCertPool()
	for _, cert := range certs {
		pool.AddCert(cert)
	}
	return pool, nil
}
