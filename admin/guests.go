package admin

import (
	"time"

	"github.com/inboardmesh/inboard/mesh"
)

// guest is a [mesh.GuestState] as JSON.
type guest struct {
	Number    uint64          `json:"number"`
	Since     time.Time       `json:"since"`
	Listeners []guestListener `json:"listeners"`
	Types     []guestType     `json:"types"`
}

type guestListener struct {
	Name   string `json:"name"`
	Server bool   `json:"server,omitempty"`
	// State is "WAITING", "SERVED" or "REFUSED".
	State string      `json:"state"`
	Notes []guestNote `json:"notes,omitempty"`
}

type guestNote struct {
	Where   string `json:"where"`
	What    string `json:"what"`
	Refused bool   `json:"refused,omitempty"`
}

type guestType struct {
	Type       string `json:"type"`
	Names      int    `json:"names"`
	Sent       int    `json:"sent"`
	Version    string `json:"version,omitempty"`
	Accepted   string `json:"accepted,omitempty"`
	Rejected   string `json:"rejected,omitempty"`
	Rejections int    `json:"rejections,omitempty"`
}

func guestsOf(states []mesh.GuestState) []guest {
	guests := make([]guest, 0, len(states))
	for i := range states {
		s := &states[i]
		g := guest{Number: s.Number, Since: s.Since, Listeners: make([]guestListener, 0, len(s.Listeners))}
		for _, l := range s.Listeners {
			one := guestListener{Name: l.Name, Server: l.Server, State: "SERVED"}
			switch {
			case l.Refused:
				one.State = "REFUSED"
			case !l.Known:
				one.State = "WAITING"
			}
			for _, n := range l.Notes {
				one.Notes = append(one.Notes, guestNote(n))
			}
			g.Listeners = append(g.Listeners, one)
		}
		for _, t := range s.Types {
			g.Types = append(g.Types, guestType(t))
		}
		guests = append(guests, g)
	}
	return guests
}
