package meshtls

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
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

// AuthorizeOwnTrustDomain allows every peer of the trust domain in which source
// has its identity at the time of the handshake. While source has none, it
// allows nobody.
func AuthorizeOwnTrustDomain(source Source) Authorizer {
	return func(peer ID, cert *x509.Certificate) error {
		own, err := source.Identity()
		if err != nil {
			return fmt.Errorf("own trust domain: %w", err)
		}
		if own.ID.IsZero() {
			return errors.New("own trust domain: the source has no certificate with a SPIFFE ID")
		}
		return AuthorizeMemberOf(own.ID.TrustDomain())(peer, cert)
	}
}

// AuthorizeIDs allows the given peers. Without any, it allows nobody.
func AuthorizeIDs(ids ...ID) Authorizer {
	ids = slices.Clone(ids)
	return func(peer ID, _ *x509.Certificate) error {
		if peer.IsZero() || !slices.Contains(ids, peer) {
			return fmt.Errorf("want one of %q", ids)
		}
		return nil
	}
}

// SANMatcher matches the URI SAN of a peer's certificate, which is its SPIFFE
// ID. Names of other types (DNS, email, IP, other) and the subject are never
// matched: a certificate that carries an allowed name in the wrong place is
// refused.
type SANMatcher func(uri string) bool

// AuthorizeSANs allows a peer that one of the matchers matches. Without any, it
// allows nobody; whether an empty list in a configuration means "any" is for
// the caller to decide (gRFC A29 reads it so).
func AuthorizeSANs(matchers []SANMatcher) Authorizer {
	matchers = slices.Clone(matchers)
	return func(peer ID, _ *x509.Certificate) error {
		uri := peer.String()
		for _, match := range matchers {
			if match(uri) {
				return nil
			}
		}
		return fmt.Errorf("URI SAN matches none of the %d allowed names", len(matchers))
	}
}
