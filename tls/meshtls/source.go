package meshtls

import (
	"errors"

	"github.com/inboardmesh/inboard/internal/watch"
)

// Source provides the identity of this workload, and the roots, over time. It
// is asked at every handshake, so it must answer from memory. Implementations
// are safe for concurrent use.
type Source interface {
	// Identity returns the identity of now, or why there is none.
	Identity() (*Identity, error)
	// Changed returns a channel that is closed at the next change of what
	// Identity returns. A caller who must not miss a change calls Changed
	// first and Identity after it.
	Changed() <-chan struct{}
}

// Static is a [Source] whose identity is set by the program: for tests, and for
// programs that get their certificates in their own way. The zero Static has no
// identity until [Static.Set]. Safe for concurrent use.
type Static struct {
	value watch.Value[*Identity]
}

var _ Source = (*Static)(nil)

// NewStatic returns a source with the given identity.
func NewStatic(identity *Identity) *Static {
	s := &Static{}
	s.Set(identity)
	return s
}

// Set replaces the identity; nil takes it away.
func (s *Static) Set(identity *Identity) { s.value.Store(identity) }

// Identity returns the identity of the last Set, and an error if that is nil.
func (s *Static) Identity() (*Identity, error) {
	identity := s.value.Load()
	if identity == nil {
		return nil, errors.New("static source: no identity was set")
	}
	return identity, nil
}

// Changed returns a channel that is closed at the next Set.
func (s *Static) Changed() <-chan struct{} {
	_, changed := s.value.Watch()
	return changed
}
