package observe

import "time"

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
	Notes []GuestNote
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

// GuestNote is something that a guest does not get as it was configured.
type GuestNote struct {
	// Where is what is concerned: `cluster "outbound|80||a.b"`.
	Where string
	// What does not happen, and what does instead.
	What string
	// Refused tells that calls fail because of it; otherwise they are made
	// without it.
	Refused bool
}

// String is "WHERE: WHAT".
func (n GuestNote) String() string { return n.Where + ": " + n.What }
