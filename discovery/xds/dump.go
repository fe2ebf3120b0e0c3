package xds

import "time"

// ResourceState is what a [Source] knows of one xDS resource.
type ResourceState struct {
	// Type is the short name of the type, "Cluster", and TypeURL the long one.
	Type    string
	TypeURL string
	Name    string
	// State is the name that CSDS has for it (gRFC A40, A88): "REQUESTED",
	// "DOES_NOT_EXIST", "ACKED", "NACKED", "RECEIVED_ERROR" or "TIMEOUT".
	State string
	// Version is the version in force, "" without one.
	Version string
	// RejectedVersion is the version that was rejected last, "" if a valid one
	// came since. Rejections counts all that were rejected.
	RejectedVersion string
	Rejections      int
	// Err is what is wrong with the resource, nil if all is well.
	Err error
	// LastKnownGood tells that the version in force is from disk: the control plane
	// has not sent one since the start. State is what it says of it.
	LastKnownGood bool
	// Updated is when any of this last changed.
	Updated time.Time
}

// Dump returns the state of every resource that is watched, sorted by type in
// the order of the first watch, and by name.
func (s *Source) Dump() []ResourceState {
	dump := s.client.Dump()
	states := make([]ResourceState, len(dump))
	for i := range dump {
		d := &dump[i]
		states[i] = ResourceState{
			Type:            d.Type,
			TypeURL:         d.TypeURL,
			Name:            d.Name,
			State:           d.State.String(),
			Version:         d.Version,
			RejectedVersion: d.RejectedVersion,
			Rejections:      d.Rejections,
			Err:             d.Err,
			Updated:         d.Updated,
		}
		if s.keeper != nil {
			s.keeper.describe(&states[i])
		}
	}
	return states
}
