package meshtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
)

// ClientParams is what [ClientConfig] needs.
type ClientParams struct {
	// Identity provides the certificate to present. nil presents none; a
	// source that has none at the moment fails the handshake.
	Identity Source
	// Roots provides the roots that verify the server. Required.
	Roots Source
	// Authorize decides whether the verified server is the right one. Required:
	// to accept every server that the roots verify, say so with [AuthorizeAny].
	Authorize Authorizer
	// ServerName is sent as SNI; "" sends none. It is not compared with the
	// certificate: in a mesh the server is its SPIFFE ID.
	ServerName string
	// NextProtos are the ALPN names to offer.
	NextProtos []string
	// Versions are what may be negotiated; zero is TLS 1.3.
	Versions Versions
	// Outside is for a server that is no member of the mesh: its certificate
	// need not have a SPIFFE ID, and Authorize, which gets the zero ID then,
	// decides by the names that it has.
	Outside bool
	// Revocation withdraws certificates of servers, beside that of Roots; nil
	// withdraws none.
	Revocation *Revocation
}

// ClientConfig returns a fresh TLS configuration for connections to a server of
// the mesh. The errors of its handshakes hold a [*HandshakeError] when this
// side refused. It may be used for many connections at the same time, and
// belongs to the caller. The error is about the parameters.
//
// In TLS 1.3 a client finishes its handshake before the server has looked at
// the client's certificate: a server's refusal arrives with the first read.
func ClientConfig(params ClientParams) (*tls.Config, error) {
	if params.Roots == nil {
		return nil, errors.New("client TLS: roots are missing: a server must be verified")
	}
	if params.Authorize == nil {
		return nil, errors.New("client TLS: authorizer is missing: use AuthorizeAny to accept every verified server")
	}
	peer := verifier{
		roots: params.Roots, authorize: params.Authorize, usage: x509.ExtKeyUsageServerAuth,
		outside: params.Outside, revocation: params.Revocation,
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, // Versions may say otherwise
		ServerName: params.ServerName,
		NextProtos: slices.Clone(params.NextProtos),
		// crypto/tls can only verify a host name against fixed roots. What it
		// skips, VerifyConnection does: chain, usage, validity, SPIFFE ID.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			// Without an identity of our own the connection must not come up
			// even if the server does not ask for it.
			if params.Identity != nil {
				if _, err := ownCertificate(params.Identity); err != nil {
					return err
				}
			}
			return peer.verify(state)
		},
	}
	if params.Identity != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return ownCertificate(params.Identity)
		}
	}
	if err := params.Versions.apply(config); err != nil {
		return nil, fmt.Errorf("client TLS: %w", err)
	}
	return config, nil
}

// ServerParams is what [ServerConfig] needs.
type ServerParams struct {
	// Identity provides the certificate to present. Required; a source that has
	// none at the moment fails the handshake.
	Identity Source
	// Roots provides the roots that verify clients. nil asks no client for a
	// certificate.
	Roots Source
	// Authorize decides whether a verified client may connect. Required with
	// Roots: to accept every client that the roots verify, say so with
	// [AuthorizeAny].
	Authorize Authorizer
	// RequireClientCertificate refuses clients without a certificate. If it is
	// false, a certificate that a client does present is verified all the same.
	RequireClientCertificate bool
	// NextProtos are the ALPN names to accept, in order of preference. If it is
	// not empty, a client that offers only other names is refused.
	NextProtos []string
	// Versions are what may be negotiated; zero is TLS 1.3.
	Versions Versions
	// Revocation withdraws certificates of clients, beside that of Roots; nil
	// withdraws none.
	Revocation *Revocation
}

// ServerConfig returns a fresh TLS configuration for connections from clients
// of the mesh. The errors of its handshakes hold a [*HandshakeError] when this
// side refused. It may be used for many connections at the same time, and
// belongs to the caller. The error is about the parameters.
func ServerConfig(params ServerParams) (*tls.Config, error) {
	switch {
	case params.Identity == nil:
		return nil, errors.New("server TLS: identity is missing: a server must present a certificate")
	case params.RequireClientCertificate && params.Roots == nil:
		return nil, errors.New("server TLS: roots are missing: client certificates are required and must be verified")
	case params.Roots != nil && params.Authorize == nil:
		return nil, errors.New("server TLS: authorizer is missing: use AuthorizeAny to accept every verified client")
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, // Versions may say otherwise
		NextProtos: slices.Clone(params.NextProtos),
		// A resumed session would carry a verdict from before the roots, the
		// certificates or the policy changed.
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return ownCertificate(params.Identity)
		},
	}
	if params.Roots != nil {
		peer := verifier{
			roots:     params.Roots,
			authorize: params.Authorize,
			usage:     x509.ExtKeyUsageClientAuth,
			optional:  !params.RequireClientCertificate,

			revocation: params.Revocation,
		}
		// VerifyConnection refuses a missing certificate, with a typed error
		// that crypto/tls's own RequireAnyClientCert does not have.
		config.ClientAuth = tls.RequestClientCert
		config.VerifyConnection = peer.verify
	}
	if err := params.Versions.apply(config); err != nil {
		return nil, fmt.Errorf("server TLS: %w", err)
	}
	return config, nil
}

// PeerID returns the identity of the peer of a connection that was made under a
// configuration of this package. It is false if the handshake is not complete
// or the peer presented no certificate.
func PeerID(state tls.ConnectionState) (ID, bool) {
	if !state.HandshakeComplete || len(state.PeerCertificates) == 0 {
		return ID{}, false
	}
	id, err := certificateID(state.PeerCertificates[0])
	return id, err == nil
}
