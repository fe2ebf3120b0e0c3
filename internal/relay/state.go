package relay

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"
)

// GuestState is what the mesh knows of a native gRPC client or server in this
// process: of one xDS client of grpc-go, which has one for each target and one for
// all servers.
type GuestState struct {
	// Number counts the guests of a mesh, in the order in which they came.
	Number uint64
	// Since is when it came.
	Since time.Time
	// Listeners are what it follows: destinations, and addresses of this process.
	Listeners []GuestListener
	// Types is what it was sent, by type.
	Types []GuestType
}

// GuestListener is a Listener that a guest asks for.
type GuestListener struct {
	Name string
	// Server tells that it is for an address of this process.
	Server bool
	// Known is false while nothing is known of it.
	Known bool
	// Refused tells that it cannot be used at all.
	Refused bool
	// Notes are what the guest does not get, those that make calls fail first.
	Notes []Note
}

// GuestType is what a guest was sent of a type.
type GuestType struct {
	// Type is the short name, "Cluster".
	Type string
	// Names is how many resources it asks for, Sent how many of them it was sent.
	Names, Sent int
	// Version is the last that was sent, Accepted the last that the guest
	// acknowledged, both "" before the first. They are not the control plane's.
	Version, Accepted string
	// Rejected is why it rejected a later one, "" if it did not. What it is refused
	// it has to reject: see the notes.
	Rejected string
	// Rejections counts.
	Rejections int
}

// Guests is the state of all guests, in the order in which they came.
func (r *Relay) Guests() []GuestState {
	r.mu.Lock()
	guests := slices.Collect(maps.Keys(r.guests))
	r.mu.Unlock()
	states := make([]GuestState, 0, len(guests))
	for _, g := range guests {
		states = append(states, g.state())
	}
	slices.SortFunc(states, func(a, b GuestState) int { return cmp.Compare(a.Number, b.Number) })
	return states
}

func (g *guest) state() GuestState {
	g.mu.Lock()
	defer g.mu.Unlock()
	state := GuestState{Number: g.number, Since: g.since}
	for _, name := range slices.Sorted(maps.Keys(g.follows)) {
		f := g.follows[name]
		l := GuestListener{Name: name, Server: f.server}
		if s := f.last; s != nil {
			l.Known, l.Refused, l.Notes = true, s.listener.refused, slices.Clone(s.notes)
		}
		state.Listeners = append(state.Listeners, l)
	}
	for _, url := range []string{listenerURL, clusterURL, endpointURL} {
		t := g.types[url]
		state.Types = append(state.Types, GuestType{
			Type: typeNames[url], Names: len(t.subscribed), Sent: len(t.sent),
			Version: version(t.version), Accepted: version(t.accepted), Rejected: t.rejected, Rejections: t.rejections,
		})
	}
	return state
}

func version(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}
