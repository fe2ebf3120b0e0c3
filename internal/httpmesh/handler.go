package httpmesh

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/inboardmesh/inboard/internal/arrival"
	"github.com/inboardmesh/inboard/internal/deadline"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/inbound"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// Handler serves the requests that arrive at listeners of the mesh: it applies
// the filter chain of their connection and hands them to Next.
//
// In order: the connection's filter chain, the headers that tell of the client,
// observe, deadline, route, filters, Next.
type Handler struct {
	Listeners *inbound.Listeners
	Hooks     *observe.Hooks
	Next      http.Handler
	// DeadlineHeader is the canonical name of the header in which callers say how
	// long they still wait; "" is [DefaultDeadlineHeader].
	DeadlineHeader string
}

var _ http.Handler = (*Handler)(nil)

// ServeHTTP serves one request. A request that did not come through a listener
// of the mesh is refused: no policy can be said to hold for it.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	ln := h.Listeners.Find(local)
	if ln == nil {
		http.Error(w, "mesh: this listener is not the mesh's: serve on one from Mesh.Listen", http.StatusServiceUnavailable)
		return
	}
	chain, running := ln.Run(r.RemoteAddr, r.TLS)
	if chain == nil {
		// The policy, or whom it trusts, changed after this connection was accepted.
		text, code := "connection not allowed", http.StatusForbidden
		if !ln.Serving() {
			text, code = "not serving", http.StatusServiceUnavailable
		}
		w.Header().Set("Connection", "close")
		http.Error(w, text, code)
		return
	}
	defer running.End()
	if arrival.TooLarge(chain.Config.Headers, r.Header, r.Host, r.RequestURI) {
		w.Header().Set("Connection", "close")
		http.Error(w, "too many or too large headers", http.StatusRequestHeaderFieldsTooLarge)
		return
	}
	if !oneHost(r) {
		w.Header().Set("Connection", "close")
		http.Error(w, "more than one host", http.StatusBadRequest)
		return
	}
	s := &serving{handler: h, listener: ln, chain: chain, request: r}
	s.doubt = s.doubtful() // before filters change the headers
	s.serve(w)
}

// oneHost reports whether a request is for one host, and leaves it in r.Host alone.
// In HTTP/2 a client may send the header Host beside ":authority" (RFC 9113, section
// 8.3.1), and net/http hands it on: a policy could read the one, and somebody else act
// on the other.
func oneHost(r *http.Request) bool {
	hosts, ok := r.Header["Host"]
	if !ok {
		return true
	}
	delete(r.Header, "Host")
	return !slices.ContainsFunc(hosts, func(host string) bool { return !strings.EqualFold(host, r.Host) })
}

// serving is one request being served.
type serving struct {
	handler  *Handler
	listener *inbound.Listener
	chain    *inbound.Chain
	request  *http.Request
	call     observe.Call
	decision route.Decision
	// client is the address of the client, which may be behind the peer.
	client string
	// exchange is what the filters see; nil if there are none.
	exchange *filter.Exchange
	// local is set when the mesh answered, and not the application; doubt when the
	// answer ends the connection, because readers could differ about what follows;
	// mutates when the configuration, or a filter, changes the headers of the response.
	local, doubt, mutates bool

	// What the application gets is here, so that it is no allocation of its own.
	peer     inbound.PeerContext
	deadline deadline.Context
	recorder recorder
	passed   http.Request
	// body is the request's with what filters have read of it; nil if they have
	// read nothing.
	body *peekedBody
}

// headers are the request's.
func (s *serving) headers() header { return header(s.request.Header) }

