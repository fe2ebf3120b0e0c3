package meshtls

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// Identity is what a workload is and whom it trusts: its certificate with the
// private key, and the roots that verify its peers. The two change together,
// so they are one immutable value. Make it with [NewIdentity] or [NewRoots].
type Identity struct {
	// Certificate is the chain, leaf first, with the key and with Leaf set. It
	// is empty in an Identity that only holds roots.
	Certificate tls.Certificate
	// Roots verify peers. It is nil if there are none; then no peer is verified.
	Roots *x509.CertPool
	// Federated verify the members of other trust domains, by their names, and
	// nobody else; Roots then verify those of the own trust domain only. nil is
	// no federation: Roots verify everybody. Set it with
	// [Identity.WithFederated].
	Federated map[string]*x509.CertPool
	// Revocation withdraws certificates that Roots and Federated verify; nil
	// withdraws none. Set it with [Identity.WithRevocation].
	Revocation *Revocation
	// RootsKey is a digest of the roots, equal for equal sets of roots, so that
	// what depends on the roots can be keyed by it. It is "" without roots.
	RootsKey string
	// ID is the SPIFFE ID of the certificate; zero without one, see [NewOutside].
	ID ID
	// IssuerKey is a digest of who issued the certificate, with the rest of the chain:
	// it changes with the authority, and not with each certificate. It is "" without
	// one.
	IssuerKey string
	// NotAfter is when the certificate expires; zero without a certificate.
	NotAfter time.Time

	// What Roots and Federated were made of: a pool does not give it back.
	roots     []*x509.Certificate
	federated map[string][]*x509.Certificate
}

// NewIdentity builds an identity. The leaf, the first certificate of cert, must
// have exactly one URI SAN that is a SPIFFE ID, must not be a CA certificate,
// and must belong to the private key. Validity is not checked here: it is, at
// every handshake. roots may be empty; then every verification of a peer fails.
func NewIdentity(cert tls.Certificate, roots []*x509.Certificate) (*Identity, error) {
	return newIdentity(cert, roots, certificateID)
}

// NewOutside builds an identity without roots for a certificate that need not have
// a SPIFFE ID, such as one that a service outside the mesh has issued for its
// callers. If it has one, that is its ID; otherwise the ID is zero. In all else it
// is [NewIdentity].
func NewOutside(cert tls.Certificate) (*Identity, error) {
	return newIdentity(cert, nil, func(leaf *x509.Certificate) (ID, error) {
		id, err := certificateID(leaf)
		if err != nil {
			return ID{}, nil //nolint:nilerr // it need not have one
		}
		return id, nil
	})
}

