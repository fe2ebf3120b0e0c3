package explain

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/retry"
)

// clusterOf describes a running cluster, of which an attempt may go to some now.
func clusterOf(from *upstream.Cluster, plan *pipeline.Plan, turns []upstream.Turn) *Cluster {
	c := &Cluster{Name: from.Name(), Endpoints: []Endpoint{}}
	if err := from.Err(); err != nil {
		c.Error = err.Error()
	}
	config := from.Config()
	if config == nil {
		return c
	}
	own := leafOf(from, plan)
	c.Policy, c.Protocol, c.ZoneAware, c.Outlier = own.Policy, own.Protocol, own.ZoneAware, own.Outlier
	c.Limits, c.Breaker, c.Drops = own.Limits, own.Breaker, own.Drops
	c.Detectors, c.SlowStart, c.Checks = own.Detectors, own.SlowStart, own.Checks
	c.Pool, c.PanicThreshold, c.Subsetting = own.Pool, own.PanicThreshold, own.Subsetting
	leaves := from.Leaves()
	for _, running := range leaves {
		leaf := leafOf(running, plan)
		leaf.Limits.Retries = unlimited
		if at := slices.IndexFunc(turns, func(t upstream.Turn) bool { return t.Cluster == running }); at >= 0 {
			_, leaf.Refuses = refusal(&turns[at], plan.Priority)
			leaf.Panic = panicking(&turns[at])
		}
		c.Leaves = append(c.Leaves, leaf)
	}
	picked := candidates(turns)
	if plan.Answer != nil {
		picked = nil
	}
	looser := loosened(from, plan)
	c.Shares = shares(from, plan.Pick.Match)
	if len(leaves) == 0 {
		c.Endpoints = append(c.Endpoints, endpoints(from, plan, picked, turns, looser)...)
		for i := range turns { // there is one
			c.Panic = panicking(&turns[i])
		}
	} else {
		c.Policy, c.Protocol = aggregatePolicy, ""
		c.Limits.Connections, c.Limits.Pending, c.Limits.Requests = unlimited, unlimited, unlimited
		c.Breaker, c.ZoneAware, c.Outlier = "", "", false
		c.Detectors, c.SlowStart, c.Checks, c.Pool = "", "", "", ""
	}
	for _, leaf := range leaves {
		all := endpoints(leaf, plan, picked, turns, looser)
		for i := range all {
			all[i].Cluster = leaf.Name()
		}
		c.Endpoints = append(c.Endpoints, all...)
	}
	c.secure(from, config)
	return c
}

// aggregatePolicy is how an aggregate balances.
const aggregatePolicy = "priorities of clusters, one after the other"

// unlimited is the limit of what a cluster does not bound.
var unlimited = Limit{Max: math.MaxUint32}

// leafOf describes what a cluster has beside its endpoints.
func leafOf(from *upstream.Cluster, plan *pipeline.Plan) Leaf {
	l := Leaf{Name: from.Name(), Limits: new(Limits)}
	if err := from.Err(); err != nil {
		l.Error = err.Error()
	}
	config := from.Config()
	if config == nil {
		return l
	}
	l.Policy, l.Protocol = policyName(config.Balancer), protocolName(config.Protocol)
	l.ZoneAware, l.Pool = from.ZoneRouting(), pool(config, plan)
	l.Outlier, l.Detectors = config.Outlier.Ejects(), detectors(config.Outlier)
	l.SlowStart, l.Checks = slowStart(&config.Balancer), checks(config.HealthCheck)
	l.PanicThreshold, l.Subsetting = config.Balancer.PanicThreshold, subsetting(from)
	if b := from.ErrorRate(); b != nil {
		l.Breaker = b.State().String()
	}
	if assignment := from.Assignment(); assignment != nil {
		for _, d := range assignment.Drops {
			l.Drops = append(l.Drops, Drop{Category: d.Category, Percent: percent(d.PerMillion)})
		}
	}
	l.Limits = limits(from, config, plan.Priority)
	return l
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

// nobody stands for the identity without a service account that the control plane lets a
// cluster without endpoints expect.
const nobody = "nobody, as no endpoint says who it is"

func (c *Cluster) addPeers(tls *discovery.UpstreamTLS) {
	if tls == nil {
		return
	}
	for i := range tls.SANs {
		name := tls.SANs[i].Value
		if strings.HasPrefix(name, "spiffe://") && strings.HasSuffix(name, "/sa/") {
			name = nobody
		}
		c.Peers = append(c.Peers, name)
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
