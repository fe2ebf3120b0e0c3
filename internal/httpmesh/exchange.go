package httpmesh

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// DefaultDeadlineHeader tells the next hop how long its caller still waits, in
// milliseconds. It is the header of Envoy's router.
const DefaultDeadlineHeader = "X-Envoy-Expected-Rq-Timeout-Ms"

// The headers of Envoy's router that tell an upstream of the attempts before.
const (
	attemptCount = "X-Envoy-Attempt-Count"
	timeoutRetry = "X-Envoy-Is-Timeout-Retry"
)

// exchange is one call: the HTTP adapter of the pipeline.
type exchange struct {
	call      pipeline.Call
	transport *Transport
	request   *http.Request // the caller's; never changed

	// routed is the request's headers with the operations of the configuration,
	// url and host the request's, rewritten. Every attempt sends them.
	routed http.Header
	url    *url.URL
	host   string
	body   *replayBody // nil if the request has none
	resp   *http.Response

	// What most calls need once is here, so that it is no allocation of its own.
	firstHeaders outgoing
	firstRequest http.Request

	// received is the body of resp while the caller reads it, see responseBody.
	received io.ReadCloser
	outcome  outcome.Outcome
	ended    sync.Once
	// stale is whether the attempt that ended last was failed by a connection that had
	// been idle.
	stale atomic.Bool
	// endpointHost is whether the authority is the endpoint's host name.
	endpointHost bool
}

var (
	_ pipeline.Adapter = (*exchange)(nil)
	_ pipeline.Expirer = (*exchange)(nil)
)

func (t *Transport) newExchange(target *pipeline.Target, req *http.Request) *exchange {
	x := &exchange{transport: t, request: req}
	t.outbound.Prepare(&x.call, target, x)
	x.describe(req.URL.Scheme)
	return x
}

// describe says what the request is, for observers and for routing.
func (x *exchange) describe(scheme string) {
	req := x.request
	x.url, x.host = req.URL, req.Host
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	method := req.Method
	if method == "" {
		method = http.MethodGet
	}
	o := &x.call.Observed
	o.Protocol, o.Method, o.Host, o.Scheme, o.Path = observe.HTTP, method, plainHost(host), scheme, pathOf(req.URL)
	x.body = newReplayBody(req)
}

// pathOf is the escaped path of a request for u.
func pathOf(u *url.URL) string {
	if path := u.EscapedPath(); path != "" {
		return path
	}
	return "/"
}

func (x *exchange) roundTrip(decided *pipeline.Decided) (*http.Response, error) {
	returned := false
	defer func() {
		if !returned { // a panic or Goexit in foreign code: nothing may stay open
			x.drop()
		}
	}()
	view := x.view(x.request.Header)
	o := x.call.RunDecided(x.request.Context(), &view, decided)
	x.take()
	var resp *http.Response
	var err error
	if x.redirects(&o) {
		resp, err = x.follow(o)
	} else {
		resp, err = x.result(o)
	}
	returned = true
	return resp, err
}

// drop lets go of what a call has open that nobody gets: the caller's body, and a
// response.
func (x *exchange) drop() {
	defer x.body.end()
	if a := x.call.Last(); a != nil {
		if resp, _ := a.Local.(*http.Response); resp != nil {
			_ = resp.Body.Close()
		}
	}
}

// take takes the response of the attempt that counts over, if it has one.
func (x *exchange) take() {
	if a := x.call.Last(); a != nil {
		x.resp, _ = a.Local.(*http.Response)
	}
}

// result is what the caller gets.
func (x *exchange) result(o outcome.Outcome) (*http.Response, error) {
	switch o.Kind {
	case outcome.Response:
		return x.deliver(&o), nil
	case outcome.Local:
		x.body.end()
		return x.answer(), nil
	}
	x.body.end()
	return nil, o.Err
}

// view is the request with these headers as routing sees it.
func (x *exchange) view(h http.Header) route.Request {
	c := &x.call.Observed
	return route.Request{
		Method: c.Method, Scheme: c.Scheme, Host: c.Host,
		Path: c.Path, Query: x.request.URL.RawQuery, Header: header(h), Channel: x.transport.channel,
	}
}

// facts is what may be computed of the call.
func (x *exchange) facts() route.Facts {
	f := x.call.Facts()
	if x.request.ProtoMajor == 2 {
		f.Protocol = "HTTP/2"
	}
	return f
}

