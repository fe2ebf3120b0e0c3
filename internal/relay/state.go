package relay

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	"github.com/inboardmesh/inboard/observe"
)

// Guests is the state of all guests, in the order in which they came.
func (r *Relay) Guests() []observe.GuestState {
	r.mu.Lock()
	guests := slices.Collect(maps.Keys(r.guests))
	r.mu.Unlock()
	states := make([]observe.GuestState, 0, len(guests))
	for _, g := range guests {
		states = append(states, g.state())
	}
	slices.SortFunc(states, func(a, b observe.GuestState) int { return cmp.Compare(a.Number, b.Number) })
	return states
}

func (g *guest) state() observe.GuestState {
	g.mu.Lock()
	defer g.mu.Unlock()
	state := observe.GuestState{Number: g.number, Since: g.since}
	for _, name := range slices.Sorted(maps.Keys(g.follows)) {
		f := g.follows[name]
		l := observe.GuestListener{Name: name, Server: f.server}
		if s := f.last; s != nil {
			l.Known, l.Refused, l.Notes = true, s.listener.refused, slices.Clone(s.notes)
		}
		state.Listeners = append(state.Listeners, l)
	}
	for _, url := range []string{listenerURL, clusterURL, endpointURL} {
		t := g.types[url]
		state.Types = append(state.Types, observe.GuestType{
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
