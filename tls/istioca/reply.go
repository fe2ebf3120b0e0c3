package istioca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/inboardmesh/inboard/tls/meshtls"
)

// identityOf turns the CA's reply into an identity. The reply is a list of PEM
// texts: the leaf, its intermediates, and last the root or roots. What peers
// would refuse is refused here, where the reason can be told.
func identityOf(reply []string, key *ecdsa.PrivateKey, now time.Time) (*meshtls.Identity, error) {
	if len(reply) < 2 {
		return nil, fmt.Errorf("reply has %d elements: want the certificate first and the root last", len(reply))
	}
	roots, err := parsePEM([]byte(reply[len(reply)-1]))
	if err != nil {
		return nil, fmt.Errorf("reply: root: %w", err)
	}
	cert := tls.Certificate{PrivateKey: key}
	intermediates := x509.NewCertPool()
	for i, text := range reply[:len(reply)-1] {
		parsed, err := parsePEM([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("reply: certificate %d: %w", i, err)
		}
		for _, c := range parsed {
			if len(cert.Certificate) > 0 {
				intermediates.AddCert(c)
			}
			cert.Certificate = append(cert.Certificate, c.Raw)
		}
	}
	identity, err := meshtls.NewIdentity(cert, roots)
	if err != nil {
		return nil, fmt.Errorf("reply: %w", err)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		if _, err := identity.Certificate.Leaf.Verify(x509.VerifyOptions{
			Roots:         identity.Roots,
			Intermediates: intermediates,
			KeyUsages:     []x509.ExtKeyUsage{usage},
			CurrentTime:   now,
		}); err != nil {
			return nil, fmt.Errorf("reply: certificate of %q against the root that came with it: %w", identity.ID, err)
		}
	}
	return identity, nil
}

// parsePEM returns the certificates of a PEM text that holds nothing else.
func parsePEM(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block of type %q: want CERTIFICATE", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs, text = append(certs, cert), rest
	}
	switch {
	case len(bytes.TrimSpace(text)) > 0:
		return nil, errors.New("text that is not PEM")
	case len(certs) == 0:
		return nil, errors.New("no certificate")
	}
	return certs, nil
}
