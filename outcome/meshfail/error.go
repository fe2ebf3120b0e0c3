// Package meshfail is the error that the mesh itself causes. Applications see
// it as mesh.Error. It is a package of its own for those below package mesh.
package meshfail

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/outcome"
)

// Error is a call that failed because of the mesh or on its way, not because
// the peer answered so. Its text reads from the outside in, each layer adding
// its own coordinate once.
type Error struct {
	// Kind is what went wrong.
	Kind outcome.Kind
	// Target is the destination as the caller named it, Route and Cluster what
	// routing chose, Endpoint the address of the last attempt. Each is "" if
	// the call did not get that far.
	Target, Route, Cluster, Endpoint string
	// Leaf is of an aggregate Cluster the one that the last attempt went to, "" of
	// others.
	Leaf string
	// Attempts is how many attempts were begun. One for which no endpoint was found,
	// or which a limit refused, is among them: Sent says whether one got further.
	Attempts int
	// Sent is false only if no attempt can have reached a peer.
	Sent bool
	// Err is the cause. It is never nil.
	Err error
}

// Error returns, for example,
//
//	mesh: target "payment.shop:80": route "top": cluster "v1": 3 attempts: endpoint 10.0.0.7:8080: connection refused
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("mesh: ")
	part := func(name, value string) {
		if value == "" {
			return
		}
		b.WriteString(name)
		b.WriteByte(' ')
		b.WriteString(strconv.Quote(value))
		b.WriteString(": ")
	}
	part("target", e.Target)
	part("route", e.Route)
	part("cluster", e.Cluster)
	part("cluster", e.Leaf)
	if e.Attempts > 1 {
		b.WriteString(strconv.Itoa(e.Attempts))
		b.WriteString(" attempts: ")
	}
	if e.Endpoint != "" {
		b.WriteString("endpoint ")
		b.WriteString(e.Endpoint)
		b.WriteString(": ")
	}
	b.WriteString(e.Err.Error())
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// SafeToRetry reports whether it is certain that no byte of the request was
// sent, so that calling again cannot repeat an effect.
func (e *Error) SafeToRetry() bool { return !e.Sent }

// Timeout reports whether time ran out, as [net.Error] has it.
func (e *Error) Timeout() bool {
	if e.Kind == outcome.Timeout || e.Kind == outcome.PerTryTimeout {
		return true
	}
	netErr, ok := errors.AsType[net.Error](e.Err)
	return ok && netErr.Timeout()
}

// Is makes a timeout match [context.DeadlineExceeded] and a cancellation
// [context.Canceled], whichever layer noticed first.
func (e *Error) Is(target error) bool {
	switch target {
	case context.DeadlineExceeded:
		return e.Kind == outcome.Timeout || e.Kind == outcome.PerTryTimeout
	case context.Canceled:
		return e.Kind == outcome.Canceled
	case net.ErrClosed:
		return e.Kind == outcome.Closed
	}
	return false
}

// GRPCStatus maps the error for gRPC callers: UNAVAILABLE but for timeouts,
// cancellations and the caller's own faults (data-plane rules B.16, gRFC A54:
// no other code may leak from the mesh).
func (e *Error) GRPCStatus() *status.Status {
	code := codes.Unavailable
	switch e.Kind {
	case outcome.Timeout, outcome.PerTryTimeout:
		code = codes.DeadlineExceeded
	case outcome.Canceled, outcome.Closed:
		code = codes.Canceled
	case outcome.NoConfig:
		if errors.Is(e.Err, context.DeadlineExceeded) { // it did not come in the caller's time
			code = codes.DeadlineExceeded
		}
	case outcome.BodyFailure:
		code = codes.Internal
		if s, ok := status.FromError(e.Err); ok {
			code = s.Code() // gRPC's own verdict on the request
		}
	}
	return status.New(code, e.Error())
}
