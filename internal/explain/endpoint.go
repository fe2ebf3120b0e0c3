package explain

import (
	"slices"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
)

// breakerRefuses is why an endpoint is not picked, or, if no other can be, why a call
// fails that picks it.
const breakerRefuses = "its breaker lets nothing pass"

// candidates are the hosts that a first attempt may go to.
func candidates(turns []upstream.Turn) map[*balancer.Host]bool {
	picked := make(map[*balancer.Host]bool)
	for i := range turns {
		for _, h := range turns[i].Hosts {
			picked[h] = true
		}
	}
	return picked
}

// endpoints describes those of a cluster, of which an attempt may go to the picked ones.
func endpoints(from *upstream.Cluster, plan *pipeline.Plan, picked map[*balancer.Host]bool, turns []upstream.Turn, looser []looser) []Endpoint {
	priorities, weightless := make(map[string]uint32), make(map[string]bool)
	if assignment := from.Assignment(); assignment != nil {
		weighted := from.Config() != nil && from.Config().Balancer.LocalityWeighted
		for _, l := range assignment.Localities {
			for i := range l.Endpoints {
				priorities[l.Endpoints[i].Address] = l.Priority
				if weighted && l.Weight == 0 {
					weightless[l.Endpoints[i].Address] = true
				}
			}
		}
	}
	why := reasons{cluster: from, plan: plan, weightless: weightless, looser: looser}
	if at := slices.IndexFunc(turns, func(t upstream.Turn) bool { return t.Cluster == from }); at >= 0 {
		why.turn = &turns[at]
	}
	var all []Endpoint
	for running := range from.Endpoints {
		h := running.Host()
		config := h.Endpoint()
		e := Endpoint{
			Address: config.Address, Hostname: config.Hostname, Locality: h.Locality().String(),
			Priority: priorities[config.Address], Weight: max(config.Weight, 1), Health: healthName(config.Health), Security: security(running.TLSSettings()),
			Unreachable: !h.Reachable(), Active: h.Active(), Candidate: picked[h] && !running.Refuses(),
		}
		e.Check = checked(running)
		if warmth := from.Warmth(h); warmth < 1 {
			e.Warmth = 100 * warmth
		}
		if reason, ok := h.Ejected(); ok {
			e.Ejected = reason.String()
		}
		if !e.Candidate {
			e.Why = why.not(&e, running)
		}
		all = append(all, e)
	}
	return all
}

// reasons says why endpoints of a cluster are not picked.
type reasons struct {
	cluster *upstream.Cluster
	plan    *pipeline.Plan
	// turn is nil if no attempt goes to the cluster.
	turn *upstream.Turn
	// weightless are those whose locality has no weight although it needs one.
	weightless map[string]bool
	looser     []looser
}

// looser are the hosts that would be picked from if one thing, and those before it, did
// not narrow the pick, and why that excludes others.
type looser struct {
	hosts map[*balancer.Host]bool
	why   func(*balancer.Host, *Endpoint) string
}

// loosened are the hosts for a call if less narrowed the pick.
func loosened(from *upstream.Cluster, plan *pipeline.Plan) []looser {
	var all []looser
	info, hashes := plan.Pick, plan.Hashes
	add := func(why func(*balancer.Host, *Endpoint) string) {
		all = append(all, looser{candidates(from.Turns(info, hashes)), why})
	}
	if asked := info.Pinned; asked != "" {
		info.Pinned, info.Strict = "", false
		add(func(h *balancer.Host, e *Endpoint) string {
			if isOne(asked, h.Endpoint()) {
				return sessionless(e)
			}
			return "the session asks for another endpoint"
		})
	}
	if info.Hashed || hashes != nil {
		info.Hash, info.Hashed, hashes = 0, false, nil
		add(func(*balancer.Host, *Endpoint) string { return "the hash leads to another endpoint" })
	}
	if there := info.Prefer; there != nil {
		info.Prefer = nil
		add(func(*balancer.Host, *Endpoint) string { return "the call prefers the locality " + there.String() })
	}
	return all
}

// sessionless says that the health of an endpoint is one with which it keeps no session.
func sessionless(e *Endpoint) string {
	health := e.Health
	if e.Check == "degraded" {
		health = e.Check
	}
	return "no session is kept with one that is " + health
}

// turnsOf are those of a call; if its session fails it, those without.
func turnsOf(cluster *upstream.Cluster, plan *pipeline.Plan) []upstream.Turn {
	info := plan.Pick
	if plan.Answer != nil {
		info.Pinned, info.Strict = "", false
	}
	return cluster.Turns(info, plan.Hashes)
}

// not says why an endpoint is not picked.
func (r *reasons) not(e *Endpoint, running *upstream.Endpoint) string {
	h := running.Host()
	config := h.Endpoint()
	if at := slices.IndexFunc(r.looser, func(l looser) bool { return l.hosts[h] }); at >= 0 && !running.Refuses() {
		return r.looser[at].why(h, e)
	}
	switch {
	case r.turn != nil && r.turn.Err != nil:
		return r.turn.Err.Error()
	case !r.cluster.OfSubset(h, r.plan.Pick.Match):
		return "it is not of the subset that the route asks for"
	case r.weightless[e.Address]:
		return "its locality has no weight, by which the cluster balances"
	case e.Ejected != "":
		return "it is ejected"
	case e.Unreachable:
		return "others can be reached"
	case running.Refuses():
		return breakerRefuses
	case e.Check == notYet && h.Check() != balancer.NotChecked:
		return "it has not passed a health check yet"
	case h.Check() == balancer.Failing || h.Check() == balancer.Excluded:
		return "its health check fails"
	case config.Health != balancer.Unknown && config.Health != balancer.Healthy && config.Health != balancer.Degraded:
		return "it is " + e.Health
	case r.turn == nil:
		return "other clusters of the aggregate suffice"
	case r.cluster.Config().Balancer.FailOnPanic && slices.Contains(r.turn.Panics, h.Priority()):
		return "too few endpoints of its priority are fit"
	case r.elsewhere(h):
		return "zone aware routing keeps the calls in other localities"
	}
	return "others of a better priority or health suffice"
}

// elsewhere reports whether zone aware routing is why nothing comes to a healthy host of
// the first priority: nothing comes to any of its locality.
func (r *reasons) elsewhere(h *balancer.Host) bool {
	zoned := func(o *balancer.Host) bool {
		return o.Priority() == 0 && o.Endpoint().Health != balancer.Degraded && o.Check() != balancer.PassingDegraded
	}
	return r.cluster.ZoneRouting() == "on" && zoned(h) &&
		!slices.ContainsFunc(r.turn.Hosts, func(o *balancer.Host) bool { return zoned(o) && o.Locality() == h.Locality() })
}

func healthName(h balancer.Health) string {
	return map[balancer.Health]string{
		balancer.Unknown: "unknown", balancer.Healthy: "healthy", balancer.Unhealthy: "unhealthy",
		balancer.Draining: "draining", balancer.Timeout: "timed out", balancer.Degraded: "degraded",
	}[h]
}