func (s *serving) serve(w http.ResponseWriter) {
	h, r := s.handler, s.request
	h.Listeners.Begin()
	defer h.Listeners.End()
	s.listener.Serves()
	stripControls(s.headers())
	path := r.URL.EscapedPath()
	scheme := "http"
	ctx := r.Context()
	if r.TLS != nil {
		scheme = "https"
		if id, ok := h.Listeners.PeerID(r.TLS); ok {
			s.peer.Context, s.peer.ID = ctx, id //nolint:fatcontext // wrapped once: it is no loop
			ctx = &s.peer
			s.call.PeerID = id.String()
		}
	}
	s.client = arrival.Receive(&s.chain.Config.Forwarding, s.headers(), &arrival.Peer{
		Address: r.RemoteAddr, TLS: r.TLS, Verified: s.call.PeerID != "", Own: s.chain.Identity,
	})
	view := route.Request{Method: r.Method, Scheme: scheme, Host: r.Host, Path: path, Query: r.URL.RawQuery, Header: s.headers()}
	c := &s.call
	c.Direction, c.Protocol, c.Method, c.Host, c.Scheme, c.Path = observe.Inbound, observe.HTTP, r.Method, r.Host, scheme, path
	c.Headers, c.PeerAddress, c.Target, c.Attempts, c.Start = s.headers(), r.RemoteAddr, s.listener.Name(), 1, time.Now()
	if h.Hooks.CallStarted != nil {
		ctx = h.Hooks.CallStarted(ctx, c)
	}
	rec := &s.recorder
	rec.ResponseWriter, rec.serving = w, s
	defer s.end(ctx, rec)
	ctx = s.startTimeouts(ctx, w)
	patience := rec.patience // which the application takes away with the connection
	defer patience.stop()
	if limit := s.limit(); limit > 0 {
		s.deadline.Start(ctx, c.Start.Add(limit), nil)
		defer s.deadline.Stop()
		ctx = &s.deadline
	}
	if s.refused(&view, rec) || s.answered(ctx, &view, rec) {
		s.local = true
		return
	}
	r = s.request
	s.passed = *r.WithContext(ctx)
	if view.Query != r.URL.RawQuery {
		s.requery(view.Query)
	}
	if s.body != nil {
		s.passed.Body = s.body
	}
	facts := s.facts()
	s.decision.MutateRequest(s.headers(), &view, &facts)
	if pace := s.exchange.Pace(); pace != nil && r.Method != http.MethodHead {
		rec.paced = &pacedWriter{ResponseWriter: w, pace: pace, request: &s.passed}
	}
	defer s.forgetFiles()
	h.Next.ServeHTTP(rec.wrapped(), &s.passed)
	if s.timedOut(patience, rec) {
		return
	}
	if rec.status == 0 {
		s.part(w.Header()) // of the 200 that net/http makes of silence
	}
	if rec.status == 0 && ctx == &s.deadline && r.Context().Err() == nil && ctx.Err() != nil {
		// An application that gives up when its time is over, as it would for a
		// caller that has gone, has not answered: its silence is no 200.
		if longest := s.chain.Config.MaxStreamDuration; longest > 0 && time.Since(c.Start) >= longest {
			// It has noticed before the timer that ends what it waits for.
			s.local = true
			s.fail(rec, &view, http.StatusRequestTimeout, grpcDeadlineExceeded, inbound.ErrLong.Error())
			return
		}
		s.fail(rec, &view, http.StatusGatewayTimeout, grpcDeadlineExceeded, "the deadline passed")
	}
}

// part ends the connection with the response, if its peer is to go elsewhere, or if
// what follows over it may be no request. For HTTP/2 net/http makes a GOAWAY of it. It
// is asked late: a request may well have begun before the process began to drain.
func (s *serving) part(h http.Header) {
	if s.doubt || s.listener.Leaving(s.request.RemoteAddr) {
		h.Set("Connection", "close")
	}
}

// doubtful reports whether two readers could differ about where the next request
// begins: behind an upgrade that did not come about, which ends the following of
// requests, and behind a body in chunks whose request may have had a length, too, where
// they are not followed (RFC 9112, section 6.1).
func (s *serving) doubtful() bool {
	r := s.request
	if r.ProtoMajor != 1 {
		return false
	}
	if r.Method == http.MethodConnect || slices.ContainsFunc(r.Header["Upgrade"], func(v string) bool { return !inbound.IsNoUpgrade(v) }) {
		return true
	}
	return len(r.TransferEncoding) > 0 && !s.listener.Framed(r.RemoteAddr)
}

