package grpcmesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
)

// previousAttempts tells a server of a retry how many attempts came before
// (gRFC A6).
const previousAttempts = "grpc-previous-rpc-attempts"

// clientCall is what unary calls and streams have in common: the routed
// request.
type clientCall struct {
	adapter *Adapter

	call pipeline.Call
	view route.Request
	opts []grpc.CallOption

	// routed is the metadata as the configuration wants it. Each attempt sends
	// a copy.
	routed metadata.MD
	// first is that of the first attempt.
	first carrier
	// method is the method to call, after the route's rewrite.
	method string
	// endpointHost is whether the authority is the endpoint's host name.
	endpointHost bool
	// bare is whether the application sends no metadata.
	bare bool
	// host is the authority, after the route's rewrite.
	host string
}

// describe makes c, which must be zero, a call of method on a channel, and finds
// its target.
func (a *Adapter) describe(ctx context.Context, c *clientCall, cc *grpc.ClientConn, method string, opts []grpc.CallOption) (*pipeline.Target, error) {
	name, err := targetName(cc.Target())
	if err != nil {
		return nil, err
	}
	c.opts = opts
	c.view, c.routed, c.bare = requestOf(ctx, name, method, opts)
	c.view.Channel = a.channel(cc)
	return a.options.Outbound.Target(name), nil
}

// requestOf is a call as routing sees it, and its metadata, which may be changed; bare is
// whether the context has none.
func requestOf(ctx context.Context, name, method string, opts []grpc.CallOption) (req route.Request, md metadata.MD, bare bool) {
	md, ok := metadata.FromOutgoingContext(ctx)
	if !ok {
		md = metadata.MD{}
	}
	host := hostOf(name)
	for _, o := range opts {
		if authority, ok := o.(grpc.AuthorityOverrideCallOption); ok {
			host = authority.Authority
		}
	}
	return route.Request{Method: "POST", Scheme: "http", Host: host, Path: method, Header: header(md)}, md, !ok
}

// start makes c the call of an adapter and describes it for observers.
func (a *Adapter) start(c *clientCall, target *pipeline.Target, adapter pipeline.Adapter, streaming bool) {
	c.adapter = a
	a.options.Outbound.Prepare(&c.call, target, adapter)
	o := &c.call.Observed
	o.Protocol, o.Method, o.Host, o.Scheme, o.Path = observe.GRPC, c.view.Path, c.view.Host, c.view.Scheme, c.view.Path
	o.Streaming = streaming
}

// Routed applies the header operations and rewrites of the configuration.
// metadata.FromOutgoingContext gave a copy, so it may be changed.
func (c *clientCall) Routed(d *route.Decision) {
	for name := range c.routed {
		if pipeline.IsControl(name) {
			c.call.Control(header(c.routed))
			break
		}
	}
	facts := c.call.Facts()
	out := d.Forward(header(c.routed), &c.view, &facts, c.call.HideOriginals())
	if c.host = c.view.Host; out.Host != "" {
		c.host = out.Host
		c.opts = append(slices.Clip(c.opts), grpc.CallAuthority(out.Host))
	}
	if c.method = c.view.Path; out.Path != "" {
		c.method = out.Target()
	}
	c.endpointHost = out.EndpointHost
}

// Copy does nothing: a copy has none.
func (c *clientCall) Copy() {}

// Carrier prepares the metadata of an attempt.
func (c *clientCall) Carrier(a *pipeline.Attempt) observe.Carrier {
	sending := c.routed
	if a.Observed.Number > 1 {
		sending = maps.Clone(c.routed)
	}
	if n := a.Retries(); n > 0 {
		sending.Set(previousAttempts, strconv.Itoa(n))
	}
	forward := c.call.Decision.Route.Forward
	if forward.AttemptCount {
		sending.Set("x-envoy-attempt-count", strconv.Itoa(a.Observed.Number))
	}
	if forward.TimeoutRetry && a.AfterTimeout() {
		sending.Set("x-envoy-is-timeout-retry", "true")
	}
	own := &c.first
	if a.Observed.Number > 1 {
		own = new(carrier) // gRPC and observers may still hold the last one
	}
	own.md = sending
	return own
}

// Abandon has nothing to let go: gRPC ends an attempt with its context.
func (c *clientCall) Abandon(*pipeline.Attempt) {}

// sending is the metadata of an attempt.
func sending(p *pipeline.Attempt) *carrier { return p.Observed.Headers.(*carrier) }