// Routed applies rewrites and header operations, to copies.
func (x *exchange) Routed(d *route.Decision) {
	var controlled bool
	if x.routed, controlled = copyControlled(x.request.Header); controlled {
		x.call.Control(header(x.routed))
	}
	view := x.view(x.routed)
	facts := x.facts()
	out := d.Forward(routedHeader{header(x.routed)}, &view, &facts, x.call.HideOriginals())
	if out.Host != "" {
		x.host = out.Host
	}
	if out.Path != "" {
		x.url = rewritten(x.request.URL, out.Path)
		if out.Query != "" {
			x.url.RawQuery = out.Query
		}
	}
	x.endpointHost = out.EndpointHost
}

// Copy has copies of the request sent.
func (x *exchange) Copy() {
	view := x.view(x.routed)
	if mirrors := x.call.Mirrors(&view); mirrors != nil {
		x.mirror(mirrors)
	}
}

// mutateResponse applies the response header operations of the route, and those
// that filters have asked for.
func (x *exchange) mutateResponse(h http.Header, status int) {
	x.call.Respond(header(h))
	x.mutateByRoute(h, status)
	if f := x.call.Filtered(); f.Responds() {
		f.Response(status, header(h))
	}
}

func (x *exchange) mutateByRoute(h http.Header, status int) {
	if x.call.Decision.Route == nil || !x.call.Decision.MutatesResponse() {
		return
	}
	sent := x.routed
	if sent == nil {
		sent = x.request.Header
	}
	view := x.view(sent)
	facts := x.facts()
	facts.Status, facts.Upstream = status, x.call.Upstream()
	x.call.Decision.MutateResponse(header(h), &view, &facts)
}

func rewritten(from *url.URL, escapedPath string) *url.URL {
	to := *from
	to.Path, to.RawPath = escapedPath, ""
	if path, err := url.PathUnescape(escapedPath); err == nil {
		to.Path, to.RawPath = path, escapedPath
	}
	return &to
}

// Carrier prepares the headers of an attempt. The first may use them as they are,
// if no other runs beside it; a later one must not touch what net/http may still
// read.
func (x *exchange) Carrier(a *pipeline.Attempt) observe.Carrier {
	headers := &x.firstHeaders
	if a.Observed.Number == 1 && a.Alone() {
		headers.header = header(x.routed)
	} else {
		headers = &outgoing{header: header(copyHeader(x.routed))}
	}
	forward := x.call.Decision.Route.Forward
	if forward.AttemptCount {
		headers.set(attemptCount, strconv.Itoa(a.Observed.Number))
	}
	if forward.TimeoutRetry && a.AfterTimeout() {
		headers.set(timeoutRetry, "true")
	}
	headers.attempt, headers.deadlineHeader = a, x.transport.DeadlineHeader
	if a.Whole().IsZero() {
		delete(headers.header, headers.deadlineHeader)
	}
	return headers
}

// errSwitched is why a request failed whose endpoint began to speak another protocol.
var errSwitched = errors.New("the endpoint switched protocols, which nobody had asked for")

// staleWithin is how soon it shows that a connection had been closed while it was idle:
// within a way there and back. Whoever took longer may have served the request.
const staleWithin = time.Second

// Depart says in the headers how long the call may take from now on: a hop never gets
// more time than its caller has left, in whole milliseconds, however long that waited for
// a connection.
// The per-try timeout is not said, other than by Envoy: it ends with the headers of the
// response, and a server that ended with it would cut off the body. What is left of a
// millisecond is rounded up, as gRPC does, so that it is the caller whose time is over
// first, and not a server whose answer would pass for a whole one.
func (o *outgoing) Depart() *upstream.Failure {
	if err := o.attempt.Depart(); err != nil {
		return &upstream.Failure{Kind: outcome.Timeout, Err: err}
	}
	if deadline := o.attempt.Whole(); !deadline.IsZero() {
		left := time.Until(deadline)
		ms := left.Milliseconds()
		if left > time.Duration(ms)*time.Millisecond {
			ms++
		}
		o.set(o.deadlineHeader, strconv.FormatInt(max(ms, 1), 10))
	}
	return nil
}

// Anew is after an attempt that an idle connection has failed.
func (o *outgoing) Anew() bool { return o.anew }

