package mesh

import (
	"maps"
	"slices"
	"time"
)

// IdentityState is an identity of this process, as it is now.
type IdentityState struct {
	// Name is that of the certificate provider, as the bootstrap and the control plane
	// call it.
	Name string
	// ID is the SPIFFE ID of the certificate, "" without one. NotAfter is when the
	// certificate expires; zero without a certificate, for roots may be all that there
	// is.
	ID       string
	NotAfter time.Time
	// TrustDomains are those whose members are verified, each by the roots of its own
	// (a SPIFFE bundle map, or federation), sorted: empty if nobody is. nil is no such
	// distinction: there is one set of roots, or none.
	TrustDomains []string
	// Err is why there is no identity, nil if there is.
	Err error
}

// Identities is the state of every identity of the process, sorted by name: whether it
// has a certificate, for whom, and until when, and whom it verifies. There are none
// without certificate providers in the bootstrap and without [WithIdentity]. Keys are not
// in it. Safe for concurrent use.
func (m *Mesh) Identities() []IdentityState {
	states := make([]IdentityState, 0, len(m.identities))
	for _, name := range slices.Sorted(maps.Keys(m.identities)) {
		state := IdentityState{Name: name}
		identity, err := m.identities[name].Identity()
		if err != nil {
			state.Err = err
		} else {
			state.NotAfter = identity.NotAfter
			if bundles := identity.Bundles(); bundles != nil {
				state.TrustDomains = slices.AppendSeq(make([]string, 0, len(bundles)), maps.Keys(bundles))
				slices.Sort(state.TrustDomains)
			}
			if !identity.ID.IsZero() {
				state.ID = identity.ID.String()
			}
		}
		states = append(states, state)
	}
	return states
}
