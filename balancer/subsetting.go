package balancer

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Subsetting gives each client of a cluster some of its endpoints only, so that
// the number of connections stays bounded where many clients meet many endpoints.
// All clients come to their parts by themselves, and what each has changes little
// when endpoints come and go.
//
// Clients that are numbered are taken in lots of as many as it needs to use every
// endpoint once: an endpoint has as many connections as there are lots, or one
// more, whatever the hashes. A client has from about Size to about twice as many
// endpoints, since the size of a lot is a power of two.
//
// Clients without a number take the Size endpoints whose addresses, hashed with
// their names, come first (gRFC A68): then the connections of an endpoint are as
// uneven as chance.
type Subsetting struct {
	// Size is how many endpoints of each priority a client has, whatever their
	// health; 0 is all of them.
	Size uint32
}

// Client is who picks from a part of the endpoints.
type Client struct {
	// Name tells a client without a number from others.
	Name string
	// Number, if Numbered is true, is the client's among all clients, counted from
	// 0 and without large gaps, such as the ordinal of a StatefulSet's pod.
	Number   uint32
	Numbered bool
}

// Choose returns the client's part of the endpoints. It changes nothing of what it
// is given. It costs time in proportion to the number of endpoints times its
// logarithm.
func (s Subsetting) Choose(client Client, localities []LocalityEndpoints) []LocalityEndpoints {
	if s.Size == 0 {
		return localities
	}
	sizes := make(map[uint32]int)
	for i := range localities {
		sizes[localities[i].Priority] += len(localities[i].Endpoints)
	}
	if !slices.ContainsFunc(localities, func(l LocalityEndpoints) bool { return sizes[l.Priority] > int(s.Size) }) {
		return localities
	}
	kept := make(map[string]struct{}, 2*s.Size)
	for priority, size := range sizes {
		addresses := make([]string, 0, size)
		for i := range localities {
			if localities[i].Priority == priority {
				for _, e := range localities[i].Endpoints {
					addresses = append(addresses, e.Address)
				}
			}
		}
		for _, a := range s.part(client, addresses) {
			kept[a] = struct{}{}
		}
	}
	chosen := make([]LocalityEndpoints, 0, len(localities))
	for _, l := range localities {
		var endpoints []Endpoint
		for j := range l.Endpoints {
			if _, ok := kept[l.Endpoints[j].Address]; ok {
				endpoints = append(endpoints, l.Endpoints[j])
			}
		}
		if l.Endpoints = endpoints; len(endpoints) > 0 {
			chosen = append(chosen, l)
		}
	}
	return chosen
}

// ranked is an address with its place among all for one client or lot.
type ranked struct {
	address string
	hash    uint64
}

func rank(addresses []string, seed uint64) []ranked {
	order := make([]ranked, len(addresses))
	for i, a := range addresses {
		order[i] = ranked{address: a, hash: mix(xxhash.Sum64String(a) ^ seed)}
	}
	slices.SortFunc(order, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.address, b.address))
	})
	return slices.CompactFunc(order, func(a, b ranked) bool { return a.address == b.address })
}

// part returns the addresses that the client has of a priority.
func (s Subsetting) part(client Client, addresses []string) []string {
	if len(addresses) <= int(s.Size) {
		return addresses
	}
	if !client.Numbered {
		order := rank(addresses, xxhash.Sum64String(client.Name))
		part := make([]string, 0, s.Size)
		for _, r := range order[:min(int(s.Size), len(order))] {
			part = append(part, r.address)
		}
		return part
	}
	lot := uint32(1) << (bits.Len(uint(len(addresses))/uint(s.Size)) - 1)
	if lot == 1 {
		return addresses
	}
	return s.member(rank(addresses, mix(uint64(client.Number/lot)+1)), client.Number%lot, lot)
}

// member returns what one client of a lot has. The endpoints go, one after the
// other, to the client that their hash says; if that has its share already, to the
// next one that the hash says. So an endpoint that comes or goes moves few others,
// as in consistent hashing with bounded loads.
func (s Subsetting) member(order []ranked, me, lot uint32) []string {
	share := (len(order) + int(lot) - 1) / int(lot)
	share += share / shareSlack
	counts := make([]int, lot)
	var part []string
	for _, r := range order {
		h := r.hash
		to := uint32(h) & (lot - 1)
		for counts[to] == share {
			h = mix(h + 1)
			to = uint32(h) & (lot - 1)
		}
		counts[to]++
		if to == me {
			part = append(part, r.address)
		}
	}
	return part
}

// shareSlack bounds what a client has to its share and one part of so many more.
// Less slack is more even, and moves more when an endpoint comes or goes.
const shareSlack = 16
