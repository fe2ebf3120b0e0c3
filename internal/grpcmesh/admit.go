package grpcmesh

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/inbound"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/observe"
)

// admission is a call on its way to the application.
type admission struct {
	view     route.Request
	facts    route.Facts
	tls      *tls.ConnectionState // nil for plaintext
	decision route.Decision
	// message is that of a unary call; nil for streams.
	message any
	// exchange is what the filters see; nil if there are none.
	exchange *filter.Exchange
}

// admit routes the call and runs the filters; an error is the call's status.
func (a *admission) admit(ctx context.Context, ln *inbound.Listener, chain *inbound.Chain, call *observe.Call) error {
	if chain.Strict() && !hasOneSpelling(a.view.Path) {
		return status.Error(codes.Unimplemented, "ambiguous method name")
	}
	if chain.Guarded() && !ln.Allows(chain, &inbound.Connection{Remote: a.facts.Peer, Local: a.facts.Local, TLS: a.tls, PeerID: a.facts.PeerID}) {
		return status.Error(codes.PermissionDenied, "connection not allowed")
	}
	if chain.Strict() && !filter.PlainHost(a.view.Host) {
		return status.Errorf(codes.InvalidArgument, "ambiguous host %q", a.view.Host)
	}
	a.decision, _ = chain.Routes.Match(&a.view) // without a route the decision is empty
	answer, err := a.filter(ctx, ln, chain)
	if a.decision.Route != nil {
		call.Route = a.decision.Route.Name
	}
	switch r := a.decision.Route; {
	case err != nil:
		return undecided(ctx, err)
	case answer != nil:
		return a.answer(ctx, answer)
	case r == nil:
		return status.Error(codes.Unavailable, "no route")
	case r.Direct != nil:
		return a.answer(ctx, filter.Direct(r.Direct.Status, r.Direct.Body))
	case r.Redirect != nil:
		return a.answer(ctx, pipeline.Redirect(&a.decision, &a.view, &a.facts))
	case !r.Local:
		return status.Error(codes.Unavailable, "the route leads to another process")
	}
	return nil
}

// undecided is the status of a call about which a filter could not decide: never OK,
// whatever the reason is, and though the time of the call may not be over.
func undecided(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil && !errors.Is(err, net.ErrClosed) {
		return status.FromContextError(ended).Err()
	}
	return status.Error(codes.Unavailable, "not serving")
}

// hasOneSpelling reports whether a method is written as methods are. What an
// application does with others, which come to it as those that it does not know,
// nobody can tell.
func hasOneSpelling(method string) bool {
	decoded, err := url.PathUnescape(method)
	if err != nil {
		return false
	}
	path, ok := filter.CanonicalPath(method, decoded)
	return ok && path == method && !strings.HasSuffix(method, "/")
}

// filter runs the filters, and leaves the call in view as they have left it.
func (a *admission) filter(ctx context.Context, ln *inbound.Listener, chain *inbound.Chain) (*filter.Answer, error) {
	if chain.Filters.Idle(&a.decision) {
		return nil, nil
	}
	headers, _ := a.view.Header.(*incoming)
	a.exchange = &filter.Exchange{
		Request: a.view, Headers: headers, Facts: a.facts, TLS: a.tls, Listener: ln.Name(),
		Routes: chain.Routes, Decision: a.decision,
	}
	if a.message != nil {
		a.exchange.Message, a.exchange.Frame = a.message, frame
	}
	answer, err := chain.Filters.Run(ctx, a.exchange)
	a.view, a.decision = a.exchange.Request, a.exchange.Decision
	return answer, err
}

// answer makes an answer the status of the call. Its headers, and what filters
// want to add to them, are sent with it.
func (a *admission) answer(ctx context.Context, answer *filter.Answer) error {
	if len(answer.Headers) > 0 || a.exchange.Responds() {
		md := make(metadata.MD, len(answer.Headers))
		for i := range answer.Headers {
			md.Append(answer.Headers[i].Name, answer.Headers[i].Value)
		}
		if a.exchange.Responds() {
			a.exchange.Response(http.StatusOK, header(md))
		}
		if err := grpc.SetTrailer(ctx, md); err != nil {
			return status.Error(codes.Internal, "mesh: the call has no stream")
		}
	}
	return status.Error(answer.GRPCCode(), strings.ToValidUTF8(answer.Reason, "\uFFFD"))
}
