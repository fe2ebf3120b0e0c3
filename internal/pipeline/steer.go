package pipeline

import (
	"net/http"
	"strconv"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/outcome"
)

// steer finds out by what the call's endpoints are picked: the subset that the
// route asks for, and the hash, if the cluster looks at one. A hash key of the
// application goes before the configuration's policies.
func (c *Call) steer(req *route.Request) {
	forward := c.Decision.Route.Forward
	c.pick.Match = forward.Subset
	if cluster := c.Decision.Cluster; cluster != nil && cluster.Subset != nil {
		c.pick.Match = cluster.Subset
	}
	config := c.cluster.Config()
	if c.pick.Hashed || config == nil || !config.Balancer.Policy.Hashes() {
		return
	}
	policies := config.Hash
	if policies == nil {
		policies = forward.Hash
	}
	c.pick.Hash, c.pick.Hashed, c.cookies = route.Hash(policies, req)
}

// pin takes the call to the endpoint of its session, if a filter has found one. A
// strict session whose endpoint the cluster does not have is answered.
func (c *Call) pin() *filter.Answer {
	if c.filtered == nil || c.filtered.Pin.Address == "" {
		return nil
	}
	pin := &c.filtered.Pin
	c.pick.Pinned, c.pick.Strict = pin.Address, pin.Strict
	switch {
	case !pin.Strict:
	case !c.cluster.Holds(pin.Address):
		return &filter.Answer{Status: pin.Missing, Reason: "stateful session: the endpoint is not in the cluster"}
	case !c.cluster.Pins(c.pick):
		return &filter.Answer{Status: http.StatusServiceUnavailable, Reason: "stateful session: the endpoint cannot be used"}
	}
	return nil
}

// Responds reports whether [Call.Respond] has anything to do.
func (c *Call) Responds() bool { return len(c.cookies) > 0 || c.tellsAttempts() }

// tellsAttempts reports whether the caller is told how many attempts there were.
func (c *Call) tellsAttempts() bool {
	r := c.Decision.Route
	return r != nil && r.Forward != nil && r.Forward.AttemptCountInResponse && c.Observed.Attempts > 0
}

// Respond adds to the headers of a response, before the operations of the route,
// what the caller is told: the cookies that were made for it, and the attempts.
func (c *Call) Respond(h route.HeaderMap) {
	for _, cookie := range c.cookies {
		h.Add("set-cookie", cookie)
	}
	if c.tellsAttempts() {
		h.Set("x-envoy-attempt-count", strconv.Itoa(c.Observed.Attempts))
	}
}

// told tells the endpoint's policy how long the attempt took. A stream takes as
// long as the application likes, and a failure is no measure of an answer, unless
// it was that time ran out: an answer would have taken longer.
func (a *Attempt) told(host *balancer.Host, o *outcome.Outcome, now time.Time) {
	took := now.Sub(a.Observed.Start)
	switch timedOut := o.Kind == outcome.Timeout || o.Kind == outcome.PerTryTimeout; {
	case a.call.Observed.Streaming:
	case timedOut && o.Sent:
		host.Waited(now, took)
	case o.Verdict() == outcome.Success:
		host.Took(now, took)
	}
}
