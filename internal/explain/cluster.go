package explain

import (
	"fmt"
	"slices"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/retry"
)

// clusterOf describes a running cluster.
func clusterOf(from *upstream.Cluster, plan *pipeline.Plan) *Cluster {
	c := &Cluster{Name: from.Name(), Endpoints: []Endpoint{}}
	if err := from.Err(); err != nil {
		c.Error = err.Error()
	}
	config := from.Config()
	if config == nil {
		return c
	}
	c.Policy, c.Protocol = policyName(config.Balancer), protocolName(config.Protocol)
	c.ZoneAware = from.ZoneRouting()
	c.Outlier = config.Outlier.Ejects()
	if b := from.ErrorRate(); b != nil {
		c.Breaker = b.LastState().String()
	}
	if endpoints := from.Assignment(); endpoints != nil {
		for _, d := range endpoints.Drops {
			c.Drops = append(c.Drops, Drop{Category: d.Category, Percent: percent(d.PerMillion)})
		}
	}
	c.Limits = limits(from, config, plan.Priority)
	candidates, err := from.Candidates(plan.Prefer)
	c.Endpoints = append(c.Endpoints, endpoints(from, candidates, err)...)
	for _, leaf := range from.Leaves() {
		c.Endpoints = append(c.Endpoints, endpoints(leaf, candidates, err)...)
	}
	if plan.Prefer != nil && err == nil {
		c.prefer(from, plan.Prefer)
	}
	c.secure(from, config)
	return c
}

// prefer says of the endpoints that would be picked from if the call had no preferred
// locality that this is why they are not.
func (c *Cluster) prefer(from *upstream.Cluster, locality *balancer.Locality) {
	others, _ := from.Candidates(nil)
	for i := range c.Endpoints {
		e := &c.Endpoints[i]
		if !e.Candidate && slices.ContainsFunc(others, func(h *balancer.Host) bool { return h.Endpoint().Address == e.Address }) {
			e.Why = "the call prefers the locality " + locality.String()
		}
	}
}

// secure says whether all endpoints are reached with mutual TLS, and whom they must
// be.
func (c *Cluster) secure(from *upstream.Cluster, config *discovery.Cluster) {
	c.MutualTLS = security(config.TLS) == mutual
	for i := range c.Endpoints {
		if i == 0 {
			c.MutualTLS = true
		}
		c.MutualTLS = c.MutualTLS && c.Endpoints[i].Security == mutual
	}
	c.addPeers(config.TLS)
	for _, cluster := range append([]*upstream.Cluster{from}, from.Leaves()...) {
		for e := range cluster.Endpoints {
			c.addPeers(e.TLSSettings())
		}
	}
	slices.Sort(c.Peers)
	c.Peers = slices.Compact(c.Peers)
}

func (c *Cluster) addPeers(tls *discovery.UpstreamTLS) {
	if tls == nil {
		return
	}
	for i := range tls.SANs {
		c.Peers = append(c.Peers, tls.SANs[i].Value)
	}
	for i := range tls.Names {
		c.Peers = append(c.Peers, tls.Names[i].Value)
	}
}

const mutual = "mutual TLS"

func security(tls *discovery.UpstreamTLS) string {
	switch {
	case tls == nil:
		return "plaintext"
	case tls.IdentityInstance == "" && tls.IdentitySecret == "":
		return "TLS"
	}
	return mutual
}

// endpoints describes those of a cluster, of which candidates get the next call.
func endpoints(from *upstream.Cluster, candidates []*balancer.Host, err error) []Endpoint {
	priorities := make(map[string]uint32)
	if assignment := from.Assignment(); assignment != nil {
		for _, l := range assignment.Localities {
			for i := range l.Endpoints {
				priorities[l.Endpoints[i].Address] = l.Priority
			}
		}
	}
	var all []Endpoint
	for running := range from.Endpoints {
		h := running.Host()
		config := h.Endpoint()
		e := Endpoint{
			Address: config.Address, Hostname: config.Hostname, Locality: h.Locality().String(),
			Priority: priorities[config.Address], Weight: max(config.Weight, 1), Health: healthName(config.Health), Security: security(running.TLSSettings()),
			Unreachable: !h.Reachable(), Active: h.Active(), Candidate: slices.Contains(candidates, h),
		}
		if reason, ok := h.Ejected(); ok {
			e.Ejected = reason.String()
		}
		switch {
		case e.Candidate:
		case err != nil:
			e.Why = err.Error()
		case e.Ejected != "":
			e.Why = "it is ejected"
		case e.Unreachable:
			e.Why = "others can be reached"
		case config.Health != balancer.Unknown && config.Health != balancer.Healthy && config.Health != balancer.Degraded:
			e.Why = "it is " + e.Health
		default:
			e.Why = "others of a better priority or health suffice"
		}
		all = append(all, e)
	}
	return all
}

func limits(from *upstream.Cluster, config *discovery.Cluster, priority discovery.RoutingPriority) *Limits {
	used, most := from.Gate(priority).Usage(), config.Limits[priority]
	l := &Limits{
		Priority:    "default",
		Connections: Limit{Used: used.Connections, Max: most.MaxConnections},
		Pending:     Limit{Used: used.Pending, Max: most.MaxPendingRequests},
		Requests:    Limit{Used: used.Requests, Max: most.MaxRequests},
		Retries:     Limit{Used: used.Retries, Max: most.MaxRetries},
	}
	if priority == discovery.PriorityHigh {
		l.Priority = "high"
	}
	if b := config.RetryBudget[priority]; b != nil {
		l.Retries.Budget = fmt.Sprintf("%.4g%% of the requests, at least %d", b.Percent, b.MinConcurrency)
	}
	return l
}

func policyName(config balancer.Config) string {
	names := map[balancer.Policy]string{
		balancer.RoundRobin: "round robin", balancer.LeastRequest: "least request", balancer.Random: "random",
		balancer.RingHash: "ring hash", balancer.Maglev: "maglev", balancer.ClientWeighted: "weighted by load reports",
		balancer.PeakEWMA: "peak EWMA", balancer.PickFirst: "pick first", balancer.CustomPolicy: "a custom policy",
	}
	if name, ok := names[config.Policy]; ok {
		return name
	}
	return fmt.Sprintf("policy %d", config.Policy)
}

func hedging(h *retry.Hedge) string {
	switch {
	case h.Delay > 0:
		return fmt.Sprintf("after %v", h.Delay)
	case h.OnPerTryTimeout:
		return "on the timeout of an attempt"
	}
	return ""
}

func protocolName(p discovery.HTTPProtocol) string {
	return map[discovery.HTTPProtocol]string{
		discovery.HTTP1: "HTTP/1.1", discovery.HTTP2: "HTTP/2", discovery.HTTPAuto: "HTTP by ALPN",
		discovery.HTTPDownstream: "HTTP as the request",
	}[p]
}

func healthName(h balancer.Health) string {
	return map[balancer.Health]string{
		balancer.Unknown: "unknown", balancer.Healthy: "healthy", balancer.Unhealthy: "unhealthy",
		balancer.Draining: "draining", balancer.Timeout: "timed out", balancer.Degraded: "degraded",
	}[h]
}
