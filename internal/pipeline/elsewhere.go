package pipeline

import (
	"slices"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// remember makes the next attempt go elsewhere than this one: by the policy's
// predicates, and always if the endpoint could not be reached.
func (c *Call) remember(a *Attempt, o *outcome.Outcome) {
	host, p := a.goneTo(), c.policy
	for _, h := range a.pick.Avoid { // those that it could not connect to
		c.avoid(h)
	}
	if p.OmitCanary || len(p.OmitMetadata) > 0 {
		c.pick.Omit = omitted(p)
	}
	c.pick.Beyond = c.pick.Beyond || a.pick.Beyond || o.Kind == outcome.ConnectFailure
	if host == nil {
		return
	}
	if p.AvoidPreviousHosts || o.Kind == outcome.ConnectFailure || o.Kind == outcome.RefusedStream {
		c.avoid(host)
	}
	if p.PriorityUpdates > 0 {
		c.avoidPriorities(a.pick.PriorityBase + host.Priority())
	}
}

// avoid makes later picks pass over a host.
func (c *Call) avoid(h *balancer.Host) { c.pick.Avoid = avoiding(c.pick.Avoid, h) }

// avoiding adds a host to a list. A call that waits for ready may come by often.
func avoiding(list []*balancer.Host, h *balancer.Host) []*balancer.Host {
	if slices.Contains(list, h) {
		return list
	}
	return append(list, h)
}

// avoidPriorities is the previous_priorities plugin of Envoy: after each so many
// attempts the priorities that they went to are avoided. When an attempt had
// none left but these, they begin anew.
func (c *Call) avoidPriorities(tried uint32) {
	if slices.Contains(c.pick.AvoidPriorities, tried) {
		c.priorities = nil
	}
	c.priorities = append(c.priorities, tried)
	complete := len(c.priorities) - len(c.priorities)%int(c.policy.PriorityUpdates)
	c.pick.AvoidPriorities = c.priorities[:complete]
}

// omitted is the hosts that the policy's predicates leave out of retries.
func omitted(p *retry.Policy) func(*balancer.Host) bool {
	return func(h *balancer.Host) bool {
		metadata := h.Endpoint().Metadata["envoy.lb"]
		return p.OmitCanary && metadata["canary"] == "true" || len(p.OmitMetadata) > 0 && hasAll(metadata, p.OmitMetadata)
	}
}

func hasAll(metadata, want map[string]string) bool {
	for key, value := range want {
		if got, ok := metadata[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// mayRetry reports whether the policy retries such a request at all
// (retriable_request_headers).
func mayRetry(h *discovery.RetryHeaders, req *route.Request) bool {
	return len(h.Request) == 0 || matchesAny(h.Request, req)
}

func matchesAny(matches []discovery.HeaderMatch, req *route.Request) bool {
	return slices.ContainsFunc(matches, func(m discovery.HeaderMatch) bool { return route.MatchHeader(&m, req) })
}

// ReadsReply reports whether headers of a response that are not its trailers decide
// about retries.
func (c *Call) ReadsReply() bool {
	return c.headers != nil || c.policy.RateLimited != nil || c.policy.On&retry.OnEnvoyRateLimited != 0
}

// readReply looks for the response headers that call for a retry.
func (c *Call) readReply(a *Attempt, o *outcome.Outcome) {
	reply := a.Reply
	if o.Kind != outcome.Response || reply == nil {
		return
	}
	o.RetriableHeader = matchesAny(c.headers.Response, &route.Request{Header: reply})
	if o.RetriableHeader && o.Header == nil { // as for a success
		o.Header = func(name string) string {
			if values := reply.Values(name); len(values) > 0 {
				return values[0]
			}
			return ""
		}
	}
}

// throttled counts a failure that the policy is about, or after which the server
// forbids retries, and reports whether too many of them forbid one (gRFC A6,
// "Throttling Retry Attempts").
func (c *Call) throttled(o *outcome.Outcome) bool {
	throttle := c.cluster.Throttle()
	if throttle == nil {
		return false
	}
	_, forbidden, _ := retry.Pushback(o)
	if !forbidden && !c.policy.Retryable(o) {
		return false
	}
	throttle.Failed()
	if throttle.Allows() {
		return false
	}
	if !forbidden && c.sequence.Remaining() > 0 {
		c.overflowed(c.cluster, "throttle")
	}
	return true
}
