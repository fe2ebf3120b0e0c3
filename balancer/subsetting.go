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
// more, whatever the hashes. The size of a lot is a power of two, so that a client has
// from Size to twice as many endpoints on average, and one client up to a half more or
// less than another.
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
	level := bits.Len(uint(len(addresses))/uint(s.Size)) - 1 // a lot is 2^level clients
	return halves(addresses, client.Number, level)
}

// halves returns what a client of a lot of 2^level has. The lot has all endpoints, and
// each half of it one half of them, by a hash, down to the client. So a lot that becomes
// twice as large, or half as large, when there are more endpoints, or fewer, takes away
// half of what each client has, or adds as much, and moves nothing else; and an endpoint
// that comes or goes moves nothing but what a half had too much.
func halves(addresses []string, number uint32, level int) []string {
	all := rank(addresses, 0)
	for ; level > 0; level-- {
		all = half(all, mix(uint64(level)<<32|uint64(number>>level)), uint64(number>>(level-1)&1))
	}
	part := make([]string, len(all))
	for i, r := range all {
		part[i] = r.address
	}
	return part
}

// half returns one half of the endpoints, 0 or 1.
func half(all []ranked, seed uint64, which uint64) []ranked {
	var sides [2][]ranked
	for _, r := range all {
		side := mix(r.hash^seed) >> 63
		sides[side] = append(sides[side], r)
	}
	// Where chance leaves one half with much more than the other, it gives some to it.
	most := (len(all)+1)/2 + len(all)/halfSlack
	for side, have := range sides {
		if len(have) > most {
			slices.SortFunc(have, func(a, b ranked) int {
				return cmp.Or(cmp.Compare(mix(a.hash^seed), mix(b.hash^seed)), cmp.Compare(a.address, b.address))
			})
			sides[side], sides[1-side] = have[:most], append(sides[1-side], have[most:]...)
			break
		}
	}
	return sides[which]
}

// halfSlack bounds what half of the endpoints is to that and one part of so many more.
// Less slack is more even, and moves more when an endpoint comes or goes.
const halfSlack = 16
