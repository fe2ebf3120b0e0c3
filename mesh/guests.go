package mesh

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/inboardmesh/inboard/internal/relay"
	"github.com/inboardmesh/inboard/observe"
)

// GuestState is what the mesh knows of a native gRPC client or server that is its
// guest.
type GuestState = observe.GuestState

// guests is the relay, once somebody needs it.
type guests struct {
	mu     sync.Mutex
	relay  *relay.Relay // guarded by mu
	closed bool         // guarded by mu
}

// Guests is the state of the native gRPC clients and servers that get their
// configuration from the mesh, see package nativegrpc: what they were sent, what
// they rejected, and what they do not get as it was configured. It is empty
// without any. Safe for concurrent use.
func (m *Mesh) Guests() []GuestState {
	m.guests.mu.Lock()
	r := m.guests.relay
	m.guests.mu.Unlock()
	if r == nil {
		return nil
	}
	return r.Guests()
}

// Relay is where native gRPC gets its configuration from. It is for package
// nativegrpc, starts at the first call and ends with the mesh.
func (m *Mesh) Relay() (*relay.Relay, error) {
	m.guests.mu.Lock()
	defer m.guests.mu.Unlock()
	if m.guests.closed {
		return nil, errors.New("mesh: closed")
	}
	if m.guests.relay != nil {
		return m.guests.relay, nil
	}
	r, err := relay.New(relay.Options{
		Config: m.settings.bootstrap, Source: m.source,
		Identity: m.identity, Instances: slices.Sorted(maps.Keys(m.identities)),
		Hooks: m.settings.hooks, Logger: m.settings.logger,
	})
	if err != nil {
		return nil, fmt.Errorf("mesh: %w", err)
	}
	m.guests.relay = r
	return r, nil
}

// closeGuests ends the relay, if there is one.
func (m *Mesh) closeGuests() error {
	m.guests.mu.Lock()
	m.guests.closed = true
	r := m.guests.relay
	m.guests.mu.Unlock()
	if r == nil {
		return nil
	}
	return r.Close()
}