// connection is what is known of the connection that the request came over.
func (s *serving) connection() *inbound.Connection {
	local, _ := s.request.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return &inbound.Connection{Remote: s.request.RemoteAddr, Local: local, TLS: s.request.TLS, PeerID: s.call.PeerID}
}

// refused answers a request that no policy can decide about, and one over a
// connection that is not allowed any more. From here on view has the canonical
// path: policies, routes and filters read what the application acts on, however
// it was spelled.
func (s *serving) refused(view *route.Request, w http.ResponseWriter) bool {
	if s.chain.Strict() {
		if !s.isPlain() {
			s.answer(w, view, &filter.Answer{Status: http.StatusBadRequest, Body: []byte("bad request line"), Reason: "bad request line"})
			return true
		}
		path, ok := filter.CanonicalPath(view.Path, s.request.URL.Path)
		if !ok {
			s.answer(w, view, &filter.Answer{Status: http.StatusBadRequest, Body: []byte("ambiguous path"), Reason: "ambiguous path"})
			return true
		}
		view.Path = path
		if !filter.PlainHost(view.Host) {
			s.answer(w, view, &filter.Answer{Status: http.StatusBadRequest, Body: []byte("ambiguous host"), Reason: "ambiguous host"})
			return true
		}
	}
	if s.chain.Guarded() {
		if !s.listener.Allows(s.chain, s.connection()) {
			w.Header().Set("Connection", "close")
			s.answer(w, view, &filter.Answer{Status: http.StatusForbidden, Body: []byte("connection not allowed"), Reason: "connection not allowed"})
			return true
		}
	}
	return false
}

// isPlain reports whether a request over HTTP/2 has a method, and a path, of which
// net/http leaves the syntax to its handlers: a method that is no token, and a
// ":path" with a host of its own, which may be another one than that of ":authority"
// (RFC 9113, section 8.3.1). Over HTTP/1.1 it sees to both.
func (s *serving) isPlain() bool {
	r := s.request
	return r.ProtoMajor < 2 || r.URL.Host == "" && r.URL.Scheme == "" && httpguts.ValidHeaderFieldName(r.Method)
}

// answered routes the request and runs the filters. It reports true when the
// request was answered and must not reach the application.
func (s *serving) answered(ctx context.Context, view *route.Request, w http.ResponseWriter) bool {
	s.decision, _ = s.chain.Routes.Match(view) // without a route the decision is empty
	answer, err := s.filter(ctx, view)
	if s.decision.Route != nil {
		s.call.Route = s.decision.Route.Name
	}
	if s.decision.MutatesResponse() || s.exchange.Responds() {
		s.mutates = true
	}
	switch r := s.decision.Route; {
	case errors.Is(err, net.ErrClosed): // the mesh was
		s.fail(w, view, http.StatusServiceUnavailable, grpcUnavailable, "not serving")
	case err != nil:
		s.fail(w, view, http.StatusGatewayTimeout, grpcDeadlineExceeded, "the deadline passed in a filter")
	case answer != nil:
		s.answer(w, view, answer)
	case r == nil:
		s.fail(w, view, http.StatusNotFound, grpcUnavailable, "no route")
	case r.Direct != nil:
		s.answer(w, view, filter.Direct(r.Direct.Status, r.Direct.Body))
	case r.Redirect != nil:
		facts := s.facts()
		s.answer(w, view, pipeline.Redirect(&s.decision, view, &facts))
	case !r.Local:
		s.fail(w, view, http.StatusNotFound, grpcUnavailable, "the route leads to another process")
	default:
		return false
	}
	return true
}

