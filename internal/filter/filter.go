// Package filter runs the HTTP filters of a configuration over a request,
// whatever protocol brought it: a [Chain] is compiled when a configuration
// arrives, and run once per request.
//
// Filters run in the order of the configuration. Each may end the request with
// an [Answer], change its headers, leave metadata for those that come after it,
// and have a word on the headers of the response. A filter has one instance per
// chain, and one per override of a route; they are immutable and shared by all
// requests. What belongs to one request is in its [Exchange].
package filter

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"maps"
	"slices"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
)

// Filter is one HTTP filter with its configuration. Safe for concurrent use.
type Filter interface {
	// Request sees a request before the application, or on the way out before
	// the first attempt. An answer ends the request, and no later filter sees it.
	// An error says that ctx ended while the filter waited; whatever else a
	// filter cannot do, it answers.
	Request(ctx context.Context, x *Exchange) (*Answer, error)
}

// Idler is a [Filter] that may have nothing to do. Control planes put filters into
// every listener for the sake of a few routes, and a call that none of them concerns
// is not to pay for them.
type Idler interface {
	Filter
	// Idle reports whether Request does nothing, whatever the request.
	Idle() bool
}

// Overridable is a [Filter] whose configuration in a route is not complete by
// itself: it says only what is different from the listener's.
type Overridable interface {
	Filter
	// Override returns the filter for routes with this configuration.
	Override(config discovery.FilterConfig) (Filter, error)
}

// Build makes a filter of its configuration. It fails for a filter that cannot
// be run where it is configured: then nothing is served.
type Build func(config discovery.FilterConfig) (Filter, error)

// Exchange is one request on its way through the filters. It is used by one
// goroutine at a time.
type Exchange struct {
	// Request is the request as the filters before have left it.
	route.Request

	// Headers are those of Request, to be changed. Nil where filters cannot: on
	// the way out, where they belong to the application.
	Headers route.HeaderMap
	// Facts are what is known of the connection and of the time.
	Facts route.Facts
	// Listener is the name of the listener; "" on the way out.
	Listener string
	// TLS is the state of the connection that brought the request; nil for
	// plaintext, and on the way out.
	TLS *tls.ConnectionState
	// Body reads the beginning of the request's body, and leaves the body as it
	// was: the first limit bytes, and whether that is all of it. Nil where there is
	// no body that could be read: for calls of gRPC, which have Message, and on the way out. It waits no
	// longer than the request may take.
	Body func(limit int) (data []byte, whole bool, err error)
	// Message is the one message of a call that has no Body, and Frame makes of it
	// what Body would read; nil without one. They are two, so that a call that nobody
	// asks about pays nothing.
	Message any
	Frame   func(message any, limit int) (data []byte, whole bool, err error)
	// Routes is the table by which the request is routed.
	Routes *route.Table
	// Decision is where the request goes, so far. Its Route is nil if no route
	// matches: filters run all the same, for one of them may change that.
	Decision route.Decision

	// Pin is where the request should go, on the way out; the zero value leaves
	// that to the balancer.
	Pin Pin
	// Upstream is the address of the endpoint that has answered, when the headers
	// of its response are seen, "" if none has. It is for the way out.
	Upstream string
	// Further are the other addresses of that endpoint. They must not be changed.
	Further []string

	reroute   bool
	responses []OnResponse
	// pace is that of the response's body, nil without a limit; ends are called when
	// the exchange is over.
	pace *Pace
	ends []func()
}

// Pin is the endpoint of a session.
type Pin struct {
	// Address is "host:port", or several between commas. It comes from the caller:
	// unless an endpoint of the request's cluster has it, nothing goes there.
	Address string
	// Strict answers the request if the endpoint cannot be used, with the status
	// Missing if the cluster does not have it and with 503 otherwise.
	Strict  bool
	Missing int
}

// OnResponse changes the headers of a response before they are sent. status is
// the HTTP status; of a gRPC call, 200.
type OnResponse func(status int, h route.HeaderMap)

// Certificate is the peer's certificate, verified; nil without one.
func (x *Exchange) Certificate() *x509.Certificate {
	if x.TLS == nil || !x.TLS.HandshakeComplete || len(x.TLS.PeerCertificates) == 0 {
		return nil
	}
	return x.TLS.PeerCertificates[0]
}

// SetMetadata merges values into the metadata of a namespace, for later filters
// and for routes. A value takes the place of one with the same key.
func (x *Exchange) SetMetadata(namespace string, values map[string]any) {
	if x.Metadata == nil {
		x.Metadata = make(route.Metadata)
	}
	if x.Metadata[namespace] == nil {
		x.Metadata[namespace] = make(map[string]any, len(values))
	}
	maps.Copy(x.Metadata[namespace], values)
}

// ClearRoute has the request routed again before the next filter runs: what
// routes look at has changed (Envoy's clear_route_cache).
func (x *Exchange) ClearRoute() { x.reroute = true }

// Respond has f called with the headers of the response, also if a later filter
// or the mesh answers. What was registered last is called first, after the
// operations of the route.
func (x *Exchange) Respond(f OnResponse) { x.responses = append(x.responses, f) }

// LimitBody has the body of the application's response pass no faster than so many
// bytes per second; the slowest limit holds. It is for filters that do not end the
// request.
func (x *Exchange) LimitBody(bytesPerSecond uint64) {
	if p := newPace(bytesPerSecond); x.pace == nil || p.rate < x.pace.rate {
		x.pace = p
	}
}

// Pace is that of the response's body; nil, on which all methods work, if it is not
// limited.
func (x *Exchange) Pace() *Pace {
	if x == nil {
		return nil
	}
	return x.pace
}

// AtEnd has f called when the exchange is over: the response has passed whole, or
// has failed.
func (x *Exchange) AtEnd(f func()) { x.ends = append(x.ends, f) }

// End ends the exchange. Whoever made it calls End once, whatever became of it; on
// nil it does nothing.
func (x *Exchange) End() {
	if x == nil {
		return
	}
	for _, f := range x.ends {
		f()
	}
}

// Responds reports whether [Exchange.Response] has anything to do.
func (x *Exchange) Responds() bool { return x != nil && len(x.responses) > 0 }

// Response runs what filters have registered with [Exchange.Respond].
func (x *Exchange) Response(status int, h route.HeaderMap) {
	for _, f := range slices.Backward(x.responses) {
		f(status, h)
	}
}

// ErrNoBody is that of a call whose body cannot be read: it is still being sent, in a
// form that only the application knows.
var ErrNoBody = errors.New("the body of such a call cannot be read")

// ReadBody reads the beginning of the request's body, at most limit bytes, and tells
// whether that is all. It leaves the body as it is.
func (x *Exchange) ReadBody(limit int) (data []byte, whole bool, err error) {
	switch {
	case x.Body != nil:
		return x.Body(limit)
	case x.Frame != nil:
		return x.Frame(x.Message, limit)
	}
	return nil, false, ErrNoBody
}
