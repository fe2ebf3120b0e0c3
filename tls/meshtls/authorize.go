package meshtls

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Authorizer decides whether a verified peer may be talked to: nil allows it,
// an error refuses it. peer is the ID in cert. It runs in every handshake, and
// must not block.
type Authorizer func(peer ID, cert *x509.Certificate) error

// AuthorizeAny allows every peer that the roots verify.
func AuthorizeAny() Authorizer {
	return func(ID, *x509.Certificate) error { return nil }
}

// AuthorizeMemberOf allows every peer of a trust domain, e.g. "cluster.local".
// The name is compared as a whole; an empty name allows nobody.
func AuthorizeMemberOf(trustDomain string) Authorizer {
	return func(peer ID, _ *x509.Certificate) error {
		if trustDomain == "" || peer.TrustDomain() != trustDomain {
			return fmt.Errorf("want a member of trust domain %q", trustDomain)
		}
		return nil
	}
}

// AuthorizeIDs allows the given peers. Without any, it allows nobody.
func AuthorizeIDs(ids ...ID) Authorizer {
	matchers := make([]SANMatcher, len(ids))
	for i, id := range ids {
		matchers[i] = ExactSAN(id.String())
	}
	return AuthorizeSANs(matchers)
}

// SANMatcher matches the URI SAN of a peer's certificate, which is its SPIFFE
// ID. Names of other types (DNS, email, IP, other) and the subject are never
// matched: a certificate that carries an allowed name in the wrong place is
// refused.
type SANMatcher struct {
	// Match is asked with the SPIFFE ID. A nil Match matches nothing.
	Match func(uri string) bool
	// Text describes the matcher in the error, e.g. `prefix "spiffe://td/"`.
	Text string
}

// ExactSAN matches one SPIFFE ID. An empty one matches nothing.
func ExactSAN(uri string) SANMatcher {
	return SANMatcher{
		Match: func(san string) bool { return uri != "" && san == uri },
		Text:  strconv.Quote(uri),
	}
}

// AuthorizeSANs allows a peer that one of the matchers matches. Without any, it
// allows nobody; whether an empty list in a configuration means "any" is for
// the caller to decide (gRFC A29 reads it so).
func AuthorizeSANs(matchers []SANMatcher) Authorizer {
	matchers = slices.Clone(matchers)
	texts := make([]string, len(matchers))
	for i, matcher := range matchers {
		texts[i] = matcher.Text
	}
	refusal := errors.New("want " + strings.Join(texts, " or "))
	if len(matchers) == 0 {
		refusal = errors.New("no peer is allowed")
	}
	return func(peer ID, _ *x509.Certificate) error {
		uri := peer.String()
		for _, matcher := range matchers {
			if matcher.Match != nil && matcher.Match(uri) {
				return nil
			}
		}
		return refusal
	}
}
