package grpcmesh

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/outcome"
)

// unaryCall is one unary call: an adapter of the pipeline.
type unaryCall struct {
	clientCall
	request, response any
	cc                *grpc.ClientConn
	invoker           grpc.UnaryInvoker

	first          attempt // what most calls need once, without an allocation
	reply, trailer metadata.MD
	err            error // of the last attempt, as gRPC returned it
}

var _ pipeline.Adapter = (*unaryCall)(nil)

func (a *Adapter) unaryClient(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	u := &unaryCall{request: req, response: reply, cc: cc, invoker: invoker}
	target, err := a.describe(ctx, &u.clientCall, cc, method, opts)
	if err != nil {
		return err
	}
	if direct, err := a.around(ctx, target); err != nil {
		return err
	} else if direct != nil {
		return direct.Invoke(ctx, method, req, reply, opts...)
	}
	a.start(&u.clientCall, target, u, false)
	o := u.call.Run(ctx, &u.view)
	if o.Kind != outcome.Response {
		return u.result(o)
	}
	u.mutateReply()
	u.call.Finish(o)
	return u.err
}

// Routed is the common one, and has copies sent.
func (u *unaryCall) Routed(d *route.Decision) {
	u.clientCall.Routed(d)
	if mirrors := u.call.Mirrors(&u.view); mirrors != nil {
		u.mirror(mirrors)
	}
}

// Attempt sends the request and waits for the reply. The picker chooses the
// endpoint.
func (u *unaryCall) Attempt(ctx context.Context, p *pipeline.Attempt) outcome.Outcome {
	a := &u.first
	if a.pipeline != nil {
		a = new(attempt) // gRPC may still hold the last one
	}
	a.pipeline, a.endpointHost = p, u.endpointHost
	ctx = withAttempt(metadata.NewOutgoingContext(ctx, u.sending), a)
	if deadline, ok := ctx.Deadline(); !p.Deadline.IsZero() && (!ok || p.Deadline.Before(deadline)) {
		// The next hop is told the time of the attempt, not only of the call.
		bounded, cancel := context.WithDeadline(ctx, p.Deadline)
		defer cancel()
		ctx = bounded
	}
	a.ctx = ctx
	u.reply, u.trailer = nil, nil
	opts := slices.Concat(u.opts, []grpc.CallOption{grpc.Header(&u.reply), grpc.Trailer(&u.trailer)})
	u.err = u.invoker(ctx, u.method, u.request, u.response, u.cc, opts...)
	a.end()
	if u.err != nil && u.reply == nil {
		u.reply = u.trailer // trailers-only: what a proxy would see as headers
	}
	p.Reply = header(u.reply)
	return outcomeOf(a, u.err, u.reply)
}

// Replayable is always true: the request is one message, at hand until the call
// returns.
func (u *unaryCall) Replayable() bool { return true }
