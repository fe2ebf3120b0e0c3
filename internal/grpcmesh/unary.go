package grpcmesh

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/outcome"
)

// unaryCall is one unary call: an adapter of the pipeline.
type unaryCall struct {
	clientCall
	request, response any
	cc                *grpc.ClientConn
	invoker           grpc.UnaryInvoker

	attempt unaryAttempt // what most calls need once, without an allocation
	// hedged is whether attempts run beside each other, so that each needs a
	// response of its own.
	hedged bool
}

// unaryAttempt is one attempt, with what it brought.
type unaryAttempt struct {
	attempt
	reply    metadata.MD // if somebody reads it
	peer     *peer.Peer  // if the call is hedged and asks for it
	response any
	err      error // as gRPC returned it
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
	last := u.last()
	if u.hedged && last != nil {
		u.adopt(last)
	}
	if o.Kind != outcome.Response {
		return u.result(o)
	}
	u.mutateReply()
	if last.err == nil {
		if late, err := u.passed(u.response); err != nil {
			u.call.Finish(late)
			return err
		}
	}
	u.call.Finish(o)
	return last.err
}

// last is the attempt that counts, nil without one that was sent.
func (u *unaryCall) last() *unaryAttempt {
	p := u.call.Last()
	if p == nil {
		return nil
	}
	t, _ := p.Local.(*unaryAttempt)
	return t
}

// Copy has copies of the request sent.
func (u *unaryCall) Copy() {
	if mirrors := u.call.Mirrors(&u.view); mirrors != nil {
		u.mirror(mirrors)
	}
}

// Attempt sends the request and waits for the reply. The picker chooses the
// endpoint.
func (u *unaryCall) Attempt(ctx context.Context, p *pipeline.Attempt) outcome.Outcome {
	t := &u.attempt
	if p.Observed.Number > 1 {
		t = new(unaryAttempt) // gRPC may still hold the last one
	}
	t.pipeline, t.endpointHost, t.response = p, u.endpointHost, u.response
	p.Firm() // the next hop is told the time of the attempt, not only of the call
	p.Local = t
	opts := u.opts
	switch checked := t.isChecked(); {
	case u.hedged:
		opts = u.isolate(t)
	case checked || u.call.ReadsReply():
		opts = append(slices.Clip(opts), grpc.Header(&t.reply))
	}
	t.opts = opts
	defer t.end() // also if foreign code panics
	t.err = u.invoker(t.send(ctx, sending(p), u.bare), u.method, u.request, t.response, u.cc, opts...)
	t.end()
	obey(t.endpoint(), t.reply)
	if t.err != nil && t.reply == nil {
		t.reply = t.trailer() // trailers-only: what a proxy would see as headers
	}
	p.Reply = header(t.reply)
	return outcomeOf(&t.attempt, t.err, t.reply)
}

// Replayable is always true: the request is one message, at hand until the call
// returns.
func (u *unaryCall) Replayable() bool { return true }

// Unkept is always nil: one message is never too much.
func (u *unaryCall) Unkept() error { return nil }

// Hedgeable reports whether the method's descriptor, or an idempotency key, says
// that the call may be made more than once, and that attempts can be kept apart.
func (u *unaryCall) Hedgeable() bool {
	if _, ok := u.response.(proto.Message); !ok {
		return false
	}
	for _, o := range u.opts {
		if _, ok := o.(grpc.OnFinishCallOption); ok {
			return false // the application's function expects one end at a time
		}
	}
	u.hedged = unhedged(u.routed, u.view.Path) == ""
	return u.hedged
}

// unhedged says why a unary call must not be made while another attempt is under way,
// "" if it may be.
func unhedged(md metadata.MD, method string) string {
	if header(md).Get("idempotency-key") == "" && !isIdempotent(method) {
		return "this program knows no idempotency_level of the method, and there is no idempotency-key"
	}
	return ""
}

// isolate gives an attempt a response and options of its own, where it would
// write to the caller's.
func (u *unaryCall) isolate(t *unaryAttempt) []grpc.CallOption {
	t.response = u.response.(proto.Message).ProtoReflect().New().Interface()
	opts := make([]grpc.CallOption, 0, len(u.opts)+2)
	for _, o := range u.opts {
		switch o.(type) {
		case grpc.HeaderCallOption, grpc.TrailerCallOption:
		case grpc.PeerCallOption:
			if t.peer == nil {
				t.peer = new(peer.Peer)
			}
			opts = append(opts, grpc.Peer(t.peer))
		default:
			opts = append(opts, o)
		}
	}
	return append(opts, grpc.Header(&t.reply))
}

// adopt gives the caller what the attempt that counts has brought.
func (u *unaryCall) adopt(t *unaryAttempt) {
	for _, o := range u.opts {
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			*o.HeaderAddr = t.reply
		case grpc.TrailerCallOption:
			*o.TrailerAddr = t.trailer()
		case grpc.PeerCallOption:
			*o.PeerAddr = *t.peer
		}
	}
	if t.err == nil {
		response := u.response.(proto.Message)
		proto.Reset(response)
		proto.Merge(response, t.response.(proto.Message))
	}
}
