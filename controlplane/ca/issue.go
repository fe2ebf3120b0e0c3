package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"
)

const (
	// maxCSR bounds the PEM text of a request. One with an RSA key of 4096
	// bits is under 2 KiB.
	maxCSR = 16 << 10
	// minRSA and maxRSA bound RSA keys: shorter ones are weak, longer ones
	// make every handshake of every peer slow.
	minRSA, maxRSA = 2048, 4096
)

// parseCSR returns the public key of a certificate request that was signed
// with the matching private key. Nothing else in the request is used: the
// names in it are the wishes of the caller, not its identity.
func parseCSR(text string) (crypto.PublicKey, error) {
	if len(text) > maxCSR {
		return nil, fmt.Errorf("certificate request is longer than %d bytes", maxCSR)
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || (block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST") {
		return nil, errors.New("certificate request is not PEM of type CERTIFICATE REQUEST")
	}
	if len(bytes.TrimSpace(rest)) != 0 {
		return nil, errors.New("certificate request is followed by something else")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate request cannot be read: %w", err)
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request is not signed by its key: %w", err)
	}
	return csr.PublicKey, nil
}

func checkKey(key crypto.PublicKey) error {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() {
			return nil
		}
		return fmt.Errorf("ECDSA key on curve %s: want P-256 or P-384", key.Curve.Params().Name)
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSA || bits > maxRSA {
			return fmt.Errorf("RSA key of %d bits: want %d to %d", bits, minRSA, maxRSA)
		}
		return nil
	case ed25519.PublicKey:
		return nil
	default:
		return errors.New("key type: want ECDSA P-256 or P-384, RSA or Ed25519")
	}
}

// lifetime returns how long a certificate lives whose request asks for that
// many seconds.
func (c *CA) lifetime(seconds int64) (time.Duration, error) {
	switch {
	case seconds < 0:
		return 0, fmt.Errorf("validity of %d s: want a positive number, or 0 for the default", seconds)
	case seconds == 0:
		return c.ttl, nil
	case seconds >= int64(c.maxTTL/time.Second):
		return c.maxTTL, nil
	default:
		return time.Duration(seconds) * time.Second, nil
	}
}

// issueIdentity signs a certificate for the identity.
func (c *CA) issueIdentity(a *authority, key crypto.PublicKey, id Identity, ttl time.Duration) (*x509.Certificate, error) {
	uri, err := url.Parse(id.String())
	if err != nil {
		return nil, fmt.Errorf("identity %q: %w", id, err)
	}
	return a.sign(&x509.Certificate{
		URIs:        []*url.URL{uri},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, key, ttl)
}

// ServerCertificate issues a certificate for a server of the control plane
// itself, with a new key. names are its DNS names and IP addresses; it has no
// SPIFFE ID, so it cannot be used to be a workload. A ttl of zero, or over
// the CA's maximum, means the CA's maximum.
func (c *CA) ServerCertificate(names []string, ttl time.Duration) (*tls.Certificate, error) {
	template := &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	if len(names) == 0 {
		return nil, errors.New("server certificate: no names for it")
	}
	if ttl <= 0 || ttl > c.maxTTL {
		ttl = c.maxTTL
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	a := c.authority.Load()
	leaf, err := a.sign(template, key.Public(), ttl)
	if err != nil {
		return nil, fmt.Errorf("server certificate for %q: %w", names, err)
	}
	cert := &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	for _, intermediate := range a.intermediates {
		cert.Certificate = append(cert.Certificate, intermediate.Raw)
	}
	return cert, nil
}

// sign completes the template with what all certificates have in common, and
// signs it. A certificate never outlives the one that signs it.
func (a *authority) sign(template *x509.Certificate, key crypto.PublicKey, ttl time.Duration) (*x509.Certificate, error) {
	now := time.Now()
	if now.After(a.signer.cert.NotAfter) {
		return nil, fmt.Errorf("the CA's own certificate expired on %s", a.signer.cert.NotAfter.UTC().Format(time.RFC3339))
	}
	template.NotBefore = now.Add(-clockSkew)
	template.NotAfter = now.Add(ttl)
	if template.NotAfter.After(a.signer.cert.NotAfter) {
		template.NotAfter = a.signer.cert.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	if _, ok := key.(*rsa.PublicKey); ok {
		template.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	template.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, template, a.signer.cert, key, a.signer.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}
