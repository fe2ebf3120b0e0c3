// Package service is how filters call services of their own, such as the one
// that has the keys of tokens or the one that authorizes: through a cluster of
// the configuration, with its endpoints, its TLS, its limits and its breakers.
// A filter cannot call anything else.
package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// maxTries is how many endpoints are tried while none can be connected to.
const maxTries = 3

// errTimeout is the cause of a context whose time, by the configuration, is over.
var errTimeout = fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)

// WithTimeout returns a context for the calls of a filter to whose service the
// configuration gives so long. An endpoint that leaves it unanswered has failed; that
// ctx ends before, with whom the filter asks for, says nothing of it.
func WithTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, timeout, errTimeout)
}

// Client calls clusters. Safe for concurrent use.
type Client struct {
	find  func(cluster string) *upstream.Cluster
	hooks *observe.Hooks
}

// NewClient returns a client of the clusters that find finds; nil is one that is
// not configured.
func NewClient(find func(cluster string) *upstream.Cluster, hooks *observe.Hooks) *Client {
	return &Client{find: find, hooks: hooks}
}

// Response is a response, read to its end.
type Response struct {
	Status          int
	Header, Trailer http.Header
	Body            []byte
}

// Do sends a request to an endpoint of a cluster and reads the response, of which
// the body must not have more than limit bytes. Redirects are responses and are
// not followed. An endpoint that cannot be connected to is passed over for
// another; a request of which a byte may have been sent is not sent again. The
// error wraps the cause of ctx if it has ended.
//
// secure refuses a cluster without TLS.
func (c *Client) Do(ctx context.Context, name string, req *http.Request, limit int64, secure bool) (*Response, error) {
	cluster := c.find(name)
	if cluster == nil {
		return nil, Because(Cluster, fmt.Errorf("cluster %q: not configured", name))
	}
	cluster = cluster.Leaf(&balancer.PickInfo{})
	if err := cluster.Err(); err != nil {
		return nil, Because(Cluster, fmt.Errorf("cluster %q: %w", name, err))
	}
	if secure && cluster.Config().TLS == nil {
		return nil, Because(Cluster, fmt.Errorf("cluster %q: has no TLS, which the scheme https needs", name))
	}
	response, err := c.try(ctx, cluster, req.WithContext(ctx), limit)
	if err != nil {
		if ctx.Err() != nil {
			err = Because(reasonOfEnd(ctx), context.Cause(ctx))
		}
		return nil, fmt.Errorf("cluster %q: %w", name, err)
	}
	return response, nil
}

func (c *Client) try(ctx context.Context, cluster *upstream.Cluster, req *http.Request, limit int64) (*Response, error) {
	var permit breaker.Permit
	if b := cluster.ErrorRate(); b != nil {
		var err error
		if permit, err = b.Allow(); err != nil {
			c.overflowed(cluster, "breaker")
			return nil, Because(Overflow, err)
		}
	}
	// What did not come to an attempt counts for nothing.
	o := outcome.Outcome{Kind: outcome.Overflow}
	defer func() { permit.Done(o.Verdict()) }()
	gate := cluster.Gate(discovery.PriorityDefault)
	if !gate.TryRequest() {
		c.overflowed(cluster, "requests")
		return nil, Because(Overflow, errors.New("circuit breaker: too many requests"))
	}
	defer gate.ReleaseRequest()
	if err := cluster.Await(ctx); err != nil {
		return nil, Because(Unreachable, err)
	}
	var tried []*balancer.Host
	for {
		endpoint, err := cluster.Pick(balancer.PickInfo{Avoid: tried})
		if err != nil {
			return nil, Because(Unreachable, err)
		}
		response, attempted, err := exchange(endpoint, req, limit)
		o = attempted
		if o.Kind != outcome.ConnectFailure { // which is told by who tried to connect
			endpoint.Report(&o)
		}
		if err == nil {
			return response, nil
		}
		tried = append(tried, endpoint.Host())
		if again := o.Kind == outcome.ConnectFailure && len(tried) < maxTries && ctx.Err() == nil; !again || !rewind(req) {
			return nil, Because(reasonOfAttempt(o.Kind), fmt.Errorf("endpoint %s: %w", endpoint.Address(), err))
		}
	}
}

var errSwitched = errors.New("the service switches to another protocol, for which it was not asked")

// exchange makes one attempt.
func exchange(endpoint *upstream.Endpoint, req *http.Request, limit int64) (*Response, outcome.Outcome, error) {
	endpoint.Host().Begin()
	defer endpoint.Host().End()
	resp, failure := endpoint.RoundTrip(req, discovery.PriorityDefault)
	if failure != nil {
		o := outcome.Outcome{Kind: failure.Kind, Sent: failure.Sent, Err: failure.Err}
		if ctx := req.Context(); ctx.Err() != nil {
			if o.Kind = outcome.Canceled; errors.Is(context.Cause(ctx), errTimeout) {
				o.Kind = outcome.Timeout
			}
		}
		return nil, o, failure.Err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		// The body is the connection now, which nothing ends but its peer.
		return nil, outcome.Outcome{Kind: outcome.Response, Status: resp.StatusCode, Sent: true}, errSwitched
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	o := outcome.Outcome{Kind: outcome.Response, Status: resp.StatusCode, Sent: true}
	switch {
	case err != nil:
		o = outcome.Outcome{Kind: outcome.Reset, Sent: true, Err: err}
		if req.Context().Err() != nil {
			o.Kind = outcome.Canceled // it had begun to answer
		}
		return nil, o, err
	case int64(len(body)) > limit:
		return nil, o, fmt.Errorf("the response has more than %d bytes", limit)
	}
	return &Response{Status: resp.StatusCode, Header: resp.Header, Trailer: resp.Trailer, Body: body}, o, nil
}

// rewind gets the body ready to be sent again.
func rewind(req *http.Request) bool {
	if req.Body == nil || req.Body == http.NoBody {
		return true
	}
	if req.GetBody == nil {
		return false
	}
	body, err := req.GetBody()
	if err != nil {
		return false
	}
	req.Body = body
	return true
}

func (c *Client) overflowed(cluster *upstream.Cluster, resource string) {
	if hook := c.hooks.Overflowed; hook != nil {
		hook(observe.OverflowEvent{Cluster: cluster.Name(), Resource: resource})
	}
}
