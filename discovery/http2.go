package discovery

import "time"

// HTTP2Options are how HTTP/2 is spoken to the endpoints of a cluster, by HTTP and
// gRPC alike. The zero value leaves everything to the peers.
type HTTP2Options struct {
	// MaxStreams is how many requests are under way on one connection at a time,
	// if the peer does not allow fewer; what is above goes to another connection, as
	// the limits of the cluster allow. 0 means no limit of the client's.
	MaxStreams uint32
	// Pings ask connections whether their peers are still there.
	Pings Pings
}

// Pings are Envoy's KeepaliveSettings, for new connections. A peer from which
// nothing has come is asked with an HTTP/2 PING frame; if nothing comes then, the
// connection is closed. The zero value asks nothing.
type Pings struct {
	// Interval is after how long without a byte a peer is asked; 0 is never.
	// Jitter is how many percent of it are added at random; Envoy's default of 15
	// is filled in by the decoder.
	Interval time.Duration
	Jitter   float64
	// Timeout is how long it has for an answer, and more than 0 with any of the
	// others.
	Timeout time.Duration
	// Idle is after how long without a byte it is asked together with a new
	// request; 0 is never.
	Idle time.Duration
}
