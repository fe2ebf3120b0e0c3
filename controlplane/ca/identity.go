package ca

import (
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// DefaultTrustDomain is the trust domain of a CA that is not given one, as in
// Istio.
const DefaultTrustDomain = "cluster.local"

// Identity is who a workload is. In a certificate it is the SPIFFE ID
// spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT, as in Istio. It is
// comparable; the zero Identity is nobody.
type Identity struct {
	TrustDomain    string
	Namespace      string
	ServiceAccount string
}

// ParseIdentity reads a SPIFFE ID of Istio's form. The namespace and the
// service account must be names that Kubernetes would accept.
func ParseIdentity(uri string) (Identity, error) {
	parsed, err := spiffeid.FromString(uri)
	if err != nil {
		return Identity{}, fmt.Errorf("identity %q: %w", uri, err)
	}
	parts := strings.Split(parsed.Path(), "/")
	if len(parts) != 5 || parts[1] != "ns" || parts[3] != "sa" {
		return Identity{}, fmt.Errorf("identity %q: want spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT", uri)
	}
	id := Identity{
		TrustDomain:    parsed.TrustDomain().Name(),
		Namespace:      parts[2],
		ServiceAccount: parts[4],
	}
	return id, id.validate()
}

// String returns the SPIFFE ID.
func (id Identity) String() string {
	return "spiffe://" + id.TrustDomain + "/ns/" + id.Namespace + "/sa/" + id.ServiceAccount
}

func (id Identity) validate() error {
	if err := validateTrustDomain(id.TrustDomain); err != nil {
		return err
	}
	if len(id.Namespace) > 63 || !isDNSName(id.Namespace) || strings.Contains(id.Namespace, ".") {
		return fmt.Errorf("namespace %q: want a DNS label (lower case letters, digits and '-', at most 63)", id.Namespace)
	}
	if len(id.ServiceAccount) > 253 || !isDNSName(id.ServiceAccount) {
		return fmt.Errorf("service account %q: want a DNS name (lower case letters, digits, '-' and '.', at most 253)", id.ServiceAccount)
	}
	return nil
}

func validateTrustDomain(name string) error {
	td, err := spiffeid.TrustDomainFromString(name)
	if err != nil {
		return fmt.Errorf("trust domain %q: %w", name, err)
	}
	if td.Name() != name {
		return fmt.Errorf("trust domain %q: give the name only, as in %q", name, td.Name())
	}
	return nil
}

// isDNSName reports whether name is labels of lower case letters, digits and
// inner hyphens, joined by dots (RFC 1123, as Kubernetes reads it).
func isDNSName(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
				return false
			}
		}
	}
	return true
}
