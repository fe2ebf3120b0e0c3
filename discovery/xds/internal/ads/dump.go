package ads

import (
	"maps"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// State is the state of a resource, as CSDS names it (gRFC A40, A88).
type State uint8

const (
	// StateRequested means asked for, or about to be; nothing is known.
	StateRequested State = iota
	// StateDoesNotExist means that the server says so, or did not answer in
	// time. A version that was accepted earlier may still be in force.
	StateDoesNotExist
	// StateAcked means that the last version that came is in force.
	StateAcked
	// StateNacked means that the last version that came was rejected.
	StateNacked
	// StateReceivedError means that the server reported an error for the
	// resource.
	StateReceivedError
	// StateTimeout means that the server did not answer in time, which counts
	// as a transient error.
	StateTimeout
)

// String returns the name that CSDS uses.
func (s State) String() string {
	switch s {
	case StateRequested:
		return "REQUESTED"
	case StateDoesNotExist:
		return "DOES_NOT_EXIST"
	case StateAcked:
		return "ACKED"
	case StateNacked:
		return "NACKED"
	case StateReceivedError:
		return "RECEIVED_ERROR"
	case StateTimeout:
		return "TIMEOUT"
	}
	return "UNKNOWN"
}

// ResourceState is what a [Client] knows of one resource.
type ResourceState struct {
	// TypeURL and Type are the type's URL and short name.
	TypeURL string
	Type    string
	Name    string
	State   State
	// Version is the version in force, Resource its value and Raw the bytes that
	// it came in; "" and nil without.
	Version  string
	Resource any
	Raw      []byte
	// Err is what is wrong with the resource, the connection apart.
	Err error
	// RejectedVersion is the version that was rejected last, "" if a good one
	// came since. Rejections counts all that were ever rejected.
	RejectedVersion string
	Rejections      int
	// RejectedRaw are the bytes of RejectedVersion, nil if they could not be read
	// or are more than a mebibyte. Failed is when Err came, zero without.
	RejectedRaw []byte
	Failed      time.Time
	// Updated is when the state last changed.
	Updated time.Time
}

// Node returns what is sent about this process, for reading only.
func (c *Client) Node() *corev3.Node { return c.node }

// Dump returns the state of everything that is watched, by type in the order of
// the first watch, and by name.
func (c *Client) Dump() []ResourceState {
	c.mu.Lock()
	defer c.mu.Unlock()
	var states []ResourceState
	for _, ts := range c.order {
		for _, name := range slices.Sorted(maps.Keys(ts.entries)) {
			e := ts.entries[name]
			if _, kept := c.kept[e]; kept || e.collective() {
				continue
			}
			states = append(states, ResourceState{
				TypeURL:         ts.URL,
				Type:            ts.Name,
				Name:            name,
				State:           e.state,
				Version:         e.version,
				Resource:        e.resource,
				Raw:             e.raw,
				RejectedRaw:     e.rejectedRaw,
				Failed:          e.failed,
				Err:             e.err,
				RejectedVersion: e.rejectedVersion,
				Rejections:      e.rejections,
				Updated:         e.updated,
			})
		}
	}
	return states
}
