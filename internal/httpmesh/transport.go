// Package httpmesh carries HTTP calls: the client's [Transport] and the
// server's [Handler].
package httpmesh

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
)

// Transport sends requests through the mesh. It implements
// [http.RoundTripper] and keeps its contract: the request is not changed, its
// body is always closed, and a response is never accompanied by an error. Safe
// for concurrent use.
type Transport struct {
	outbound *pipeline.Outbound
	around   http.RoundTripper
	send     sender
	// channel is what hash policies know the transport by.
	channel uint64

	// DeadlineHeader is the canonical name of the header that tells the next hop
	// how long its caller still waits. The default is [DefaultDeadlineHeader]. It
	// must not be changed after the first request.
	DeadlineHeader string
}

var _ http.RoundTripper = (*Transport)(nil)

// sender makes one exchange with an endpoint.
type sender func(*upstream.Endpoint, *http.Request, discovery.RoutingPriority, upstream.Departure) (*http.Response, *upstream.Failure)

// NewTransport returns a transport to the targets of outbound. around carries
// requests to hosts that the mesh does not know, and all https requests; nil
// refuses them.
func NewTransport(outbound *pipeline.Outbound, around http.RoundTripper) *Transport {
	return &Transport{
		outbound: outbound, around: around, send: (*upstream.Endpoint).Send, channel: rand.Uint64() | 1,
		DeadlineHeader: DefaultDeadlineHeader,
	}
}

var errEndToEnd = errors.New("https is end-to-end and cannot be meshed: use an http URL and let the mesh do TLS")

// RoundTrip sends one request. A response is what a peer, or the configuration,
// answered; everything else is a *meshfail.Error.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := check(req); err != nil {
		return nil, errors.Join(err, closeBody(req))
	}
	var room [128]byte
	name := appendTargetName(room[:0], req.URL)
	if req.URL.Scheme == "https" {
		// The application's own TLS cannot be looked into. It is passed
		// through, as a sidecar does.
		return t.direct(req, string(name), errEndToEnd)
	}
	target := t.outbound.TargetBytes(name)
	if !target.Configured() {
		return t.first(target, req)
	}
	return t.newExchange(target, plain(req)).roundTrip(nil)
}

// first sends one of the first requests to a target, whose configuration is yet to come.
func (t *Transport) first(target *pipeline.Target, req *http.Request) (*http.Response, error) {
	began := time.Now()
	var decided *pipeline.Decided
	switch _, err := target.Config(req.Context()); {
	case errors.Is(err, discovery.ErrNotFound):
		return t.direct(req, target.Name(), err)
	case err != nil:
		decided = pipeline.Unconfigured(err) // it is not waited for once more
	}
	own := req
	if ctx := pipeline.Remaining(req.Context(), began); ctx != req.Context() {
		own = req.WithContext(ctx)
	}
	resp, err := t.newExchange(target, plain(own)).roundTrip(decided)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

// direct sends a request round the mesh, if the outbound policy allows that.
func (t *Transport) direct(req *http.Request, name string, reason error) (*http.Response, error) {
	if t.around != nil {
		resp, err := t.around.RoundTrip(req)
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			err = &directError{target: name, reason: reason, err: err}
		}
		return resp, err
	}
	err := &meshfail.Error{
		Kind: outcome.UnknownHost, Target: name,
		Err: fmt.Errorf("refused by the outbound policy (registry only): %w", reason),
	}
	return nil, errors.Join(err, closeBody(req))
}

// directError is a host that could not be reached round the mesh. Most often
// its name, or the URL's scheme, is not what the application meant.
type directError struct {
	target      string
	reason, err error
}

func (e *directError) Error() string {
	return fmt.Sprintf("mesh: target %q: called directly (%v): %v", e.target, e.reason, e.err)
}

func (e *directError) Unwrap() error { return e.err }

// Timeout reports whether time ran out, as [net.Error] has it.
func (e *directError) Timeout() bool {
	netErr, ok := errors.AsType[net.Error](e.err)
	return ok && netErr.Timeout()
}

// check finds what net/http would refuse to write. That is the caller's fault: an
// attempt would hold it against the endpoint, and could cost its connection.
func check(req *http.Request) error {
	switch {
	case req.URL == nil:
		return errors.New("mesh: request without a URL")
	case req.URL.Host == "":
		return fmt.Errorf("mesh: URL %q has no host", req.URL.Redacted())
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return fmt.Errorf("mesh: URL %q: unsupported scheme %q: use http", req.URL.Redacted(), req.URL.Scheme)
	case hasControl(req.URL.RawQuery) || hasControl(req.URL.Opaque):
		return fmt.Errorf("mesh: URL %q has a control character: escape it", req.URL.Redacted())
	case req.URL.Scheme == "http" && req.URL.Opaque != "" && !isPlainOpaque(req.URL.Opaque):
		return fmt.Errorf("mesh: URL with the opaque part %q, which is no path: set Path, or RawPath for its spelling", req.URL.Opaque)
	case req.Method != "" && !httpguts.ValidHeaderFieldName(req.Method):
		return fmt.Errorf("mesh: invalid method %q", req.Method)
	}
	if err := checkHeader("header", req.Header); err != nil {
		return err
	}
	return checkHeader("trailer", req.Trailer)
}

func checkHeader(kind string, h http.Header) error {
	for name, values := range h {
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("mesh: invalid %s name %q", kind, name)
		}
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				return fmt.Errorf("mesh: %s %q has an invalid value", kind, name) // which may be a secret
			}
		}
	}
	return nil
}

func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
}

func closeBody(req *http.Request) error {
	if req.Body == nil {
		return nil
	}
	return req.Body.Close()
}

// appendTargetName appends the destination's name in the configuration:
// "host:port", as net.JoinHostPort makes it. However a URL spells a host, with
// capitals, with the dot of the root or with zeros before its port, it is the
// same one (RFC 3986, sections 3.2.2 and 3.2.3): a spelling is no way round the
// mesh.
func appendTargetName(to []byte, u *url.URL) []byte {
	host, port := u.Hostname(), strings.TrimLeft(u.Port(), "0")
	host = strings.TrimSuffix(host, ".")
	if strings.Contains(host, ":") {
		to = append(appendLower(append(to, '['), host), ']')
	} else {
		to = appendLower(to, host)
	}
	switch {
	case port != "":
	case u.Port() != "":
		port = "0"
	case u.Scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	return append(append(to, ':'), port...)
}

// appendLower appends s with its ASCII letters in lower case.
func appendLower(to []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		to = append(to, c)
	}
	return to
}
