package grpcmesh

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/outcome"
)

// messageHeader is the length of what comes before a message (gRPC over HTTP/2,
// Length-Prefixed-Message).
const messageHeader = 5

// lateOutcome is that of a call whose response was still passing when its context
// ended with err.
func lateOutcome(err error) outcome.Outcome {
	o := outcome.Outcome{Kind: outcome.Canceled, GRPC: true, Code: uint32(status.Code(err)), Sent: true, Err: err}
	if status.Code(err) == codes.DeadlineExceeded {
		o.Kind = outcome.Timeout
	}
	return o
}

// passed waits until a message may have passed. An error is the status of a call
// whose context ended meanwhile, or CANCELLED if stop was closed. Without a pace there
// is no wait.
func passed(ctx context.Context, pace *filter.Pace, message any, stop <-chan struct{}) error {
	if pace == nil {
		return nil
	}
	size := messageHeader
	if m, ok := message.(proto.Message); ok {
		size += proto.Size(m)
	}
	if err := pace.Wait(ctx, size, stop); err != nil {
		return status.FromContextError(err).Err()
	}
	return nil
}

// passed is for a reply. What the call has ended with is its outcome, too.
func (c *clientCall) passed(message any) (outcome.Outcome, error) {
	err := passed(c.call.Context(), c.call.Filtered().Pace(), message, c.call.Closing())
	if err == nil {
		return outcome.Outcome{}, nil
	}
	o := lateOutcome(err)
	if c.call.Context().Err() == nil {
		o.Kind, o.Err = outcome.Closed, upstream.ErrClosed
		o = c.call.Failed(o)
	}
	return o, o.Err
}
