package istio

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	networking "istio.io/api/networking/v1alpha3"
)

// destinationRule is the DestinationRule of one host, or of all that a wildcard
// covers.
type destinationRule struct {
	at      at
	spec    *networking.DestinationRule
	host    string
	exports exports
	// metadata is that of every cluster, from annotations; nil without any.
	metadata map[string]*structpb.Struct
}

func (r *registry) addRule(o *object, spec *networking.DestinationRule, a at) {
	checkTrafficPolicy(spec.TrafficPolicy, a.field("trafficPolicy"))
	seen := make(map[string]bool)
	for i, subset := range spec.Subsets {
		sa := a.field("subsets").index(i)
		switch {
		case !isDNSLabel(subset.Name):
			sa.field("name").errorf("%q is not the name of a subset: use lower case letters, digits and '-'", subset.Name)
		case seen[subset.Name]:
			sa.field("name").errorf("%q is the name of two subsets", subset.Name)
		}
		seen[subset.Name] = true
		checkSelector(subset.Labels, sa.field("labels"))
		checkTrafficPolicy(subset.TrafficPolicy, sa.field("trafficPolicy"))
	}
	rule := &destinationRule{
		at: a, spec: spec, host: fullHost(spec.Host, o.namespace),
		exports: newExports(o, spec.ExportTo, a.field("exportTo")),
	}
	rule.metadata = r.readAnnotations(o, breakerAnnotation, throttleAnnotation, balancerAnnotation, subsettingAnnotation, prioritiesAnnotation)
	if !checkPattern(rule.host, true, a.field("host")) {
		return
	}
	for _, other := range r.destinationRules {
		if other.host == rule.host && other.at.obj.namespace == o.namespace {
			a.field("host").errorf("%q already has %s: merging is not supported", rule.host, other.at.obj.source())
			return
		}
	}
	r.hashing = r.hashing || rule.hashes()
	r.rules.add(rule.host, rule)
	r.destinationRules = append(r.destinationRules, rule)
}

// checkReferences checks what a rule says about the services of its host.
func (d *destinationRule) checkReferences(host string, services []*service) {
	check := func(p *networking.TrafficPolicy, a at) {
		for i, pl := range p.GetPortLevelSettings() {
			number := pl.GetPort().GetNumber()
			if isPort(number) && !slices.ContainsFunc(services, func(s *service) bool { return s.listsPort(number) }) {
				a.field("portLevelSettings").index(i).field("port").field("number").wrong(
					host, noEffect, "%q has no port %d", host, number)
			}
		}
	}
	check(d.spec.TrafficPolicy, d.at.field("trafficPolicy"))
	for i, subset := range d.spec.Subsets {
		check(subset.TrafficPolicy, d.at.field("subsets").index(i).field("trafficPolicy"))
	}
}

func checkTrafficPolicy(p *networking.TrafficPolicy, a at) {
	if p == nil {
		return
	}
	checkSettings(p.LoadBalancer, p.ConnectionPool, p.OutlierDetection, p.Tls, a)
	if percent := p.RetryBudget.GetPercent(); percent != nil && (percent.Value < 0 || percent.Value > 100) {
		a.field("retryBudget").field("percent").errorf("%v is not in 0..100", percent.Value)
	}
	seen := make(map[uint32]bool)
	for i, pl := range p.PortLevelSettings {
		pa := a.field("portLevelSettings").index(i)
		number := pl.GetPort().GetNumber()
		switch {
		case !isPort(number):
			pa.field("port").field("number").errorf("%d is not a port: use 1..65535", number)
		case seen[number]:
			pa.field("port").field("number").errorf("%d is set twice", number)
		}
		seen[number] = true
		checkSettings(pl.LoadBalancer, pl.ConnectionPool, pl.OutlierDetection, pl.Tls, pa)
	}
}

func checkSettings(
	lb *networking.LoadBalancerSettings, pool *networking.ConnectionPoolSettings,
	outlier *networking.OutlierDetection, tls *networking.ClientTLSSettings, a at,
) {
	checkLoadBalancer(lb, a.field("loadBalancer"))
	checkLocality(lb.GetLocalityLbSetting(), outlier, a.field("loadBalancer").field("localityLbSetting"))
	checkPool(pool, a.field("connectionPool"))
	checkOutlier(outlier, a.field("outlierDetection"))
	checkTLS(tls, a.field("tls"))
}

func checkPool(pool *networking.ConnectionPoolSettings, a at) {
	natural := func(n int32, a at) {
		if n < 0 {
			a.errorf("%d is negative", n)
		}
	}
	if tcp := pool.GetTcp(); tcp != nil {
		ta := a.field("tcp")
		natural(tcp.MaxConnections, ta.field("maxConnections"))
		checkDuration(tcp.ConnectTimeout, ta.field("connectTimeout"))
		checkDuration(tcp.MaxConnectionDuration, ta.field("maxConnectionDuration"))
		if d := tcp.IdleTimeout; d != nil && d.AsDuration() != 0 { // 0 is never
			checkDuration(d, ta.field("idleTimeout"))
		}
		checkKeepAlive(tcp.TcpKeepalive, ta.field("tcpKeepalive"))
	}
	if http := pool.GetHttp(); http != nil {
		ha := a.field("http")
		natural(http.Http1MaxPendingRequests, ha.field("http1MaxPendingRequests"))
		natural(http.Http2MaxRequests, ha.field("http2MaxRequests"))
		natural(http.MaxRequestsPerConnection, ha.field("maxRequestsPerConnection"))
		natural(http.MaxRetries, ha.field("maxRetries"))
		checkDuration(http.IdleTimeout, ha.field("idleTimeout"))
		if http.UseClientProtocol && http.H2UpgradePolicy == networking.ConnectionPoolSettings_HTTPSettings_UPGRADE {
			ha.field("useClientProtocol").errorf("contradicts h2UpgradePolicy: UPGRADE: remove one of the two")
		}
		natural(http.MaxConcurrentStreams, ha.field("maxConcurrentStreams"))
		checkPings(http.Http2KeepAlive, ha.field("http2KeepAlive"))
	}
}

