package httpmesh

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"

	"golang.org/x/net/http/httpguts"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/outcome"
)

// originalURL tells an upstream what was asked for before a redirect (Envoy
// router docs).
const originalURL = "X-Envoy-Original-Url"

// chain is the internal redirects of a request so far.
type chain struct {
	followed uint32
	// taken are the names of the routes that redirects went from and to.
	taken [][2]string
}

// redirects reports whether the response is one that the route follows itself.
func (x *exchange) redirects(o *outcome.Outcome) bool {
	if o.Kind != outcome.Response || x.resp == nil {
		return false
	}
	policy := x.call.Decision.Route.Forward.InternalRedirect
	return policy != nil && slices.Contains(policy.Statuses, x.resp.StatusCode)
}

// follow goes on with the redirects that routes follow, each of which is a call
// of its own in the same target, until a response is the caller's. A redirect
// that may not be followed is (Envoy, "Internal redirects").
func (x *exchange) follow(o outcome.Outcome) (*http.Response, error) {
	original, began := x.request, x.call.Observed.Start
	returned := false
	defer func() {
		if !returned {
			x.drop() // see roundTrip
		}
	}()
	var passed chain
	for x.redirects(&o) {
		next, decided, ok := x.next(&passed)
		if !ok {
			break
		}
		discard(x.resp)
		x.finish(o)
		x = next
		view := x.view(x.request.Header)
		o = x.call.RunDecided(pipeline.Remaining(original.Context(), began), &view, &decided)
		x.take()
	}
	resp, err := x.result(o)
	if resp != nil {
		resp.Request = original
	}
	returned = true
	return resp, err
}

// next is the call that follows the redirect that was received. ok is false if
// the redirect may not be followed; then nothing has changed.
func (x *exchange) next(passed *chain) (next *exchange, decided pipeline.Decided, ok bool) {
	policy := x.call.Decision.Route.Forward.InternalRedirect
	to, ok := location(x.resp)
	from := x.view(x.request.Header)
	if !ok || passed.followed >= policy.MaxRedirects || !schemeAllowed(policy, from.Scheme, to.Scheme) {
		return nil, decided, false
	}
	h := redirectedHeader(x.request.Header, policy, x.resp)
	h.Set(originalURL, from.Scheme+"://"+from.Host+from.PathAndQuery())
	method := from.Method
	content := method == http.MethodGet || method == http.MethodHead || x.resp.StatusCode != http.StatusSeeOther
	if !content { // RFC 9110, section 15.4.4
		method = http.MethodGet
		for _, name := range []string{"Content-Length", "Content-Type", "Content-Encoding", "Content-Language"} {
			h.Del(name)
		}
	}
	view := route.Request{
		Method: method, Scheme: to.Scheme, Host: to.Host, Path: pathOf(to), Query: to.RawQuery, Header: header(h),
	}
	decided, ok = x.call.Decide(&view)
	if !ok || !routeAllowed(policy, passed, x.call.Decision.Route.Name, decided.Route().Name) {
		return nil, decided, false
	}
	req := x.request.WithContext(x.request.Context())
	req.Method, req.Header, req.Host, req.URL = method, h, to.Host, to
	if !content {
		req.Body, req.GetBody, req.ContentLength, req.TransferEncoding, req.Trailer = nil, nil, 0, nil, nil
	} else if req.Body, req.GetBody, ok = x.body.whole(); !ok {
		return nil, decided, false
	} else if x.body != nil {
		req.Trailer = x.body.trailers()
	}
	next = &exchange{transport: x.transport, request: req}
	x.call.Succeed(&next.call, next)
	next.describe(to.Scheme)
	// Whatever the redirect says, it is the mesh that does the TLS.
	to.Scheme = x.request.URL.Scheme
	passed.followed++
	passed.taken = append(passed.taken, [2]string{x.call.Decision.Route.Name, decided.Route().Name})
	return next, decided, true
}

// location is the URL that a redirect leads to: only one that says everything
// can be routed.
func location(resp *http.Response) (*url.URL, bool) {
	to, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || to.Scheme != "http" && to.Scheme != "https" || to.Host == "" || to.User != nil || to.Opaque != "" {
		return nil, false
	}
	if !httpguts.ValidHostHeader(to.Host) || hasControl(to.RawQuery) {
		return nil, false
	}
	to.Fragment, to.RawFragment = "", ""
	return to, true
}

func schemeAllowed(policy *discovery.InternalRedirect, from, to string) bool {
	switch {
	case from == to:
		return true
	case !policy.CrossScheme:
		return false
	}
	return !policy.SafeCrossScheme || to == "http" || from == "https"
}

func routeAllowed(policy *discovery.InternalRedirect, passed *chain, from, to string) bool {
	if policy.AllowedRoutes != nil && !slices.Contains(policy.AllowedRoutes, to) {
		return false
	}
	return !policy.PreviousRoutes || !slices.Contains(passed.taken, [2]string{from, to})
}

// redirectedHeader is the request's headers with those that a redirect hands
// over: one that it does not have is removed.
func redirectedHeader(from http.Header, policy *discovery.InternalRedirect, resp *http.Response) http.Header {
	to := copyHeader(from)
	for _, name := range policy.CopyHeaders {
		to.Del(name)
		for _, value := range resp.Header.Values(name) {
			to.Add(name, value)
		}
	}
	return to
}

// whole returns the body for another request, if all of it can be had: from
// GetBody, or because it has been read to its end and kept.
func (b *replayBody) whole() (body io.ReadCloser, again func() (io.ReadCloser, error), ok bool) {
	if b == nil {
		return nil, nil, true
	}
	kept, ok := b.keptWhole()
	if !ok {
		return nil, nil, false
	}
	if again = b.getBody; again == nil {
		again = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(kept)), nil }
	}
	body, err := again()
	return body, again, err == nil
}

// keptWhole returns what was kept of the body, nil if it has GetBody. ok is whether
// either is all of it.
func (b *replayBody) keptWhole() (kept []byte, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.failed != nil || b.trailer != nil && b.final == nil:
		return nil, false
	case b.getBody != nil:
		return nil, true
	case b.overflow || !errors.Is(b.ended, io.EOF) && (b.length <= 0 || int64(b.read) < b.length):
		return nil, false
	}
	return bytes.Clone(b.kept), true
}

// trailers are those after a body that is whole.
func (b *replayBody) trailers() http.Header {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.final
}
