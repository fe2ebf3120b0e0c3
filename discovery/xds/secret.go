package xds

import (
	"fmt"
	"maps"
	"slices"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds/internal/decode"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// secrets are those that TLS settings name, followed over the stream that brought the
// settings (SDS over ADS). They are guarded by the follower's lock. One that the
// control plane withdraws stays in force, as other resources do, and ends with its
// certificate.
type secrets map[discovery.SecretUse]*resource[meshtls.Identity]

// followLocked follows exactly the secrets of the given uses.
func (s secrets) followLocked(client watchClient, f follower, uses []discovery.SecretUse) {
	for _, use := range uses {
		if s[use] == nil {
			s[use] = watchLocked(client, f, decode.SecretURL, use.Name, holding(use))
		}
	}
	for use, r := range s {
		if !slices.Contains(uses, use) {
			r.leaveLocked()
			delete(s, use)
		}
	}
}

// holding accepts a secret that holds what a use is for.
func holding(use discovery.SecretUse) func(any) (*meshtls.Identity, error) {
	return func(decoded any) (*meshtls.Identity, error) {
		identity, err := asIs[meshtls.Identity](decoded)
		switch {
		case err != nil:
			return nil, err
		case use.Roots && identity.Roots == nil:
			return nil, fmt.Errorf("the secret %q holds a certificate: expected a validation_context", use.Name)
		case !use.Roots && len(identity.Certificate.Certificate) == 0:
			return nil, fmt.Errorf("the secret %q holds roots: expected a tls_certificate", use.Name)
		}
		return identity, nil
	}
}

// values returns the secrets of the given uses; complete is false if one is missing,
// and err is why, nil if it is on its way.
func (s secrets) values(uses []discovery.SecretUse) (values discovery.Secrets, complete bool, err error) {
	if len(uses) == 0 {
		return nil, true, nil
	}
	values = make(discovery.Secrets, len(uses))
	for _, use := range uses {
		r := s[use]
		if r == nil || r.value == nil {
			if r != nil {
				err = r.err
			}
			return nil, false, err
		}
		values[use.Name] = r.value
	}
	return values, true, nil
}

// troubled reports whether anything is wrong with a secret.
func (s secrets) troubled() bool {
	for _, r := range s {
		if r != nil && r.err != nil {
			return true
		}
	}
	return false
}

// ambient adds what is wrong with secrets that are in force.
func (s secrets) ambient(found *troubles) {
	for _, use := range slices.SortedFunc(maps.Keys(s), compareUses) {
		found.add(referenced(s[use].err))
	}
}

// waitingFor returns what is wrong with the first secret that is missing.
func (s secrets) waitingFor() error {
	for _, use := range slices.SortedFunc(maps.Keys(s), compareUses) {
		if r := s[use]; r.value == nil && r.err != nil {
			return r.err
		}
	}
	return nil
}

func compareUses(a, b discovery.SecretUse) int {
	switch {
	case a.Name != b.Name && a.Name < b.Name, a.Name == b.Name && b.Roots && !a.Roots:
		return -1
	case a == b:
		return 0
	}
	return 1
}

// leaveLocked ends the watches.
func (s secrets) leaveLocked() {
	for use, r := range s {
		r.leaveLocked()
		delete(s, use)
	}
}
