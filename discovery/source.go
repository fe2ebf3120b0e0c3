package discovery

import "errors"

// ErrNotFound is wrapped by the error of an [Update] when the control plane
// says, or lets a timer say, that it does not know the name. Everything else
// (no connection, invalid configuration) is not "not found".
var ErrNotFound = errors.New("not known to the control plane")

// ErrUnusable is wrapped by the error of an [Update] without a value when the
// control plane has answered and the answer cannot be used: it is invalid, refused to
// this process, or needs a resource that does not exist. To wait is of no use, so calls
// fail at once (gRFC A88). An error that wraps neither this nor [ErrNotFound] is about
// the way to the control plane, or will pass: what was asked for may still come.
var ErrUnusable = errors.New("cannot be used")

// Source publishes configuration. xds.Source is the implementation.
type Source interface {
	// WatchTarget follows the destination name ("host:port") until stop is
	// called. notify is called on a goroutine of the source, one call at a
	// time, with the complete new state each time; the first call comes when
	// the target is complete for the first time or cannot be had. After stop
	// has returned, notify is not called again. stop may be called inside
	// notify.
	WatchTarget(name string, notify func(Update[*Target])) (stop func())
	// WatchInbound follows the configuration of a listener of this process,
	// named by the address that it listens on ("0.0.0.0:8080").
	WatchInbound(address string, notify func(Update[*Inbound])) (stop func())
	// Close ends every watch and waits for the source's goroutines.
	Close() error
}

// Update is the state of one watched thing.
type Update[T any] struct {
	// Value is what to use from now on. It is the zero T if nothing can be
	// used: then Err says why.
	Value T
	// Err with a Value is ambient: something is wrong (the control plane is
	// away, its last response was rejected), but Value stays in force.
	Err error
}