// checkDuration applies Istio's limits, which kubectl would apply too.
func checkDuration(d *durationpb.Duration, a at) {
	if d == nil {
		return
	}
	switch v := d.AsDuration(); {
	case v < time.Millisecond:
		a.errorf("%v is too short: use at least 1ms, or leave the field out", v)
	case v%time.Millisecond != 0:
		a.errorf("%v is too precise: use whole milliseconds", v)
	}
}

func checkTLS(tls *networking.ClientTLSSettings, a at) {
	if tls == nil {
		return
	}
	switch tls.Mode {
	case networking.ClientTLSSettings_ISTIO_MUTUAL:
		if tls.CredentialName != "" {
			a.field("credentialName").refuse("has no effect with mode ISTIO_MUTUAL: remove it")
		}
	case networking.ClientTLSSettings_SIMPLE:
	case networking.ClientTLSSettings_MUTUAL:
		// Istio also takes files of the proxy: a control plane names no files of
		// its clients here.
		if tls.CredentialName == "" {
			a.field("credentialName").errorf("is required with mode MUTUAL: the name of a certificate provider in the clients' bootstrap")
		}
	case networking.ClientTLSSettings_DISABLE:
		if !a.field("mode").written() {
			a.field("mode").errorf("is required, because Istio takes a missing mode as DISABLE: use ISTIO_MUTUAL or DISABLE")
		}
		for _, name := range []string{"subjectAltNames", "sni", "credentialName"} {
			if a.field(name).written() {
				a.field(name).refuse("has no effect with mode DISABLE: remove it")
			}
		}
	default:
		a.field("mode").errorf("%v is not supported: use ISTIO_MUTUAL, SIMPLE, MUTUAL or DISABLE", tls.Mode)
	}
	for i, san := range tls.SubjectAltNames {
		if san == "" {
			a.field("subjectAltNames").index(i).errorf("must not be empty")
		}
	}
}

// policy is the traffic policy of one cluster.
type policy struct {
	lb      *networking.LoadBalancerSettings
	pool    *networking.ConnectionPoolSettings
	outlier *networking.OutlierDetection
	budget  *networking.TrafficPolicy_RetryBudget
	tls     *networking.ClientTLSSettings
	tlsAt   at
	// distribution is what the service says itself; nil is nothing.
	distribution *networking.LocalityLoadBalancerSetting
}

// of is the policy of a service.
func (p policy) of(s *service) policy {
	p.distribution = s.distribution
	return p
}

// originates reports whether calls are encrypted for a server outside of the mesh. Then they
// can go to a port whose callers encrypt by themselves.
func (p policy) originates() bool {
	return p.tls.GetMode() == networking.ClientTLSSettings_SIMPLE || p.tls.GetMode() == networking.ClientTLSSettings_MUTUAL
}

// policyFor is the policy for a port of the host, merged as Istio merges: what
// is set for a port replaces the whole policy around it, a subset's policy
// replaces what it sets of the host's, and a subset's policy for a port
// replaces everything but the retry budget.
func (d *destinationRule) policyFor(port uint32, subset int) policy {
	if d == nil {
		return policy{}
	}
	base, _ := portPolicy(d.spec.TrafficPolicy, port, d.at.field("trafficPolicy"))
	if subset < 0 || d.spec.Subsets[subset].TrafficPolicy == nil {
		return base
	}
	own, forPort := portPolicy(d.spec.Subsets[subset].TrafficPolicy, port,
		d.at.field("subsets").index(subset).field("trafficPolicy"))
	merged := base
	if own.lb != nil || forPort {
		merged.lb = own.lb
	}
	if own.pool != nil || forPort {
		merged.pool = own.pool
	}
	if own.outlier != nil || forPort {
		merged.outlier = own.outlier
	}
	if own.tls != nil || forPort {
		merged.tls, merged.tlsAt = own.tls, own.tlsAt
	}
	if own.budget != nil {
		merged.budget = own.budget
	}
	return merged
}

func portPolicy(p *networking.TrafficPolicy, port uint32, a at) (policy, bool) {
	for i, pl := range p.GetPortLevelSettings() {
		if pl.GetPort().GetNumber() == port {
			tlsAt := a.field("portLevelSettings").index(i).field("tls")
			return policy{
				lb: pl.LoadBalancer, pool: pl.ConnectionPool, outlier: pl.OutlierDetection,
				tls: pl.Tls, tlsAt: tlsAt,
			}, true
		}
	}
	return policy{
		lb: p.GetLoadBalancer(), pool: p.GetConnectionPool(), outlier: p.GetOutlierDetection(),
		budget: p.GetRetryBudget(), tls: p.GetTls(), tlsAt: a.field("tls"),
	}, false
}
