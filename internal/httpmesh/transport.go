// Package httpmesh carries HTTP calls: the client's [Transport] and the
// server's [Handler].
package httpmesh

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/meshfail"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/outcome"
)

// Transport sends requests through the mesh. It implements
// [http.RoundTripper] and keeps its contract: the request is not changed, its
// body is always closed, and a response is never accompanied by an error. Safe
// for concurrent use.
type Transport struct {
	outbound *pipeline.Outbound
	around   http.RoundTripper
	send     sender
}

var _ http.RoundTripper = (*Transport)(nil)

// sender makes one exchange with an endpoint.
type sender func(*upstream.Endpoint, *http.Request, discovery.RoutingPriority) (*http.Response, *upstream.Failure)

// NewTransport returns a transport to the targets of outbound. around carries
// requests to hosts that the mesh does not know, and all https requests; nil
// refuses them.
func NewTransport(outbound *pipeline.Outbound, around http.RoundTripper) *Transport {
	return &Transport{outbound: outbound, around: around, send: (*upstream.Endpoint).RoundTrip}
}

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
		return t.direct(req, string(name), errors.New(
			"https is end-to-end and cannot be meshed: use an http URL and let the mesh do TLS"))
	}
	target := t.outbound.TargetBytes(name)
	if _, err := target.Config(req.Context()); errors.Is(err, discovery.ErrNotFound) {
		return t.direct(req, target.Name(), err)
	}
	return t.newExchange(target, req).roundTrip()
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

func check(req *http.Request) error {
	switch {
	case req.URL == nil:
		return errors.New("mesh: request without a URL")
	case req.URL.Host == "":
		return fmt.Errorf("mesh: URL %q has no host", req.URL)
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return fmt.Errorf("mesh: URL %q: unsupported scheme %q: use http", req.URL, req.URL.Scheme)
	}
	return nil
}

func closeBody(req *http.Request) error {
	if req.Body == nil {
		return nil
	}
	return req.Body.Close()
}

// appendTargetName appends the destination's name in the configuration:
// "host:port", as net.JoinHostPort makes it.
func appendTargetName(to []byte, u *url.URL) []byte {
	if u.Port() != "" {
		return append(to, u.Host...)
	}
	host := u.Hostname()
	if strings.Contains(host, ":") {
		to = append(append(append(to, '['), host...), ']')
	} else {
		to = append(to, host...)
	}
	if u.Scheme == "https" {
		return append(to, ":443"...)
	}
	return append(to, ":80"...)
}
