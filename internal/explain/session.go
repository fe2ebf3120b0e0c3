package explain

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/filter/session"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/upstream"
)

// affinity is what the session filters make of a call.
type affinity struct {
	// seen is the decision as each filter of the listener meets it.
	seen []route.Decision
	// pin is the endpoint that is asked for, by the filter with the number by. named is
	// whether its cluster is, too.
	pin   filter.Pin
	by    int
	named bool
	// effects are those of session filters by their numbers.
	effects map[int]Filter
}

// bySession is what decides about a cluster that a session names.
const bySession = "session"

// follow has the session filters look at the request, which changes nothing but d.
func (q *Question) follow(ctx context.Context, all []discovery.HTTPFilter, d *route.Decision) *affinity {
	a := &affinity{seen: make([]route.Decision, len(all)), effects: make(map[int]Filter)}
	for i := range all {
		a.seen[i] = *d
		config, ok := d.Filter(&all[i])
		c, is := config.(*discovery.StatefulSession)
		if !ok || !is {
			continue
		}
		x := &filter.Exchange{Request: q.Request, Decision: *d}
		x.Decision.Cluster = nil // so that it is seen whether the session names one
		if answer, err := session.New(c).Request(ctx, x); answer != nil || err != nil {
			continue // which it never does
		}
		if x.Pin.Address != "" {
			a.pin, a.by, a.named = x.Pin, i, x.Decision.Cluster != nil
		}
		if x.Decision.Cluster != nil {
			d.Cluster = x.Decision.Cluster
		}
		a.effects[i] = sessionEffect(c, x)
	}
	return a
}

// sessionEffect says what a session filter does to a request.
func sessionEffect(c *discovery.StatefulSession, x *filter.Exchange) Filter {
	by := "the cookie " + c.Cookie
	if c.Cookie == "" {
		by = "the header " + c.Header
	}
	switch {
	case c.Cookie == "" && c.Header == "":
		return Filter{Effect: "no session is set for the route"}
	case !x.Responds():
		return Filter{Effect: fmt.Sprintf("%s is for the path %q", by, c.NewCookie.Path)}
	case x.Pin.Address == "":
		return Filter{Enabled: true, Effect: by + " asks for no endpoint: the response brings one"}
	}
	return Filter{Enabled: true, Effect: by + " asks for " + sessionAddress(x.Pin.Address)}
}

// sessionAddress is what a caller brings, if it is an address: it may be anything.
func sessionAddress(list string) string {
	if list == session.Elsewhere {
		return "an endpoint of a cluster that the route does not lead to"
	}
	for address := range strings.SplitSeq(list, ",") {
		if _, err := netip.ParseAddrPort(address); err != nil {
			return "what is no address"
		}
	}
	return list
}

// tell adds what becomes of the session's wish to the effect of its filter.
func (a *affinity) tell(e *Explanation, cluster *upstream.Cluster, plan *pipeline.Plan, turns []upstream.Turn) {
	if a.pin.Address == "" {
		return
	}
	effect := &e.Filters[a.by].Effect
	address := func(h *balancer.Host) bool { return isOne(a.pin.Address, h.Endpoint()) }
	switch picked := len(turns) == 1 && len(turns[0].Hosts) == 1 && address(turns[0].Hosts[0]); {
	case picked && plan.Answer == nil && cluster.Pins(plan.Pick):
		*effect += ", which is picked"
		return
	case !cluster.Holds(a.pin.Address):
		*effect += ", which the cluster does not have"
	default:
		*effect += ", which cannot be used"
		if why := unusable(cluster, address, e.Cluster.Endpoints); why != "" {
			*effect += " as " + why
		}
	}
	if plan.Answer == nil {
		*effect += ": the balancer picks"
	} else {
		*effect += ": the call is answered"
	}
}

// isOne reports whether one of a list of addresses is an endpoint's.
func isOne(list string, e *balancer.Endpoint) bool {
	for address := range strings.SplitSeq(list, ",") {
		if address == e.Address || slices.Contains(e.Additional, address) {
			return true
		}
	}
	return false
}

// unusable says why no attempt goes to the host that a session asks for, "" if others may.
func unusable(cluster *upstream.Cluster, asked func(*balancer.Host) bool, explained []Endpoint) string {
	for _, c := range append([]*upstream.Cluster{cluster}, cluster.Leaves()...) {
		for running := range c.Endpoints {
			if !asked(running.Host()) {
				continue
			}
			for i := range explained {
				if explained[i].Address == running.Host().Endpoint().Address {
					if why := explained[i].Why; why != "" {
						return why
					}
					return sessionless(&explained[i])
				}
			}
		}
	}
	return ""
}
