package istio

import (
	"math"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networking "istio.io/api/networking/v1alpha3"
)

const (
	httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	// defaultConnectTimeout is connectTimeout of Istio's mesh configuration.
	defaultConnectTimeout = 10 * time.Second
)

// cluster translates one cluster of a port: the whole service (subset -1), or
// a subset of its rule.
func (r *registry) cluster(name string, s *service, p *servicePort, rule *destinationRule, subset int, endpoints []*endpoint) (*clusterv3.Cluster, error) {
	policy := rule.policyFor(p.number, subset).of(s)
	c := &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: name},
		ConnectTimeout:       durationpb.New(defaultConnectTimeout),
		CircuitBreakers: &clusterv3.CircuitBreakers{
			Thresholds: []*clusterv3.CircuitBreakers_Thresholds{thresholds(policy)},
		},
	}
	if timeout := policy.pool.GetTcp().GetConnectTimeout(); timeout != nil {
		c.ConnectTimeout = timeout
	}
	applyLoadBalancer(c, policy.lb)
	if lb := policy.lb; !hashes(lb) && lb.GetSimple() == networking.LoadBalancerSettings_UNSPECIFIED {
		r.unsaid[c] = struct{}{}
	}
	applyKeepAlive(c, policy.pool.GetTcp().GetTcpKeepalive())
	applyOutlier(c, policy.outlier)
	applyLocality(c, policy)
	if rule != nil {
		c.Metadata = filterMetadata(rule.metadata)
	}
	options, err := pack(httpProtocol(p, policy.pool, p.tcp && !slices.Contains(s.others, p)))
	if err != nil {
		return nil, err
	}
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpOptions: options}
	tls := r.upstreamTLS(s, p, name, policy, endpoints)
	if err := tls.apply(c); err != nil {
		return nil, err
	}
	return c, validate(c)
}

// thresholds are the limits of a cluster. Istio's defaults are no limits,
// where Envoy's are 1024 requests and 3 retries; 0 is the default too. What is left
// of limits is reported where there are any. (Istio asks for it of every cluster.)
func thresholds(p policy) *clusterv3.CircuitBreakers_Thresholds {
	limited := p.budget != nil
	limit := func(n int32) *wrapperspb.UInt32Value {
		if n > 0 {
			limited = true
			return wrapperspb.UInt32(uint32(n))
		}
		return wrapperspb.UInt32(math.MaxUint32)
	}
	t := &clusterv3.CircuitBreakers_Thresholds{
		MaxConnections:     limit(p.pool.GetTcp().GetMaxConnections()),
		MaxPendingRequests: limit(p.pool.GetHttp().GetHttp1MaxPendingRequests()),
		MaxRequests:        limit(p.pool.GetHttp().GetHttp2MaxRequests()),
		MaxRetries:         limit(p.pool.GetHttp().GetMaxRetries()),
	}
	t.TrackRemaining = limited
	if b := p.budget; b != nil {
		t.RetryBudget = &clusterv3.CircuitBreakers_Thresholds_RetryBudget{
			BudgetPercent:       &typev3.Percent{Value: 20},
			MinRetryConcurrency: wrapperspb.UInt32(3),
		}
		if b.Percent != nil {
			t.RetryBudget.BudgetPercent.Value = b.Percent.Value
		}
		if b.MinRetryConcurrency > 0 {
			t.RetryBudget.MinRetryConcurrency.Value = b.MinRetryConcurrency
		}
	}
	return t
}

func httpProtocol(p *servicePort, pool *networking.ConnectionPoolSettings, streams bool) *httpv3.HttpProtocolOptions {
	explicit := &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
		},
	}
	upgrade := pool.GetHttp().GetH2UpgradePolicy() == networking.ConnectionPoolSettings_HTTPSettings_UPGRADE
	if p.http2 || upgrade {
		explicit.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			Http2ProtocolOptions: http2Options(pool),
		}
	}
	o := &httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit},
	}
	if pool.GetHttp().GetUseClientProtocol() {
		o.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
			UseDownstreamProtocolConfig: &httpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
				HttpProtocolOptions: &corev3.Http1ProtocolOptions{}, Http2ProtocolOptions: http2Options(pool),
			},
		}
	}
	common := &corev3.HttpProtocolOptions{
		IdleTimeout:           pool.GetHttp().GetIdleTimeout(),
		MaxConnectionDuration: pool.GetTcp().GetMaxConnectionDuration(),
	}
	if common.IdleTimeout == nil || streams {
		common.IdleTimeout = pool.GetTcp().GetIdleTimeout()
	}
	if common.IdleTimeout == nil && streams {
		// Unset it is an hour, in which a connection to a database may well be idle.
		common.IdleTimeout = durationpb.New(0)
	}
	if n := pool.GetHttp().GetMaxRequestsPerConnection(); n > 0 {
		common.MaxRequestsPerConnection = wrapperspb.UInt32(uint32(n))
	}
	if common.IdleTimeout != nil || common.MaxConnectionDuration != nil || common.MaxRequestsPerConnection != nil {
		o.CommonHttpProtocolOptions = common
	}
	return o
}
