package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	pb "istio.io/api/security/v1alpha1"
)

// Register offers IstioCertificateService on the server. The server must
// speak TLS: over anything else every request is refused, because the token
// could be read on the way. To renew certificates it must also ask clients
// for theirs (tls.VerifyClientCertIfGiven or tls.RequestClientCert); the CA
// verifies them itself.
func (c *CA) Register(server grpc.ServiceRegistrar) {
	pb.RegisterIstioCertificateServiceServer(server, &service{ca: c})
}

// service is the CA seen from the network. It is a type of its own so that
// the CA's own methods stay those of its Go API.
type service struct {
	pb.UnimplementedIstioCertificateServiceServer
	ca *CA
}

// CreateCertificate answers with the certificate, the intermediates, and as
// the last element the trust bundle: one PEM text with every root, the one
// that signs first. So does istiod when its root-cert.pem holds several.
func (s *service) CreateCertificate(ctx context.Context, request *pb.IstioCertificateRequest) (*pb.IstioCertificateResponse, error) {
	caller, err := s.ca.Authenticate(ctx)
	if err != nil {
		return nil, err
	}
	logger := s.ca.logger.With(slog.String("identity", caller.Identity.String()))
	key, err := parseCSR(request.GetCsr())
	if err != nil {
		logger.LogAttrs(ctx, slog.LevelWarn, "certificate refused", slog.Any("error", err), peerAttr(ctx))
		return nil, status.Error(codes.InvalidArgument, "certificate request is not acceptable")
	}
	ttl, err := s.ca.lifetime(request.GetValidityDuration())
	if err != nil {
		logger.LogAttrs(ctx, slog.LevelWarn, "certificate refused", slog.Any("error", err), peerAttr(ctx))
		return nil, status.Error(codes.InvalidArgument, "validity duration is not acceptable")
	}
	a := s.ca.authority.Load()
	cert, err := s.ca.issueIdentity(a, key, caller.Identity, ttl)
	if err != nil {
		logger.LogAttrs(ctx, slog.LevelError, "certificate not issued", slog.Any("error", err), peerAttr(ctx))
		return nil, status.Error(codes.Internal, "certificate could not be issued")
	}
	logger.LogAttrs(ctx, slog.LevelInfo, "certificate issued",
		slog.String("serial", cert.SerialNumber.Text(16)),
		slog.Time("not_after", cert.NotAfter),
		slog.String("proof", string(caller.Proof)),
		peerAttr(ctx))
	response := &pb.IstioCertificateResponse{CertChain: []string{string(encodeCertificates(cert))}}
	for _, intermediate := range a.intermediates {
		response.CertChain = append(response.CertChain, string(encodeCertificates(intermediate)))
	}
	response.CertChain = append(response.CertChain, string(encodeCertificates(a.roots...)))
	return response, nil
}

// Proof is how a caller proved its identity.
type Proof string

// The kinds of proof.
const (
	ProofCertificate Proof = "certificate"
	ProofToken       Proof = "token"
)

// Caller is who makes a call, as far as it was proved.
type Caller struct {
	Identity Identity
	Proof    Proof
	// NotAfter is when the proof expires.
	NotAfter time.Time
}

// Authenticate returns who makes the gRPC call with that context: by the
// certificate of the connection if this CA issued it, or by the bearer token in
// the metadata "authorization". Of two good proofs of the same identity the one
// that lives longer counts; of two identities that of the certificate. The error
// is a gRPC status (Unauthenticated) that can be returned as it is; the reason
// is in the log.
//
// A certificate is verified here, against the roots of now, whatever the
// server's own TLS configuration is.
func (c *CA) Authenticate(ctx context.Context) (Caller, error) {
	caller, err := c.authenticate(ctx)
	if err != nil {
		c.logger.LogAttrs(ctx, slog.LevelWarn, "caller refused", slog.Any("error", err), peerAttr(ctx))
		return Caller{}, status.Error(codes.Unauthenticated, "authentication failed")
	}
	return caller, nil
}

func (c *CA) authenticate(ctx context.Context) (Caller, error) {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return Caller{}, errors.New("not a gRPC call")
	}
	info, ok := from.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return Caller{}, errors.New("connection is not TLS")
	}
	byToken, tokenErr := c.byToken(ctx)
	certs := info.State.PeerCertificates
	if len(certs) == 0 {
		return byToken, tokenErr
	}
	id, err := c.verifyCertificate(certs)
	if err != nil {
		if tokenErr != nil {
			return Caller{}, errors.Join(err, tokenErr)
		}
		return byToken, nil
	}
	if tokenErr == nil && byToken.Identity == id && byToken.NotAfter.After(certs[0].NotAfter) {
		return byToken, nil
	}
	return Caller{Identity: id, Proof: ProofCertificate, NotAfter: certs[0].NotAfter}, nil
}

func (c *CA) byToken(ctx context.Context) (Caller, error) {
	token, err := bearerToken(ctx)
	if err != nil {
		return Caller{}, err
	}
	id, expiry, err := c.tokens.verify(token)
	if err != nil {
		return Caller{}, err
	}
	return Caller{Identity: id, Proof: ProofToken, NotAfter: expiry}, nil
}

// verifyCertificate returns the identity in a certificate of this CA. TLS has
// shown already that the peer has its key.
func (c *CA) verifyCertificate(certs []*x509.Certificate) (Identity, error) {
	leaf, intermediates := certs[0], x509.NewCertPool()
	for _, cert := range certs[1:] {
		intermediates.AddCert(cert)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:         c.Roots(),
		Intermediates: intermediates,
		CurrentTime:   time.Now(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return Identity{}, fmt.Errorf("client certificate: %w", err)
	}
	if leaf.IsCA || len(leaf.URIs) != 1 {
		return Identity{}, fmt.Errorf("client certificate has %d URI names (CA: %t): want one, of a workload", len(leaf.URIs), leaf.IsCA)
	}
	id, err := ParseIdentity(leaf.URIs[0].String())
	if err != nil {
		return Identity{}, fmt.Errorf("client certificate: %w", err)
	}
	if id.TrustDomain != c.trustDomain {
		return Identity{}, fmt.Errorf("client certificate is of trust domain %q", id.TrustDomain)
	}
	return id, nil
}

// bearerToken returns the one token of a call. Of several none counts: which
// one was meant is not for us to guess.
func bearerToken(ctx context.Context) (string, error) {
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	switch len(values) {
	case 0:
		return "", errors.New("no credentials")
	case 1:
	default:
		return "", fmt.Errorf("%d authorization headers: want one", len(values))
	}
	scheme, token, found := strings.Cut(values[0], " ")
	if !found || !strings.EqualFold(scheme, "Bearer") {
		return "", errors.New("authorization is not a bearer token")
	}
	return token, nil
}

func peerAttr(ctx context.Context) slog.Attr {
	from, ok := peer.FromContext(ctx)
	if !ok || from.Addr == nil {
		return slog.Attr{}
	}
	return slog.String("peer", from.Addr.String())
}
