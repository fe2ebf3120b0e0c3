package grpcmesh

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/outcome"
)

// unaryCall is one unary call: an adapter of the pipeline.
type unaryCall struct {
	*clientCall
	invoke         func(ctx context.Context, method string, opts ...grpc.CallOption) error
	reply, trailer metadata.MD
	err            error // of the last attempt, as gRPC returned it
}

var _ pipeline.Adapter = (*unaryCall)(nil)

func (a *Adapter) unaryClient(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	common, target, err := a.newClientCall(ctx, cc, method, opts)
	if err != nil {
		return err
	}
	if direct, err := a.around(ctx, target); err != nil {
		return err
	} else if direct != nil {
		return direct.Invoke(ctx, method, req, reply, opts...)
	}
	u := &unaryCall{clientCall: common}
	u.invoke = func(ctx context.Context, method string, opts ...grpc.CallOption) error {
		return invoker(ctx, method, req, reply, cc, opts...)
	}
	a.start(common, target, u, false)
	o := common.call.Run(ctx, &common.view)
	if o.Kind != outcome.Response {
		return common.result(o)
	}
	common.mutateReply()
	common.call.Finish(o)
	return u.err
}

// Attempt sends the request and waits for the reply. The picker chooses the
// endpoint.
func (u *unaryCall) Attempt(ctx context.Context, p *pipeline.Attempt) outcome.Outcome {
	a := &attempt{pipeline: p}
	ctx = withAttempt(metadata.NewOutgoingContext(ctx, u.sending), a)
	if !p.Deadline.IsZero() {
		// The next hop is told the time of the attempt, not only of the call.
		bounded, cancel := context.WithDeadline(ctx, p.Deadline)
		defer cancel()
		ctx = bounded
	}
	a.ctx = ctx
	u.reply, u.trailer = nil, nil
	opts := slices.Concat(u.opts, []grpc.CallOption{grpc.Header(&u.reply), grpc.Trailer(&u.trailer)})
	u.err = u.invoke(ctx, u.method(), opts...)
	if u.err != nil && u.reply == nil {
		u.reply = u.trailer // trailers-only: what a proxy would see as headers
	}
	return outcomeOf(a, u.err, u.reply)
}

// Replayable is always true: the request is one message, at hand until the call
// returns.
func (u *unaryCall) Replayable() bool { return true }
