package explain

import (
	"fmt"
	"slices"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/upstream"
)

// await gives the verdict on a call that is forwarded to a cluster at this moment, of
// which a first attempt may go to one of turns: it fails if it would fail at each.
func (e *Explanation) await(cluster *upstream.Cluster, turns []upstream.Turn, priority discovery.RoutingPriority) {
	if cluster.Err() != nil {
		e.Verdict, e.Reason = NoCluster, fmt.Sprintf("cluster %q cannot be used", cluster.Name())
		return
	}
	if category, all := dropped(cluster); all {
		e.Verdict, e.Reason = Overflow, fmt.Sprintf("the endpoints' assignment drops all calls, as %q", category)
		return
	}
	verdicts, reasons := make([]Verdict, len(turns)), make([]string, len(turns))
	for i := range turns {
		verdicts[i], reasons[i] = refusal(&turns[i], priority)
	}
	if !slices.Contains(verdicts, Forward) && len(turns) > 0 {
		e.Verdict, e.Reason = verdicts[0], of(&turns[0], cluster)+reasons[0]
		return
	}
	for i := range turns {
		if reasons[i] == "" {
			continue
		}
		if e.Reason != "" {
			e.Reason += "; "
		}
		e.Reason += "but " + of(&turns[i], cluster) + reasons[i]
	}
}

// of names the cluster of a turn that is not the whole of what is explained.
func of(t *upstream.Turn, cluster *upstream.Cluster) string {
	if t.Cluster == cluster {
		return ""
	}
	return fmt.Sprintf("in the cluster %q ", t.Cluster.Name())
}

// refusal says why an attempt that comes to a cluster now fails there. With the verdict
// Forward it may, for the reason, if that is not "".
func refusal(t *upstream.Turn, priority discovery.RoutingPriority) (verdict Verdict, reason string) {
	c := t.Cluster
	if err := c.Err(); err != nil {
		return NoCluster, fmt.Sprintf("it cannot be used: %v", err)
	}
	if category, all := dropped(c); all {
		return Overflow, fmt.Sprintf("the endpoints' assignment drops all calls, as %q", category)
	}
	if b := c.ErrorRate(); !b.Passes() {
		if b.State() == breaker.HalfOpen {
			return Overflow, "the error-rate breaker is half-open, and its probes are under way"
		}
		return Overflow, "the error-rate breaker is open"
	}
	used, most := c.Gate(priority).Usage(), c.Config().Limits[priority]
	if used.Requests >= most.MaxRequests {
		return Overflow, fmt.Sprintf("the limit of requests is reached: %d of %d are in flight", used.Requests, most.MaxRequests)
	}
	if t.Err != nil {
		return NoEndpoint, t.Err.Error()
	}
	if !slices.ContainsFunc(t.Hosts, func(h *balancer.Host) bool { return !upstream.Tripped(h) }) {
		return NoEndpoint, "the breaker of each endpoint lets nothing pass"
	}
	if used.Pending < most.MaxPendingRequests {
		if len(t.Panics) > 0 && c.Config().Balancer.FailOnPanic {
			reason = "calls that come to priority " + numbers(t.Panics) + " fail: too few of its endpoints are fit"
		}
		return Forward, reason
	}
	reason = fmt.Sprintf("the limit of pending requests is reached: %d of %d wait for a connection", used.Pending, most.MaxPendingRequests)
	if !slices.ContainsFunc(t.Hosts, func(h *balancer.Host) bool { return h.Connected() && !upstream.Tripped(h) }) {
		return Overflow, reason + ", and there is none to an endpoint that can be picked"
	}
	return Forward, reason + ": the call fails if none of its endpoint's is free"
}

// dropped reports whether a cluster drops all calls, and as what.
func dropped(c *upstream.Cluster) (category string, all bool) {
	assignment := c.Assignment()
	if assignment == nil {
		return "", false
	}
	const every = 1_000_000
	at := slices.IndexFunc(assignment.Drops, func(d discovery.Drop) bool { return d.PerMillion >= every })
	if at < 0 {
		return "", false
	}
	return assignment.Drops[at].Category, true
}
