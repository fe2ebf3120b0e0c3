package pipeline

import (
	"net/http"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/outcome"
)

// steer finds out by what the call's endpoints are picked: the subset that the
// route asks for, and the hash, if the cluster looks at one, or one of those that it
// consists of. A hash key of the application goes before the configuration's policies.
// Envoy hashes a request before its route changes the headers, so that this is called
// before Adapter.Routed.
func (c *Call) steer(req *route.Request) {
	forward := c.Decision.Route.Forward
	c.pick.Match = subsetOf(&c.Decision)
	if c.options.keyed() {
		c.pick.Hash, c.pick.Hashed = xxhash.Sum64String(c.options.HashKey), true
		return
	}
	if leaves := c.cluster.Leaves(); len(leaves) > 0 {
		c.steerAmong(leaves, forward.Hash, req)
	} else if policies, _, ok := c.cluster.HashPolicies(forward.Hash); ok {
		c.pick.Hash, c.pick.Hashed, c.cookies = route.Hash(policies, req)
	}
}

// steerAmong finds out by what hash the clusters of an aggregate pick. What leads to an
// endpoint leads to its cluster, too, so that callers stay where they are: Envoy draws
// the cluster. That is by the first that looks at a hash, and finds one.
func (c *Call) steerAmong(leaves []*upstream.Cluster, policies []discovery.HashPolicy, req *route.Request) {
	var all upstream.LeafHashes
	var routed upstream.LeafHash
	hashed, differ := false, false
	for _, leaf := range leaves {
		own, isOwn, ok := leaf.HashPolicies(policies)
		if !ok {
			continue
		}
		found := upstream.LeafHash{Leaf: leaf}
		if isOwn || !hashed {
			var cookies []string
			found.Hash, found.Hashed, cookies = route.Hash(own, req)
			c.cookies = append(c.cookies, cookies...)
		}
		if isOwn {
			differ = true
		} else {
			if !hashed { // once, for what it draws is the same in all
				routed, hashed = found, true
			}
			found.Hash, found.Hashed = routed.Hash, routed.Hashed
		}
		if !c.pick.Hashed {
			c.pick.Hash, c.pick.Hashed = found.Hash, found.Hashed
		}
		all = append(all, found)
	}
	if differ {
		c.hashes = &all
	}
}

// subsetOf is the subset that a decision asks for, nil for none: the cluster's before
// the route's.
func subsetOf(d *route.Decision) *balancer.Match {
	if d.Cluster != nil && d.Cluster.Subset != nil {
		return d.Cluster.Subset
	}
	return d.Route.Forward.Subset
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

// told tells the endpoint's policy how long the attempt took. A stream takes as long as
// the application likes. A failure is no measure of an answer: that time ran out says
// that one would have taken longer, and one of the endpoint counts as a slow answer, or
// an endpoint that fails at once would be the fastest.
func (a *Attempt) told(host *balancer.Host, o *outcome.Outcome, now time.Time) {
	took := now.Sub(a.Observed.Start)
	timedOut := o.Kind == outcome.Timeout || o.Kind == outcome.PerTryTimeout
	switch streams := a.call.Observed.Streaming; {
	case timedOut && o.Sent && !streams:
		host.Waited(now, took)
	case timedOut:
	case o.Verdict() == outcome.Success && !streams:
		host.Took(now, took)
	case o.Verdict() == outcome.Failure && o.Sent:
		if streams {
			took = 0
		}
		host.Failed(now, took)
	}
}
