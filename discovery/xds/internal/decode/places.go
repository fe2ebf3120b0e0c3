package decode

import "hash/maphash"

// endpointPlace is where an address stands: the indexes of the locality and of
// the endpoint in it.
type endpointPlace struct{ locality, endpoint uint32 }

// endpointPlaces knows where addresses stand. It is a map for one run over a great
// many of them, which is all that it is for: a third of the time of Go's.
type endpointPlaces struct {
	seed   maphash.Seed
	slots  []uint32 // indexes into placed, from 1; 0 is free
	placed []placedAddress
}

type placedAddress struct {
	address string
	place   endpointPlace
}

// newEndpointPlaces returns an empty one for about n addresses.
func newEndpointPlaces(n int) *endpointPlaces {
	p := &endpointPlaces{seed: maphash.MakeSeed(), placed: make([]placedAddress, 0, n)}
	p.grow()
	return p
}

// add takes note of an address. If that stands somewhere already it says where.
func (p *endpointPlaces) add(address string, here endpointPlace) (first endpointPlace, ok bool) {
	slot := p.find(address)
	if i := p.slots[slot]; i != 0 {
		return p.placed[i-1].place, true
	}
	p.placed = append(p.placed, placedAddress{address, here})
	p.slots[slot] = uint32(len(p.placed))
	if len(p.placed)*2 > len(p.slots) {
		p.grow()
	}
	return endpointPlace{}, false
}

// find is the slot of an address, or the free one that is to be its.
func (p *endpointPlaces) find(address string) int {
	mask := len(p.slots) - 1
	slot := int(maphash.String(p.seed, address)) & mask
	for p.slots[slot] != 0 && p.placed[p.slots[slot]-1].address != address {
		slot = (slot + 1) & mask
	}
	return slot
}

// grow makes room for twice as many as there are, and as were foreseen.
func (p *endpointPlaces) grow() {
	size := 8
	for size < 2*(max(cap(p.placed), len(p.placed))+1) {
		size *= 2
	}
	p.slots = make([]uint32, size)
	for i := range p.placed {
		p.slots[p.find(p.placed[i].address)] = uint32(i + 1)
	}
}
