package grpcmesh

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/arrival"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/inbound"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// server is the inbound side of gRPC: it applies the filter chain of a call's
// connection and hands the call on.
type server struct {
	listeners *inbound.Listeners
	hooks     *observe.Hooks
}

func (s *server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (reply any, err error) {
	err = s.serve(ctx, info.FullMethod, req, func(ctx context.Context, _ *replyHeader, pace *filter.Pace, _ *inbound.Timeouts) error {
		if reply, err = handler(ctx, req); err != nil {
			return err
		}
		return passed(ctx, pace, reply, nil)
	})
	return reply, err
}

func (s *server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return s.serve(ss.Context(), info.FullMethod, nil, func(ctx context.Context, reply *replyHeader, pace *filter.Pace, timeouts *inbound.Timeouts) error {
		return handler(srv, &serverStream{
			ServerStream: ss, ctx: ctx, reply: reply, pace: pace,
			timeouts: timeouts, bounded: timeouts != nil || shortened(ctx, ss.Context()),
		})
	})
}

// serverStream is a stream with the context of the mesh.
type serverStream struct {
	grpc.ServerStream
	ctx   context.Context
	reply *replyHeader // nil if the route leaves the response's headers alone
	pace  *filter.Pace // nil if messages pass as fast as they can
	// timeouts bound the stream; nil do not. bounded is whether ctx has an end of its
	// own, which gRPC does not wait for.
	timeouts *inbound.Timeouts
	bounded  bool
}

func (s *serverStream) Context() context.Context { return s.ctx }

func (s *serverStream) SetHeader(md metadata.MD) error {
	if s.reply == nil {
		return s.ServerStream.SetHeader(md)
	}
	return s.reply.SetHeader(md)
}

func (s *serverStream) SendHeader(md metadata.MD) error {
	if s.reply == nil {
		return s.ServerStream.SendHeader(md)
	}
	return s.reply.SendHeader(md)
}

func (s *serverStream) SendMsg(m any) error {
	if s.reply != nil {
		if err := s.reply.flush(); err != nil {
			return err
		}
	}
	if err := passed(s.ctx, s.pace, m, nil); err != nil {
		return err
	}
	if !s.bounded {
		return s.ServerStream.SendMsg(m)
	}
	own, err := detachedCopy(s.ServerStream, m)
	if err != nil {
		return err
	}
	return s.await(func() error { return s.ServerStream.SendMsg(own) })
}

// RecvMsg waits for a message no longer than the stream may stand still.
func (s *serverStream) RecvMsg(m any) error {
	if !s.bounded {
		return s.ServerStream.RecvMsg(m)
	}
	own, adopt := detachedFor(m)
	err := s.await(func() error { return s.ServerStream.RecvMsg(own) })
	switch {
	case err == nil:
		adopt()
	case errors.Is(err, io.EOF):
		s.timeouts.Received()
	}
	return err
}

// await makes an operation of the stream that gRPC lets nobody cancel. When the time
// is over it goes on until the application, which then has an error, returns: that
// ends the stream. Until then it has a message of its own.
func (s *serverStream) await(operation func() error) error {
	done := make(chan error, 1)
	go func() { done <- operation() }() // ends with the stream
	select {
	case err := <-done:
		s.timeouts.Moved()
		return err
	case <-s.timeouts.Ended():
		return timedOut(s.timeouts.Cause())
	case <-s.ctx.Done():
		if cause := s.timeouts.Cause(); cause != nil { // which ends the context, too
			return timedOut(cause)
		}
		return status.FromContextError(s.ctx.Err()).Err()
	}
}

// shortened reports whether a context ends before the one that it was made of.
func shortened(ctx, from context.Context) bool {
	end, ok := ctx.Deadline()
	if !ok {
		return false
	}
	before, ok := from.Deadline()
	return !ok || end.Before(before)
}

// timedOut is the status of a call whose time is over: that of HTTP's 408.
func timedOut(cause error) error {
	answer := filter.Answer{Status: http.StatusRequestTimeout}
	return status.Error(answer.GRPCCode(), cause.Error())
}

// notServed is the status of a call over a connection that has no chain of filters.
func notServed(ln *inbound.Listener) error {
	if !ln.Serving() {
		return status.Error(codes.Unavailable, "not serving")
	}
	// The policy, or whom it trusts, changed after this connection was accepted.
	return status.Error(codes.PermissionDenied, "connection not allowed")
}

// serve runs one call; message is that of a unary one, nil of a stream. The deadline
// that the caller sent is in ctx already.
func (s *server) serve(ctx context.Context, method string, message any, handler func(context.Context, *replyHeader, *filter.Pace, *inbound.Timeouts) error) (err error) {
	streaming := message == nil
	if method == "" || method[0] != '/' {
		// No policy would find it (gRPC over HTTP/2, Path).
		return status.Errorf(codes.Unimplemented, "malformed method name %q", method)
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return status.Error(codes.Internal, "mesh: a call without a connection")
	}
	ln := s.listeners.Find(p.LocalAddr)
	if ln == nil {
		return status.Error(codes.Unavailable, "mesh: this listener is not the mesh's: serve on one from Mesh.Listen")
	}
	tlsInfo, isTLS := p.AuthInfo.(credentials.TLSInfo)
	var secure *tls.ConnectionState
	if isTLS {
		secure = &tlsInfo.State
	}
	chain, running, remote := ln.RunOf(p.Addr, secure)
	if chain == nil {
		return notServed(ln)
	}
	defer running.End()
	s.listeners.Begin()
	defer s.listeners.End()

	arrived := &arrivedCall{headers: incomingOf(ctx)}
	headers, call := &arrived.headers, &arrived.call
	if arrival.TooLarge(chain.Config.Headers, headers.md, method) {
		return status.Error(codes.ResourceExhausted, "too many or too large headers")
	}
	stripControls(headers)
	*call = observe.Call{
		Direction: observe.Inbound, Protocol: observe.GRPC, Method: method, Path: method, Scheme: "http",
		Headers: headers, Target: ln.Name(), Attempts: 1, Streaming: streaming, Start: time.Now(),
		Host: headers.Get(":authority"), PeerAddress: remote,
	}
	if isTLS {
		call.Scheme = "https"
		ctx = s.identify(ctx, &tlsInfo.State, call)
	}
	client := arrival.Receive(&chain.Config.Forwarding, headers, &arrival.Peer{
		Address: remote, TLS: secure, Verified: call.PeerID != "", Own: chain.Identity,
	})
	if s.hooks.CallStarted != nil {
		ctx = s.hooks.CallStarted(ctx, call)
	}
	done, local := false, false
	defer func() { // also when the application panicked
		call.Outcome = outcome.Outcome{Kind: outcome.Response, GRPC: true, Code: uint32(status.Code(err)), Sent: true}
		switch {
		case local:
			call.Outcome.Kind = outcome.Local
		case !done:
			call.Outcome.Code = uint32(codes.Unknown)
		}
		call.End = time.Now()
		if s.hooks.CallEnded != nil {
			s.hooks.CallEnded(ctx, call)
		}
	}()
	// gRPC has the request of a unary call whole before it asks anybody.
	timeouts, ctx := inbound.StartTimeouts(ctx, chain.Config, !streaming, 0, nil)
	defer func() {
		if cause := timeouts.Stop(); cause != nil && done {
			err, local = timedOut(cause), true
		}
	}()
	if limit := chain.Config.MaxStreamDuration; limit > 0 {
		bounded, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		ctx = bounded
	}
	a := admission{
		view:  route.Request{Method: "POST", Scheme: call.Scheme, Host: call.Host, Path: method, Header: headers},
		facts: factsOf(call, client, p.LocalAddr), message: message,
	}
	if isTLS && (chain.Filters != nil || chain.Guarded()) {
		kept := tlsInfo.State // which most calls need not keep
		a.tls = &kept
	}
	defer func() { a.exchange.End() }()
	if err := a.admit(ctx, ln, chain, call); err != nil {
		local, done = true, true
		return err
	}
	decision, facts := &a.decision, a.facts
	decision.MutateRequest(headers, &a.view, &facts)
	ctx = headers.context(ctx)
	var reply *replyHeader
	if decision.MutatesResponse() || a.exchange.Responds() {
		kept, sent := a.decision, a.view // which most calls need not keep
		facts.Status = http.StatusOK
		reply = &replyHeader{
			ServerTransportStream: grpc.ServerTransportStreamFromContext(ctx), decision: &kept, request: &sent, facts: facts,
			exchange: a.exchange,
		}
		ctx = grpc.NewContextWithServerTransportStream(ctx, reply)
	}
	if err = handler(ctx, reply, a.exchange.Pace(), timeouts); err == nil && reply != nil {
		err = reply.flush()
	}
	done = true
	return err
}

// arrivedCall is what is kept of a call that arrives while it is served, in one object.
type arrivedCall struct {
	call    observe.Call
	headers incoming
}

// stripControls takes out what callers may not say.
func stripControls(in *incoming) {
	for name := range in.md {
		if pipeline.IsControl(name) {
			in.Del(name)
		}
	}
}

// identify notes who the peer of a connection is.
func (s *server) identify(ctx context.Context, state *tls.ConnectionState, call *observe.Call) context.Context {
	id, ok := s.listeners.PeerID(state)
	if !ok {
		return ctx
	}
	call.PeerID = id.String()
	return inbound.WithPeer(ctx, id)
}

// factsOf is what may be computed of a call.
func factsOf(call *observe.Call, client string, local net.Addr) route.Facts {
	return route.Facts{
		Protocol: "HTTP/2", Start: call.Start,
		Remote: client, Peer: call.PeerAddress, Local: local, PeerID: call.PeerID,
	}
}
