package meshtls

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"sync/atomic"
	"time"
)

// Revocation is what authorities say of certificates that they withdrew before
// their end: their revocation lists (CRL, RFC 5280, section 5). nil withdraws
// nothing. It is immutable, and made by [NewRevocation].
type Revocation struct {
	lists    []revocationList
	leafOnly bool
	key      string
}

type revocationList struct {
	*x509.RevocationList

	serials map[string]struct{}
	// signed and unsigned are the issuers of the list's name that were last found to
	// have signed it, and not to. A list may be large, and to hash it in each handshake
	// would be dear.
	signed, unsigned *atomic.Pointer[x509.Certificate]
}

// signedBy returns nil if issuer has signed the list.
func (l *revocationList) signedBy(issuer *x509.Certificate) error {
	if last := l.signed.Load(); last != nil && last.Equal(issuer) {
		return nil
	}
	if last := l.unsigned.Load(); last != nil && last.Equal(issuer) {
		return errNotItsList
	}
	if err := l.CheckSignatureFrom(issuer); err != nil {
		l.unsigned.Store(issuer)
		return fmt.Errorf("%w: %w", errNotItsList, err)
	}
	l.signed.Store(issuer)
	return nil
}

// NewRevocation builds a revocation of lists. With any list, every certificate of a
// peer's chain has to be covered by a list of its issuer that is valid now, signed
// by it, and does not name it; with leafOnly that holds for the peer's own
// certificate alone (Envoy's crl and only_verify_leaf_cert_crl). So a list that was
// not renewed in time refuses everybody.
//
// A list that means more than this package understands, such as one of changes only
// or one that speaks for other issuers, is an error. No list is no error.
func NewRevocation(lists []*x509.RevocationList, leafOnly bool) (*Revocation, error) {
	r := &Revocation{leafOnly: leafOnly}
	digest := sha256.New()
	for i, list := range lists {
		if list.NextUpdate.IsZero() {
			return nil, fmt.Errorf("revocation list %d: does not say when the next one is due", i+1)
		}
		for _, extension := range list.Extensions {
			switch {
			case extension.Critical:
				return nil, fmt.Errorf("revocation list %d: has the critical extension %s, which is not supported", i+1, extension.Id)
			case extension.Id.Equal(deltaIndicator), extension.Id.Equal(distributionPoint):
				// RFC 5280 wants them critical: nobody may take such a list for a whole one.
				return nil, fmt.Errorf("revocation list %d: has the extension %s: is a part of a list, which is not supported", i+1, extension.Id)
			}
		}
		compiled := revocationList{
			RevocationList: list, serials: make(map[string]struct{}, len(list.RevokedCertificateEntries)),
			signed: new(atomic.Pointer[x509.Certificate]), unsigned: new(atomic.Pointer[x509.Certificate]),
		}
		for j := range list.RevokedCertificateEntries {
			entry := &list.RevokedCertificateEntries[j]
			for _, extension := range entry.Extensions {
				if extension.Critical {
					return nil, fmt.Errorf("revocation list %d: entry %d has the critical extension %s, which is not supported", i+1, j+1, extension.Id)
				}
			}
			compiled.serials[serialKey(entry.SerialNumber)] = struct{}{}
		}
		r.lists = append(r.lists, compiled)
		sum := sha256.Sum256(list.Raw)
		digest.Write(sum[:])
	}
	r.key = fmt.Sprintf("%t %s", leafOnly, hex.EncodeToString(digest.Sum(nil)))
	return r, nil
}

func serialKey(serial *big.Int) string { return serial.Text(16) }

// Key is equal for revocations that say the same; "" is nil's.
func (r *Revocation) Key() string {
	if r == nil {
		return ""
	}
	return r.key
}

// WithRevocation returns a copy of the identity whose roots refuse what revocation
// withdraws. It has another RootsKey, so that what was decided under the old one is
// decided anew.
func (i *Identity) WithRevocation(revocation *Revocation) *Identity {
	revoking := *i
	revoking.Revocation = revocation
	sum := sha256.Sum256([]byte(i.RootsKey + " " + revocation.Key()))
	revoking.RootsKey = hex.EncodeToString(sum[:])
	return &revoking
}

// The extensions of a list that holds a part of what there is to say: the changes since
// another one, and what concerns some certificates or reasons only (RFC 5280, sections
// 5.2.4 and 5.2.5).
var (
	deltaIndicator    = asn1.ObjectIdentifier{2, 5, 29, 27}
	distributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
)

// errNotItsList is a list of the issuer's name that somebody else has signed.
var errNotItsList = errors.New("it is signed by somebody else")

// errRevoked is wrapped by the error for a certificate that a list names.
var errRevoked = errors.New("certificate was revoked")

// checkRevocation returns nil if one of the chains is covered by the lists of both
// and none of them names a certificate of it.
func checkRevocation(chains [][]*x509.Certificate, now time.Time, both ...*Revocation) error {
	var (
		lists    []revocationList
		leafOnly bool
	)
	for _, r := range both {
		if r != nil {
			lists = append(lists, r.lists...)
			leafOnly = leafOnly || r.leafOnly
		}
	}
	if len(lists) == 0 {
		return nil
	}
	err := errors.New("no chain")
	for _, chain := range chains {
		if err = checkChain(chain, lists, leafOnly, now); err == nil {
			return nil
		}
	}
	return err
}

// checkChain looks each certificate up that an issuer stands above. The root is
// trusted by name: it goes when it is taken away.
func checkChain(chain []*x509.Certificate, lists []revocationList, leafOnly bool, now time.Time) error {
	for i, cert := range chain[:len(chain)-1] {
		if leafOnly && i > 0 {
			break
		}
		if err := checkCertificate(cert, chain[i+1], lists, now); err != nil {
			return err
		}
	}
	return nil
}

func checkCertificate(cert, issuer *x509.Certificate, lists []revocationList, now time.Time) error {
	err := errors.New("there is none")
	covered := false
	for i := range lists {
		list := &lists[i]
		if !bytes.Equal(list.RawIssuer, issuer.RawSubject) {
			continue
		}
		if signature := list.signedBy(issuer); signature != nil {
			err = signature
			continue
		}
		// A list that is too old still knows of those that it names.
		if _, revoked := list.serials[serialKey(cert.SerialNumber)]; revoked {
			return fmt.Errorf("%w: serial number %s, issuer %q", errRevoked, serialKey(cert.SerialNumber), issuer.Subject)
		}
		switch {
		case now.Before(list.ThisUpdate):
			err = fmt.Errorf("it is not valid before %s", list.ThisUpdate.Format(time.RFC3339))
		case now.After(list.NextUpdate):
			err = fmt.Errorf("its successor was due at %s", list.NextUpdate.Format(time.RFC3339))
		default:
			covered = true
		}
	}
	if !covered {
		return fmt.Errorf("revocation list of issuer %q: %w", issuer.Subject, err)
	}
	return nil
}
