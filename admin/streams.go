package admin

import (
	"time"

	"github.com/inboardmesh/inboard/mesh"
)

// stream is a [mesh.StreamState] as JSON.
type stream struct {
	Server string `json:"server"`
	// State is "CONNECTED", "FAILING" or, if nothing is asked at present, "IDLE".
	State    string    `json:"state"`
	Since    time.Time `json:"since"`
	Failures int       `json:"failures,omitempty"`
	Error    string    `json:"error,omitempty"`
}

func streamsOf(states []mesh.StreamState) []stream {
	streams := make([]stream, 0, len(states))
	for i := range states {
		s := &states[i]
		one := stream{Server: s.Server, State: "IDLE", Since: s.Since, Failures: s.Failures}
		switch {
		case s.Connected:
			one.State = "CONNECTED"
		case s.Err != nil:
			one.State, one.Error = "FAILING", s.Err.Error()
		}
		streams = append(streams, one)
	}
	return streams
}

// identity is a [mesh.IdentityState] as JSON.
type identity struct {
	Name     string    `json:"name"`
	ID       string    `json:"id,omitempty"`
	NotAfter time.Time `json:"notAfter,omitzero"`
	// TrustDomains is absent where they are not told apart, and empty where nobody is
	// verified.
	TrustDomains []string `json:"trustDomains,omitzero"`
	Error        string   `json:"error,omitempty"`
}

func identitiesOf(states []mesh.IdentityState) []identity {
	identities := make([]identity, 0, len(states))
	for _, s := range states {
		one := identity{Name: s.Name, ID: s.ID, NotAfter: s.NotAfter, TrustDomains: s.TrustDomains}
		if s.Err != nil {
			one.Error = s.Err.Error()
		}
		identities = append(identities, one)
	}
	return identities
}