// Attempt sends the request to one endpoint and returns with its response
// headers.
func (x *exchange) Attempt(ctx context.Context, a *pipeline.Attempt) outcome.Outcome {
	endpoint, err := a.Pick()
	if err != nil {
		return outcome.Outcome{Kind: pipeline.PickKind(err), Err: err}
	}
	req := x.newRequest(ctx, a)
	headers := a.Observed.Headers.(*outgoing)
	headers.anew = x.stale.Load()
	req.Header, req.URL, req.Host = http.Header(headers.header), x.url, x.host
	if name := endpoint.Hostname(); name != "" && x.endpointHost {
		req.Host = name
	}
	if x.body != nil {
		body, err := x.body.next(ctx, a)
		if err != nil {
			return outcome.Outcome{Kind: outcome.BodyFailure, Err: err}
		}
		req.Body, req.GetBody, req.Trailer = body, nil, body.trailer
		x.body.watch(x.call.Context()) //nolint:contextcheck // the call's, of which ctx is one attempt
	}
	resp, failure := x.transport.send(endpoint, req, a.Priority(), headers)
	if failure != nil {
		if err := x.body.failure(); err != nil {
			return outcome.Outcome{Kind: outcome.BodyFailure, Sent: true, Err: err}
		}
		x.stale.Store(failure.Stale)
		return outcome.Outcome{
			Kind: failure.Kind, Sent: failure.Sent, Err: failure.Err,
			Repeatable: failure.Stale && isIdempotent(x.request) && time.Since(a.Observed.Start) < staleWithin,
		}
	}
	if resp.StatusCode == http.StatusSwitchingProtocols && len(x.request.Header["Upgrade"]) == 0 {
		// What follows is nothing that the caller could read, and no time limit would
		// end it (RFC 9110, section 7.8).
		_ = resp.Body.Close()
		return outcome.Outcome{Kind: outcome.Reset, Sent: true, Err: errSwitched}
	}
	a.Moved()
	a.Local, a.Reply = resp, header(resp.Header)
	if endpoint.TakesReports() {
		endpoint.FindReport(resp.Header.Get, false)
	}
	o := outcome.Outcome{Kind: outcome.Response, Status: resp.StatusCode, Sent: true}
	if resp.StatusCode >= http.StatusBadRequest {
		o.Header = resp.Header.Get
	}
	return o
}

// newRequest copies the caller's request. Like its headers, that of the first
// attempt may still be read by net/http when another follows.
func (x *exchange) newRequest(ctx context.Context, a *pipeline.Attempt) *http.Request {
	if a.Observed.Number > 1 {
		return x.request.WithContext(ctx)
	}
	x.firstRequest = *x.request.WithContext(ctx)
	if x.body == nil {
		x.firstRequest.Body = nil // to send an http.NoBody costs two allocations
	}
	return &x.firstRequest
}

// Abandon closes a response that is not delivered. Over HTTP/1.1 a small answer
// is read first, so that it does not cost its connection; its server, which may
// itself wait for the rest of the request, gets little time for it.
func (*exchange) Abandon(a *pipeline.Attempt) {
	if resp, _ := a.Local.(*http.Response); resp != nil {
		discard(resp)
		a.Local = nil
	}
}

func discard(resp *http.Response) {
	const (
		worthReading = 4 << 10
		worthWaiting = 5 * time.Millisecond
	)
	body := resp.Body
	if resp.ProtoMajor == 1 && resp.ContentLength <= worthReading {
		late := time.AfterFunc(worthWaiting, func() { _ = body.Close() })
		_, _ = io.CopyN(io.Discard, body, worthReading)
		late.Stop()
	}
	_ = body.Close()
}

// Hedgeable reports whether the request is safe by its method (RFC 9110, section
// 9.2.1) or by its Idempotency-Key, and has a body, if any, that can be had more
// than once.
func (x *exchange) Hedgeable() bool {
	return unhedged(x.request, x.call.Observed.Method) == "" && x.body.hedgeable()
}