// filter runs the filters, and leaves the request in view as they have left it.
func (s *serving) filter(ctx context.Context, view *route.Request) (*filter.Answer, error) {
	if s.chain.Filters.Idle(&s.decision) {
		return nil, nil
	}
	s.exchange = &filter.Exchange{
		Request: *view, Headers: s.headers(), Facts: s.facts(), TLS: s.request.TLS, Listener: s.listener.Name(),
		Routes: s.chain.Routes, Decision: s.decision,
	}
	if s.request.Body != nil && s.request.Body != http.NoBody {
		s.exchange.Body = func(limit int) ([]byte, bool, error) { return s.peek(ctx, limit) }
	} else {
		s.exchange.Body = emptyBody
	}
	answer, err := s.chain.Filters.Run(ctx, s.exchange)
	*view, s.decision = s.exchange.Request, s.exchange.Decision
	return answer, err
}

// requery hands the query on as the filters have left it.
func (s *serving) requery(query string) {
	u := *s.request.URL // the original is the server's
	u.RawQuery, u.ForceQuery = query, false
	s.passed.URL = &u
	s.passed.RequestURI = u.RequestURI()
}

// forgetFiles removes the temporary files of a form that the application has parsed.
// net/http does so for its own request, of which the application has a copy.
func (s *serving) forgetFiles() {
	if form := s.passed.MultipartForm; form != nil && form != s.request.MultipartForm {
		_ = form.RemoveAll() // as net/http, which can tell nobody either
	}
}

// facts are what is known of the request's connection.
func (s *serving) facts() route.Facts {
	f := route.Facts{
		Protocol: "HTTP/1.1", Start: s.call.Start, Remote: s.client, Peer: s.request.RemoteAddr, PeerID: s.call.PeerID,
	}
	if s.request.ProtoMajor == 2 {
		f.Protocol = "HTTP/2"
	}
	f.Local, _ = s.request.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return f
}

// mutateResponse applies the response header operations of the route and those
// of the filters.
func (s *serving) mutateResponse(h http.Header, status int) {
	r := s.request
	view := route.Request{
		Method: s.call.Method, Scheme: s.call.Scheme, Host: s.call.Host,
		Path: s.call.Path, Query: r.URL.RawQuery, Header: s.headers(),
	}
	facts := s.facts()
	facts.Status = status
	s.decision.MutateResponse(header(h), &view, &facts)
	if s.exchange.Responds() {
		s.exchange.Response(status, header(h))
	}
}

// end reports the call, also when the application panicked.
func (s *serving) end(ctx context.Context, rec *recorder) {
	s.exchange.End()
	s.call.Outcome = outcome.Outcome{Kind: outcome.Response, Status: rec.status, Sent: true}
	if s.call.Outcome.Status == 0 {
		s.call.Outcome.Status = http.StatusOK
	}
	cause := recover()
	switch {
	case s.local:
		s.call.Outcome.Kind = outcome.Local
	case cause != nil && rec.status == 0:
		s.call.Outcome.Status = http.StatusInternalServerError
	case cause != nil:
		s.call.Outcome.Kind = outcome.Reset
	case s.request.Context().Err() != nil:
		s.call.Outcome.Kind = outcome.Canceled
	}
	s.call.End = time.Now()
	if hook := s.handler.Hooks.CallEnded; hook != nil {
		hook(ctx, &s.call)
	}
	if cause != nil {
		panic(cause) //nolint:forbidigo // the handler's own, for net/http, which ends the connection
	}
}

// limit is how long the request may take: as long as the configuration says, and
// no longer than its caller waits; 0 is without a limit.
func (s *serving) limit() time.Duration {
	return sooner(s.chain.Config.MaxStreamDuration, s.callerWaits())
}

// callerWaits is how long the caller said that it still waits, or 0. The caller
// can only shorten: an unreadable value is ignored, and of several the least counts.
func (s *serving) callerWaits() time.Duration {
	name := s.handler.DeadlineHeader
	if name == "" {
		name = DefaultDeadlineHeader
	}
	const longest = int64(24 * time.Hour / time.Millisecond)
	var least time.Duration
	for _, value := range s.request.Header[name] {
		ms, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		if err != nil || ms <= 0 || ms > longest {
			continue
		}
		least = sooner(least, time.Duration(ms)*time.Millisecond)
	}
	return least
}