func newIdentity(cert tls.Certificate, roots []*x509.Certificate, idOf func(*x509.Certificate) (ID, error)) (*Identity, error) {
	if len(cert.Certificate) == 0 {
		return nil, errors.New("identity: certificate is missing")
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	id, err := idOf(leaf)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if err := checkLeaf(leaf); err != nil {
		return nil, fmt.Errorf("identity %q: %w", id, err)
	}
	if err := checkKey(leaf, cert.PrivateKey); err != nil {
		return nil, fmt.Errorf("identity %q: %w", id, err)
	}
	cert.Leaf = leaf
	cert.Certificate = slices.Clone(cert.Certificate)
	pool, key := rootPool(roots)
	return &Identity{
		Certificate: cert, Roots: pool, RootsKey: key, ID: id,
		IssuerKey: issuerKey(leaf, cert.Certificate[1:]), NotAfter: leaf.NotAfter,
		roots: slices.Clone(roots),
	}, nil
}

// NewRoots builds an identity that has no certificate: it can verify peers and
// present nothing.
func NewRoots(roots []*x509.Certificate) (*Identity, error) {
	if len(roots) == 0 {
		return nil, errors.New("roots: no certificate")
	}
	pool, key := rootPool(roots)
	return &Identity{Roots: pool, RootsKey: key, roots: slices.Clone(roots)}, nil
}

// NewBundles builds an identity that verifies the members of each trust domain by
// the roots of its own, and nobody else: a SPIFFE bundle map. It has no certificate. A
// trust domain without roots has no members that are verified, and an empty map, or nil,
// verifies nobody (gRFC A87). The error is about a trust domain without a name.
func NewBundles(roots map[string][]*x509.Certificate) (*Identity, error) {
	if _, ok := roots[""]; ok {
		return nil, errors.New("bundles: a trust domain has no name")
	}
	return (&Identity{}).WithBundles(roots), nil
}

// String says whose identity it is. It keeps fmt, logs and JSON from the key.
func (i *Identity) String() string {
	switch {
	case i == nil || len(i.Certificate.Certificate) == 0:
		return "roots"
	case i.ID.IsZero():
		return "a certificate without a SPIFFE ID"
	}
	return i.ID.String()
}

// GoString is [Identity.String].
func (i *Identity) GoString() string { return i.String() }

// MarshalText is [Identity.String].
func (i *Identity) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// WithFederated returns a copy of the identity that also verifies the members of
// other trust domains, each by the roots of its own. A trust domain without
// roots, the own one's, and the empty name are left out.
func (i *Identity) WithFederated(roots map[string][]*x509.Certificate) *Identity {
	federated := *i
	federated.Federated = make(map[string]*x509.CertPool, len(roots))
	federated.federated = make(map[string][]*x509.Certificate, len(roots))
	digest := sha256.New()
	_, _ = io.WriteString(digest, i.RootsKey)
	for _, domain := range slices.Sorted(maps.Keys(roots)) {
		if pool, key := rootPool(roots[domain]); pool != nil && domain != "" && domain != i.ID.TrustDomain() {
			federated.Federated[domain] = pool
			federated.federated[domain] = slices.Clone(roots[domain])
			fmt.Fprintf(digest, "%d %s %s", len(domain), domain, key)
		}
	}
	federated.RootsKey = hex.EncodeToString(digest.Sum(nil))
	return &federated
}

// WithBundles returns a copy of the identity that verifies the members of each trust
// domain, its own among them, by the roots of that trust domain, and nobody else: a
// SPIFFE bundle map (gRFC A87) in the place of Roots. A trust domain without roots and
// the empty name are left out; an empty map, or nil, verifies nobody.
func (i *Identity) WithBundles(roots map[string][]*x509.Certificate) *Identity {
	own := *i
	own.roots = slices.Clone(roots[i.ID.TrustDomain()])
	if i.ID.IsZero() {
		own.roots = nil
	}
	own.Roots, own.RootsKey = rootPool(own.roots)
	return own.WithFederated(roots)
}

// Bundles returns the roots of each trust domain whose members the identity
// verifies, the own one's with them, for whoever needs the certificates and not the
// pools. It is nil without federation, where no trust domain is held to roots of its
// own, and never nil with it, whoever is verified. What is withdrawn is not in it, see
// Revocation. The map is the caller's, the certificates must not be changed.
func (i *Identity) Bundles() map[string][]*x509.Certificate {
	if i.Federated == nil {
		return nil
	}
	bundles := make(map[string][]*x509.Certificate, len(i.Federated)+1)
	for domain := range i.Federated {
		bundles[domain] = slices.Clone(i.federated[domain])
	}
	if own := i.ID.TrustDomain(); own != "" && i.Roots != nil {
		bundles[own] = slices.Clone(i.roots)
	}
	return bundles
}

// rootsFor are the roots that verify a peer who claims an ID; nil verify nobody.
func (i *Identity) rootsFor(claimed ID) *x509.CertPool {
	if i.Federated == nil || !i.ID.IsZero() && claimed.TrustDomain() == i.ID.TrustDomain() {
		return i.Roots
	}
	return i.Federated[claimed.TrustDomain()]
}

func issuerKey(leaf *x509.Certificate, rest [][]byte) string {
	digest := sha256.New()
	for _, part := range append([][]byte{leaf.RawIssuer, leaf.AuthorityKeyId}, rest...) {
		sum := sha256.Sum256(part)
		digest.Write(sum[:])
	}
	return hex.EncodeToString(digest.Sum(nil))
}

// checkLeaf refuses what X509-SVID, section 4, forbids in a leaf.
func checkLeaf(leaf *x509.Certificate) error {
	switch {
	case leaf.IsCA:
		return errors.New("certificate is a CA certificate: want a leaf")
	case leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return errors.New("certificate may sign certificates: want a leaf")
	}
	return nil
}

func checkKey(leaf *x509.Certificate, key crypto.PrivateKey) error {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return fmt.Errorf("private key of type %T: want a crypto.Signer", key)
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(leaf.PublicKey) {
		return errors.New("private key does not belong to the certificate")
	}
	return nil
}

func rootPool(roots []*x509.Certificate) (*x509.CertPool, string) {
	if len(roots) == 0 {
		return nil, ""
	}
	pool := x509.NewCertPool()
	ders := make([][]byte, 0, len(roots))
	for _, root := range roots {
		pool.AddCert(root)
		ders = append(ders, root.Raw)
	}
	slices.SortFunc(ders, bytes.Compare)
	digest := sha256.New()
	for _, der := range slices.CompactFunc(ders, bytes.Equal) {
		sum := sha256.Sum256(der)
		digest.Write(sum[:])
	}
	return pool, hex.EncodeToString(digest.Sum(nil))
}