// unhedged says why a request must not be sent while another attempt is under way, ""
// if it may be.
func unhedged(req *http.Request, method string) string {
	safe := false
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		safe = true
	}
	switch {
	case !safe && req.Header.Get("Idempotency-Key") == "":
		return method + " is not safe, and there is no Idempotency-Key"
	case req.Header.Get("Upgrade") != "":
		return "it is an upgrade"
	case req.Body != nil && req.Body != http.NoBody && req.GetBody == nil:
		return "the body has no GetBody"
	}
	return ""
}

// Replayable reports whether the body can be sent again, whole.
func (x *exchange) Replayable() bool { return x.body.replayable() }

// Unkept says whether the body was too large to be kept.
func (x *exchange) Unkept() error {
	if x.body.unkept() {
		return errUnkept
	}
	return nil
}

// deliver hands the response to the caller. The call ends with its body.
func (x *exchange) deliver(o *outcome.Outcome) *http.Response {
	resp := x.resp
	resp.Request = x.request
	x.mutateResponse(resp.Header, resp.StatusCode)
	if resp.Body == nil || resp.Body == http.NoBody {
		resp.Body = http.NoBody
		x.finish(*o)
		return resp
	}
	if last := x.call.Last(); last != nil && o.Verdict() == outcome.Success {
		last.Answered()
	}
	x.received, x.outcome = resp.Body, *o
	if pace := x.call.Filtered().Pace(); pace != nil {
		x.received = newPacedBody(resp.Body, &x.call, pace)
	}
	body := (*responseBody)(x)
	if writer, ok := resp.Body.(io.Writer); ok {
		// A 101 response: its body is the upgraded connection.
		resp.Body = &upgradedBody{responseBody: body, Writer: writer}
		x.call.Lasts(true) // for as long as the caller likes
	} else {
		resp.Body = body
		x.call.Lasts(false)
	}
	return resp
}

func (x *exchange) finish(o outcome.Outcome) {
	if last := x.call.Last(); x.resp != nil && len(x.resp.Trailer) > 0 && last != nil && last.Endpoint != nil {
		last.Endpoint.FindReport(x.resp.Trailer.Get, false)
	}
	x.close(o)
}

func (x *exchange) close(o outcome.Outcome) {
	defer x.body.end() // also if a hook panics
	x.call.Finish(o)
}

// answer is a response that the mesh gives itself. A gRPC request gets it as a
// status, as from Envoy.
func (x *exchange) answer() *http.Response {
	a := x.call.Answer
	resp := &http.Response{
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:  make(http.Header),
		Body:    http.NoBody,
		Request: x.request,
	}
	for _, h := range a.Headers {
		resp.Header.Add(h.Name, h.Value)
	}
	if view := x.view(x.request.Header); a.IsGRPC || route.IsGRPC(&view) {
		resp.StatusCode = http.StatusOK
		setGRPCStatus(resp.Header, a)
	} else {
		body := a.Content()
		resp.StatusCode, resp.ContentLength = a.Status, int64(len(body))
		if a.Location != "" {
			resp.Header.Set("Location", a.Location)
		}
		if len(body) > 0 {
			resp.Header.Set("Content-Type", "text/plain; charset=utf-8")
		}
		if x.request.Method != http.MethodHead {
			resp.Body = io.NopCloser(bytes.NewReader(body))
		}
	}
	resp.Status = strconv.Itoa(resp.StatusCode) + " " + http.StatusText(resp.StatusCode)
	x.mutateResponse(resp.Header, resp.StatusCode)
	return resp
}

// bodyOutcome says how the call ended when its response body ended with err.
func (x *exchange) bodyOutcome(o outcome.Outcome, err error) outcome.Outcome {
	if err == nil || errors.Is(err, io.EOF) {
		return o
	}
	o.Err = err
	o.Kind = outcome.Reset
	switch ctx := x.call.Context(); {
	case x.request.Context().Err() != nil && !errors.Is(x.request.Context().Err(), context.DeadlineExceeded):
		o.Kind = outcome.Canceled
	case x.transport.outbound.Closed() && ctx.Err() == nil:
		o.Kind, o.Err = outcome.Closed, upstream.ErrClosed
	case ctx.Err() != nil:
		o.Kind = outcome.Timeout
		if errors.Is(err, context.DeadlineExceeded) { // HTTP/2 does not say whose
			o.Err = context.Cause(ctx)
		}
	default:
		if kind, cause := x.call.Last().Ended(); kind != outcome.Response {
			o.Kind, o.Err = kind, cause
		}
	}
	return o
}