// outcomeOf says how an attempt ended that returned err.
func outcomeOf(a *attempt, err error, reply metadata.MD) outcome.Outcome {
	if err == nil {
		return outcome.Outcome{Kind: outcome.Response, GRPC: true, Sent: true}
	}
	a.marks.mu.Lock()
	sent, answered, pickKind, pickErr := a.marks.sent, a.marks.answered, a.marks.pickKind, a.marks.pickErr
	trailer := a.marks.trailer
	a.marks.mu.Unlock()
	code := status.Code(err)
	o := outcome.Outcome{Kind: outcome.Response, GRPC: true, Code: uint32(code), Sent: sent, Err: err}
	switch {
	case answered && code == codes.Canceled && a.ctx.Err() != nil:
		o.Kind = outcome.Canceled // it had begun to answer; as below
	case answered:
		o.Header = func(name string) string { // a server may have said something before it failed
			if value := header(reply).Get(name); value != "" {
				return value
			}
			return header(trailer).Get(name)
		}
	case a.ctx.Err() != nil:
		o.Kind = outcome.Canceled // the pipeline finds out whose time it was
	case pickErr != nil:
		o.Kind, o.Err = pickKind, pickErr
	case isMessageAtFault(err):
		o.Kind = outcome.BodyFailure
	case code == codes.Unavailable && !sent:
		o.Kind = outcome.ResetBeforeRequest
	case code == codes.Unavailable && isRefusal(err):
		o.Kind, o.Err = outcome.RefusedStream, fmt.Errorf("%w: %w", errRefused, err)
	case code == codes.Unavailable:
		o.Kind = outcome.Reset
	case errors.Is(err, context.Canceled):
		o.Kind = outcome.Canceled
	case !sent && code != codes.Canceled:
		// gRPC would not send it: metadata that are invalid, credentials that
		// cannot be had. No endpoint has heard of it.
		o.Kind = outcome.BodyFailure
	}
	return o
}

// isRefusal recognizes the errors of gRPC for a call that its server has not processed.
// The picker is not asked again, by which marks know it otherwise, once the messages of
// a call are more than gRPC keeps (256 KiB). A test holds the texts against the real
// thing; no application can send them, for it has not answered.
func isRefusal(err error) bool {
	switch status.Convert(err).Message() {
	case "stream terminated by RST_STREAM with error code: REFUSED_STREAM",
		"the connection is draining", "the stream is rejected because server is draining the connection":
		return true
	}
	return false
}

// isMessageAtFault recognizes the errors of gRPC for a message of the caller that
// cannot be sent. It does not export what it knows, so their text is read; a test
// holds it against the real thing.
func isMessageAtFault(err error) bool {
	text := status.Convert(err).Message()
	return strings.HasPrefix(text, "grpc: error while marshaling: ") ||
		strings.HasPrefix(text, "grpc: error while compressing: ") ||
		strings.HasPrefix(text, "trying to send message larger than max ")
}

// result is the error that the caller gets for a call that Run has ended.
func (c *clientCall) result(o outcome.Outcome) error {
	if o.Kind == outcome.Local {
		a := c.call.Answer
		switch code := a.GRPCCode(); {
		case a.Verbatim && a.Reason == "":
			return status.Error(code, "mesh: direct response")
		case a.Verbatim:
			return status.Error(code, strings.ToValidUTF8(a.Reason, "\uFFFD"))
		case code != codes.OK:
			return status.Error(code, strings.ToValidUTF8("mesh: "+a.Reason, "\uFFFD"))
		}
		return status.Error(codes.Unavailable, "mesh: "+a.Reason+": a response without a message")
	}
	if failure, ok := errors.AsType[*meshfail.Error](o.Err); ok && failure.Kind == outcome.UnknownHost && !c.adapter.options.AllowUnknown {
		refused := *failure // which hooks have seen
		refused.Err = fmt.Errorf("refused by the outbound policy (registry only): %w", failure.Err)
		return &refused
	}
	return o.Err
}

// mutateReply applies the configuration's response header operations to what
// the caller asked to see.
func (c *clientCall) mutateReply() {
	if !c.changesReply() {
		return
	}
	for _, o := range c.opts {
		if h, ok := o.(grpc.HeaderCallOption); ok && h.HeaderAddr != nil {
			if *h.HeaderAddr == nil {
				*h.HeaderAddr = metadata.MD{}
			}
			c.changeReply(*h.HeaderAddr)
		}
	}
}

func (c *clientCall) changesReply() bool {
	return c.call.Responds() || c.call.Decision.MutatesResponse() || c.call.Filtered().Responds()
}

// changeReply adds what the mesh says to the caller, and applies the operations of
// the route and of filters.
func (c *clientCall) changeReply(md metadata.MD) {
	facts := c.replyFacts()
	c.call.Respond(header(md))
	c.call.Decision.MutateResponse(header(md), &c.view, &facts)
	if f := c.call.Filtered(); f.Responds() {
		f.Response(facts.Status, header(md))
	}
}

// replyFacts is what may be computed of a reply.
func (c *clientCall) replyFacts() route.Facts {
	facts := c.call.Facts()
	facts.Status, facts.Upstream = http.StatusOK, c.call.Upstream()
	return facts
}
