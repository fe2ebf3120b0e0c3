package meshtls

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// maxIDLength is the longest SPIFFE ID that implementations must support
// (SPIFFE-ID, section 2.3); a longer one is refused.
const maxIDLength = 2048

// ID is the SPIFFE ID of a workload: a small comparable value, usable as a map
// key. The zero ID is nobody. An ID made by [ParseID] or [NewID] is valid for
// ever.
type ID struct {
	id spiffeid.ID
}

// ParseID parses a workload's SPIFFE ID such as
// "spiffe://cluster.local/ns/shop/sa/payment". Any path is allowed, but there
// must be one: the ID of a trust domain itself names no workload (X509-SVID,
// section 2).
func ParseID(s string) (ID, error) {
	if len(s) > maxIDLength {
		return ID{}, fmt.Errorf("SPIFFE ID of %d bytes: longer than %d", len(s), maxIDLength)
	}
	id, err := spiffeid.FromString(s)
	if err != nil {
		return ID{}, fmt.Errorf("SPIFFE ID %q: %w", s, err)
	}
	if id.Path() == "" {
		return ID{}, fmt.Errorf("SPIFFE ID %q: path is missing: a trust domain is not a workload", s)
	}
	return ID{id: id}, nil
}

// MustID is [ParseID] for literals and tests; it panics on an invalid ID.
func MustID(s string) ID {
	id, err := ParseID(s)
	if err != nil {
		panic(err) //nolint:forbidigo // for literals and tests, as its name says
	}
	return id
}

// NewID returns Istio's form of an identity,
// "spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT".
func NewID(trustDomain, namespace, serviceAccount string) (ID, error) {
	// spiffeid would also take "spiffe://td/path" for a trust domain.
	if strings.ContainsAny(trustDomain, ":/") {
		return ID{}, fmt.Errorf("trust domain %q: want a name such as %q", trustDomain, "cluster.local")
	}
	td, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return ID{}, fmt.Errorf("trust domain %q: %w", trustDomain, err)
	}
	if err := spiffeid.ValidatePathSegment(namespace); err != nil {
		return ID{}, fmt.Errorf("namespace %q: %w", namespace, err)
	}
	if err := spiffeid.ValidatePathSegment(serviceAccount); err != nil {
		return ID{}, fmt.Errorf("service account %q: %w", serviceAccount, err)
	}
	id, err := spiffeid.FromSegments(td, "ns", namespace, "sa", serviceAccount)
	if err != nil {
		return ID{}, fmt.Errorf("SPIFFE ID of %q in %q: %w", serviceAccount, namespace, err)
	}
	if n := len(id.String()); n > maxIDLength {
		return ID{}, fmt.Errorf("SPIFFE ID of %d bytes: longer than %d", n, maxIDLength)
	}
	return ID{id: id}, nil
}

// String returns the ID as a URI, "" for the zero ID.
func (id ID) String() string { return id.id.String() }

// MarshalText returns the ID as a URI, so that logs and JSON show it.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// TrustDomain returns the name of the trust domain, e.g. "cluster.local".
func (id ID) TrustDomain() string { return id.id.TrustDomain().Name() }

// Namespace returns NS of an ID with the path "/ns/NS/sa/SA", else "".
func (id ID) Namespace() string {
	namespace, _ := id.istio()
	return namespace
}

// ServiceAccount returns SA of an ID with the path "/ns/NS/sa/SA", else "".
func (id ID) ServiceAccount() string {
	_, serviceAccount := id.istio()
	return serviceAccount
}

// IsZero reports whether the ID is nobody.
func (id ID) IsZero() bool { return id.id.IsZero() }

func (id ID) istio() (namespace, serviceAccount string) {
	rest, ok := strings.CutPrefix(id.id.Path(), "/ns/")
	if !ok {
		return "", ""
	}
	namespace, rest, _ = strings.Cut(rest, "/")
	serviceAccount, ok = strings.CutPrefix(rest, "sa/")
	if !ok || strings.Contains(serviceAccount, "/") {
		return "", ""
	}
	return namespace, serviceAccount
}

// certificateID returns the SPIFFE ID of a leaf certificate, which must have
// exactly one URI SAN (X509-SVID, section 2). SANs of other types and the
// subject are never looked at.
func certificateID(leaf *x509.Certificate) (ID, error) {
	switch len(leaf.URIs) {
	case 0:
		return ID{}, errors.New("certificate has no URI SAN: want a SPIFFE ID")
	case 1:
		return ParseID(leaf.URIs[0].String())
	}
	return ID{}, fmt.Errorf("certificate has %d URI SANs: want exactly one", len(leaf.URIs))
}
