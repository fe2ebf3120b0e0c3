package balancer

// Statuses is a set of the health states of endpoints, as the control plane says.
type Statuses uint8

// NoStatus is a set that no state is in, and that is not the zero value.
const NoStatus Statuses = 1 << 7

// StatusSet returns the set of these states.
func StatusSet(states ...Health) Statuses {
	var s Statuses
	for _, h := range states {
		s |= 1 << h
	}
	return s
}

// Has reports whether a state is in the set.
func (s Statuses) Has(h Health) bool { return s>>h&1 != 0 }
