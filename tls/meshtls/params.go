package meshtls

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Versions are what a connection may negotiate. The zero value is what members
// of a mesh speak to each other: TLS 1.3.
type Versions struct {
	// Min and Max are versions of crypto/tls; 0 is TLS 1.3, and for Max what is
	// newest. Below TLS 1.2 nothing is spoken.
	Min, Max uint16
	// CipherSuites are those of TLS 1.2; nil is what crypto/tls thinks best.
	// Those of TLS 1.3 cannot be chosen.
	CipherSuites []uint16
	// Curves are the key exchanges; nil is what crypto/tls thinks best.
	Curves []tls.CurveID
}

func (v Versions) apply(config *tls.Config) error {
	config.MinVersion, config.MaxVersion = v.Min, v.Max
	if v.Min == 0 {
		config.MinVersion = tls.VersionTLS13
		if v.Max != 0 {
			config.MinVersion = min(v.Max, tls.VersionTLS13)
		}
	}
	switch {
	case config.MinVersion < tls.VersionTLS12:
		return errors.New("TLS versions below 1.2 are not spoken")
	case v.Max != 0 && v.Max < config.MinVersion:
		return errors.New("the newest TLS version is below the oldest")
	}
	config.CipherSuites, config.CurvePreferences = slices.Clone(v.CipherSuites), slices.Clone(v.Curves)
	return nil
}

// AuthorizePinned allows a peer that next allows and whose certificate, or the
// public key in it, has one of the given SHA-256 digests: of the certificate as
// DER, and of its SubjectPublicKeyInfo.
func AuthorizePinned(certificates, keys [][sha256.Size]byte, next Authorizer) Authorizer {
	certificates, keys = slices.Clone(certificates), slices.Clone(keys)
	return func(peer ID, cert *x509.Certificate) error {
		if !slices.Contains(certificates, sha256.Sum256(cert.Raw)) && !slices.Contains(keys, sha256.Sum256(cert.RawSubjectPublicKeyInfo)) {
			return fmt.Errorf("certificate is none of the %d that are pinned", len(certificates)+len(keys))
		}
		return next(peer, cert)
	}
}

// NewSystemRoots returns a source of the roots of the operating system, for
// servers outside the mesh. They are read once.
func NewSystemRoots() Source { return &systemRoots{} }

type systemRoots struct {
	once     sync.Once
	identity *Identity
	err      error
}

// Identity returns the roots, or why they cannot be read.
func (s *systemRoots) Identity() (*Identity, error) {
	s.once.Do(func() {
		pool, err := x509.SystemCertPool()
		if err != nil {
			s.err = fmt.Errorf("roots of the system: %w", err)
			return
		}
		s.identity = &Identity{Roots: pool, RootsKey: "system"}
	})
	return s.identity, s.err
}

// Changed returns a channel that is never closed.
func (*systemRoots) Changed() <-chan struct{} { return nil }
