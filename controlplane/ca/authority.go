package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"
)

const (
	// rootLifetime is Istio's default for a self-signed root.
	rootLifetime = 10 * 365 * 24 * time.Hour
	// clockSkew is how far a certificate's beginning lies in the past, so that
	// a peer whose clock is behind accepts it at once. Istio's value.
	clockSkew = 2 * time.Minute
)

// keyPair is a CA certificate and its key.
type keyPair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// authority is what the CA signs with and what is trusted, at one moment. It
// is immutable.
type authority struct {
	signer        keyPair
	intermediates []*x509.Certificate // from the signer towards a root, roots not included
	roots         []*x509.Certificate // the trust bundle; what the signer leads to comes first
	next          *keyPair            // a root that is trusted but does not sign yet
	pluggedIn     bool                // the files belong to somebody else: never change them
}

// newRoot makes a self-signed root for the trust domain. As SPIFFE asks of a
// signing certificate, its URI SAN is the trust domain.
func newRoot(trustDomain string, now time.Time) (keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return keyPair{}, fmt.Errorf("root key: %w", err)
	}
	template := &x509.Certificate{
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(rootLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
	}
	template.Subject.Organization = []string{trustDomain}
	template.Subject.CommonName = "Inboard root"
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return keyPair{}, fmt.Errorf("root certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return keyPair{}, fmt.Errorf("root certificate: %w", err)
	}
	return keyPair{cert: cert, key: key}, nil
}

// newAuthority checks that the parts belong together: the key to the
// certificate, and the certificate, by way of chain, to one of the roots.
func newAuthority(signer keyPair, chain, roots []*x509.Certificate, now time.Time) (*authority, error) {
	if !samePublicKey(signer.cert.PublicKey, signer.key.Public()) {
		return nil, errors.New("the key is not that of the CA certificate")
	}
	if !signer.cert.IsCA || signer.cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, fmt.Errorf("certificate %q is not one of a CA: it may not sign certificates", signer.cert.Subject)
	}
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range roots {
		pool.AddCert(root)
	}
	for _, cert := range chain {
		between.AddCert(cert)
	}
	verified, err := signer.cert.Verify(x509.VerifyOptions{
		Roots:         pool,
		Intermediates: between,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("CA certificate does not lead to a root: %w", err)
	}
	path := verified[0]
	top := path[len(path)-1]
	a := &authority{signer: signer, intermediates: path[:len(path)-1], roots: []*x509.Certificate{top}}
	for _, root := range roots {
		if !slices.ContainsFunc(a.roots, root.Equal) {
			a.roots = append(a.roots, root)
		}
	}
	return a, nil
}

// pool returns the trust bundle for verification.
func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, root := range a.roots {
		pool.AddCert(root)
	}
	return pool
}

func samePublicKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

func encodeCertificates(certs ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, cert := range certs {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	return out.Bytes()
}

func decodeCertificates(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		block, data = pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %q: want CERTIFICATE", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("no PEM certificate in it")
	}
	return certs, nil
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// decodeKey reads a private key in any of the three PEM forms that openssl
// writes. Its errors never hold a part of the key.
func decodeKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no PEM private key in it")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("PEM block %q: want PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY", block.Type)
	}
	if err != nil {
		return nil, errors.New("the private key cannot be read")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("the private key cannot sign")
	}
	return signer, nil
}
