package service

import (
	"context"
	"errors"

	"github.com/inboardmesh/inboard/outcome"
)

// Reason is why a service is of no use, out of a few: see [observe.ServiceState].
type Reason string

// The reasons. What has none is an answer that is of no use.
const (
	Timeout     Reason = "timeout"
	Unreachable Reason = "unreachable"
	Broken      Reason = "broken"
	Status      Reason = "status"
	Invalid     Reason = "invalid"
	Overflow    Reason = "overflow"
	Cluster     Reason = "cluster"
	// Ended is a call that nobody waits for any more.
	Ended Reason = "ended"
)

// reasoned is an error with its reason, which its text does not repeat.
type reasoned struct {
	error

	reason Reason
}

func (r reasoned) Unwrap() error { return r.error }

// Because gives an error its reason. One that has a reason keeps it.
func Because(reason Reason, err error) error {
	if _, ok := errors.AsType[reasoned](err); ok || err == nil {
		return err
	}
	return reasoned{error: err, reason: reason}
}

// ReasonOf is the reason of an error of [Client.Do], or of [Because].
func ReasonOf(err error) Reason {
	if r, ok := errors.AsType[reasoned](err); ok {
		return r.reason
	}
	return Invalid
}

// reasonOfAttempt is why an attempt has brought no response.
func reasonOfAttempt(kind outcome.Kind) Reason {
	switch kind {
	case outcome.ConnectFailure:
		return Unreachable
	case outcome.Response:
		return Invalid
	case outcome.Overflow:
		return Overflow
	}
	return Broken
}

// reasonOfEnd is why a context has ended.
func reasonOfEnd(ctx context.Context) Reason {
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return Timeout
	}
	return Ended
}
