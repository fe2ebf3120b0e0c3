package meshtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// verifier checks the peer of a completed handshake. It stands in
// VerifyConnection, which runs on resumed sessions too (VerifyPeerCertificate
// does not).
type verifier struct {
	roots     Source
	authorize Authorizer
	// usage is what the peer's certificate must be made for.
	usage x509.ExtKeyUsage
	// optional lets a peer through that presented no certificate at all.
	optional bool
	// outside lets a peer through whose certificate has no SPIFFE ID, if the
	// authorizer does.
	outside bool
	// revocation withdraws certificates, beside that of the roots; nil is none.
	revocation *Revocation
}

func (v *verifier) verify(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		if v.optional {
			return nil
		}
		return &HandshakeError{Reason: NoPeerCertificate}
	}
	leaf := state.PeerCertificates[0]
	// The claimed ID belongs into every refusal; its own error has to wait
	// until the chain is known to be good.
	id, idErr := certificateID(leaf)
	roots, err := v.roots.Identity()
	if err != nil {
		return &HandshakeError{Reason: NoRoots, Peer: id, Err: err}
	}
	if roots.Roots == nil && roots.Federated == nil {
		return &HandshakeError{Reason: NoRoots, Peer: id}
	}
	// A root vouches for the names of its own trust domain only (row BS2): what a
	// certificate claims decides which roots it is held against.
	anchors := roots.rootsFor(id)
	if anchors == nil {
		err := fmt.Errorf("no bundle of trust domain %q", id.TrustDomain())
		if idErr != nil {
			err = fmt.Errorf("no bundle: it is for the trust domain of the certificate: %w", idErr)
		}
		return &HandshakeError{Reason: UnknownAuthority, Peer: id, Err: err}
	}
	intermediates := x509.NewCertPool()
	for _, cert := range state.PeerCertificates[1:] {
		intermediates.AddCert(cert)
	}
	now := time.Now()
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots:         anchors,
		Intermediates: intermediates,
		KeyUsages:     []x509.ExtKeyUsage{v.usage},
		CurrentTime:   now,
	})
	if err != nil {
		return &HandshakeError{Reason: chainReason(err, now), Peer: id, Err: err}
	}
	if err := checkRevocation(chains, now, v.revocation, roots.Revocation); err != nil {
		return &HandshakeError{Reason: Revoked, Peer: id, Err: err}
	}
	if err := checkLeaf(leaf); err != nil {
		return &HandshakeError{Reason: WrongUsage, Peer: id, Err: err}
	}
	if idErr != nil && !v.outside {
		return &HandshakeError{Reason: InvalidID, Err: idErr}
	}
	if err := v.authorize(id, leaf); err != nil {
		return &HandshakeError{Reason: NotAuthorized, Peer: id, Err: err}
	}
	return nil
}

func chainReason(err error, now time.Time) Reason {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch invalid.Reason {
		case x509.Expired:
			if invalid.Cert != nil && now.Before(invalid.Cert.NotBefore) {
				return NotYetValid
			}
			return Expired
		case x509.IncompatibleUsage:
			return WrongUsage
		}
		return InvalidCertificate
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return UnknownAuthority
	}
	return InvalidCertificate
}

// ownCertificate returns the certificate to present now. An expired one is as
// good as none: every peer would refuse it, and could not tell us why.
func ownCertificate(source Source) (*tls.Certificate, error) {
	identity, err := source.Identity()
	if err != nil {
		return nil, &HandshakeError{Reason: NoIdentity, Err: err}
	}
	if len(identity.Certificate.Certificate) == 0 {
		return nil, &HandshakeError{Reason: NoIdentity, Err: errors.New("the source holds roots only")}
	}
	if now := time.Now(); now.After(identity.NotAfter) {
		return nil, &HandshakeError{
			Reason: NoIdentity,
			Err:    fmt.Errorf("certificate of %q expired at %s", identity.ID, identity.NotAfter.Format(time.RFC3339)),
		}
	}
	return &identity.Certificate, nil
}
