package discovery

import "time"

// KeepAlive is how TCP connections to the endpoints of a cluster are probed while
// nothing is sent over them, so that a peer that vanished is noticed. The zero
// value probes as the dialer does. It is for new connections; a connection that
// is not TCP's, as one in memory, has no such thing.
type KeepAlive struct {
	// Off probes nothing.
	Off bool
	// Probes without an answer after which a connection is dead.
	Probes uint32
	// Time without traffic before the first probe, and Interval between two, both
	// in whole seconds. 0 is what the dialer has set, as for Probes: with the
	// default dialer a quarter or half of a minute, where Linux waits for hours.
	Time, Interval time.Duration
}
