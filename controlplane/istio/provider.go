package istio

import (
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	mesh "istio.io/api/mesh/v1alpha1"
	security "istio.io/api/security/v1beta1"
)

const (
	rbacFilter     = "envoy.filters.http.rbac"
	extAuthzFilter = "envoy.filters.http.ext_authz"
	// customPrefix begins the keys under which the policies of a provider leave
	// whether they match, customPolicy their names. Both are Istio's.
	customPrefix = "istio_ext_authz_"
	customPolicy = "istio-ext-authz"
	shadowPolicy = "shadow_effective_policy_id"
	// defaultCheckTimeout is Istio's. The request's own deadline ends a check too.
	defaultCheckTimeout = 600 * time.Second
	// maxCheckedBody is how much of a body a process of the mesh reads for a check.
	maxCheckedBody = 64 << 20
)

type (
	grpcProvider = mesh.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationGrpcProvider
	httpProvider = mesh.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationHttpProvider
	checkedBody  = mesh.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationRequestBody
)

// provider is an external authorization service of the mesh configuration.
type provider struct {
	at at
	// namespace is that of the service, "" for the one that everybody sees.
	namespace, host string
	port            uint32
	// filter is all but the service's cluster.
	filter *authzv3.ExtAuthz
}

func (p *provider) cluster() string { return clusterName(p.port, "", p.host) }

// addProviders checks the providers of the mesh configuration.
func (r *registry) addProviders(config *mesh.MeshConfig, a at) {
	for i, m := range config.GetExtensionProviders() {
		pa := a.field("extensionProviders").index(i)
		if m.GetName() == "" {
			pa.field("name").errorf("must not be empty: policies refer to it")
			continue
		}
		if _, ok := r.providers[m.GetName()]; ok {
			pa.field("name").errorf("%q is defined twice", m.GetName())
			continue
		}
		p := &provider{at: pa}
		switch kind := m.GetProvider().(type) {
		case *mesh.MeshConfig_ExtensionProvider_EnvoyExtAuthzGrpc:
			p.at = pa.field("envoyExtAuthzGrpc")
			p.grpc(kind.EnvoyExtAuthzGrpc)
		case *mesh.MeshConfig_ExtensionProvider_EnvoyExtAuthzHttp:
			p.at = pa.field("envoyExtAuthzHttp")
			p.http(kind.EnvoyExtAuthzHttp)
		default:
			pa.errorf("must have envoyExtAuthzGrpc or envoyExtAuthzHttp")
			continue
		}
		r.providers[m.GetName()] = p
	}
}

func (p *provider) grpc(m *grpcProvider) {
	p.service(m.GetService(), m.GetPort())
	timeout := checkTimeout(m.GetTimeout(), p.at.field("timeout"))
	p.filter = p.common(m.GetFailOpen(), m.GetClearRouteCache(), m.GetStatusOnError(), m.GetIncludeRequestBodyInCheck())
	p.filter.Services = &authzv3.ExtAuthz_GrpcService{GrpcService: &corev3.GrpcService{
		TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
			ClusterName: p.cluster(), Authority: p.host,
		}},
		Timeout: timeout,
	}}
}

func (p *provider) http(m *httpProvider) {
	p.service(m.GetService(), m.GetPort())
	timeout := checkTimeout(m.GetTimeout(), p.at.field("timeout"))
	prefix := m.GetPathPrefix()
	if prefix != "" && !strings.HasPrefix(prefix, "/") {
		p.at.field("pathPrefix").errorf("%q must begin with /", prefix)
	}
	p.filter = p.common(m.GetFailOpen(), m.GetClearRouteCache(), m.GetStatusOnError(), m.GetIncludeRequestBodyInCheck())
	sent, sentAt := m.GetIncludeRequestHeadersInCheck(), p.at.field("includeRequestHeadersInCheck")
	if len(sent) == 0 {
		//nolint:staticcheck // the deprecated field is still in use
		sent, sentAt = m.GetIncludeHeadersInCheck(), p.at.field("includeHeadersInCheck")
	}
	p.filter.AllowedHeaders = headerPatterns(sent, sentAt)
	service := &authzv3.HttpService{
		ServerUri: &corev3.HttpUri{
			Uri:              "http://" + hostPort(p.host, p.port),
			HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: p.cluster()},
			Timeout:          timeout,
		},
		PathPrefix: prefix,
		AuthorizationResponse: &authzv3.AuthorizationResponse{
			AllowedUpstreamHeaders:        headerPatterns(m.GetHeadersToUpstreamOnAllow(), p.at.field("headersToUpstreamOnAllow")),
			AllowedClientHeaders:          headerPatterns(m.GetHeadersToDownstreamOnDeny(), p.at.field("headersToDownstreamOnDeny")),
			AllowedClientHeadersOnSuccess: headerPatterns(m.GetHeadersToDownstreamOnAllow(), p.at.field("headersToDownstreamOnAllow")),
		},
	}
	if added := m.GetIncludeAdditionalHeadersInCheck(); len(added) > 0 {
		service.AuthorizationRequest = &authzv3.AuthorizationRequest{}
		for _, name := range sortedKeys(added) {
			in := p.at.field("includeAdditionalHeadersInCheck").key(name)
			if !isHeaderName(name) || isAuthority(name) {
				in.refuse("is not a header that can be set")
			}
			checkPlainValue(added[name], in)
			service.AuthorizationRequest.HeadersToAdd = append(service.AuthorizationRequest.HeadersToAdd,
				&corev3.HeaderValue{Key: name, Value: added[name]})
		}
	}
	p.filter.Services = &authzv3.ExtAuthz_HttpService{HttpService: service}
}

// service reads "HOST" or "NAMESPACE/HOST", and the port.
func (p *provider) service(name string, port uint32) {
	namespace, host, ok := strings.Cut(name, "/")
	if !ok {
		namespace, host = "", name
	}
	switch {
	case host == "":
		p.at.field("service").errorf("must not be empty: name the host of a ServiceEntry")
	case ok && !isDNSLabel(namespace):
		p.at.field("service").errorf("%q does not begin with a namespace: write HOST or NAMESPACE/HOST", name)
	}
	if !isPort(port) {
		p.at.field("port").errorf("%d is not a port: use 1..65535", port)
	}
	p.namespace, p.host, p.port = namespace, strings.ToLower(host), port
}

func checkTimeout(d *durationpb.Duration, a at) *durationpb.Duration {
	if d == nil {
		return durationpb.New(defaultCheckTimeout)
	}
	checkDuration(d, a)
	return d
}

// common is what both kinds have.
func (p *provider) common(failOpen, clearRoute bool, status string, body *checkedBody) *authzv3.ExtAuthz {
	f := &authzv3.ExtAuthz{
		TransportApiVersion: corev3.ApiVersion_V3, FailureModeAllow: failOpen, ClearRouteCache: clearRoute,
	}
	if status != "" {
		code, err := strconv.ParseUint(status, 10, 16)
		if err != nil || code < 400 || code > 599 {
			p.at.field("statusOnError").errorf("%q is no status of a failure: use 400 to 599", status)
		} else {
			f.StatusOnError = &typev3.HttpStatus{Code: typev3.StatusCode(code)}
		}
	}
	if body != nil {
		if n := body.GetMaxRequestBytes(); n == 0 || n > maxCheckedBody {
			p.at.field("includeRequestBodyInCheck").field("maxRequestBytes").errorf("%d is not in 1..%d", n, maxCheckedBody)
		}
		f.WithRequestBody = &authzv3.BufferSettings{
			MaxRequestBytes: body.GetMaxRequestBytes(), AllowPartialMessage: body.GetAllowPartialMessage(), PackAsBytes: body.GetPackAsBytes(),
		}
	}
	return f
}

// headerPatterns are names of headers: whole, or with a star at one end.
func headerPatterns(patterns []string, a at) *matcherv3.ListStringMatcher {
	if len(patterns) == 0 {
		return nil
	}
	list := new(matcherv3.ListStringMatcher)
	for i, pattern := range patterns {
		text, kind := cutWildcard(pattern)
		if !isHeaderName(text) || strings.Contains(text, "*") {
			a.index(i).errorf("%q is not the name of a header, nor one with a star at one end", pattern)
		}
		m := &matcherv3.StringMatcher{IgnoreCase: true, MatchPattern: &matcherv3.StringMatcher_Exact{Exact: text}}
		switch kind {
		case beginning:
			m.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: text}
		case ending:
			m.MatchPattern = &matcherv3.StringMatcher_Suffix{Suffix: text}
		}
		list.Patterns = append(list.Patterns, m)
	}
	return list
}

// resolveProviders checks that the services of providers are there for whom a
// policy makes ask them.
func (r *registry) resolveProviders(c *Config) {
	c.providers = r.providers
	for _, name := range sortedKeys(r.providers) {
		p := r.providers[name]
		if p.host == "" || !r.known(p.host, p.at.field("service")) {
			continue
		}
		in := p.namespace
		if in == "" {
			in = elsewhere
		}
		r.providerService(p, in)
		if err := validate(p.filter); err != nil {
			p.at.doubt(err)
		}
	}
	for _, policies := range r.policies.byNamespace {
		for _, policy := range policies {
			if policy.action != security.AuthorizationPolicy_CUSTOM || policy.provider == "" {
				continue
			}
			a := at{rep: r.rep, obj: policy.obj}.field("spec").field("provider").field("name")
			p, ok := r.providers[policy.provider]
			switch {
			case !ok:
				a.warnf(lintUnknownProvider, "no extension provider of the mesh configuration is called %q: every request is denied", policy.provider)
			case p.namespace == "" && policy.obj.namespace != r.opts.RootNamespace && serviceIn(r.services[p.host], policy.obj.namespace) == nil && len(r.services[p.host]) > 0:
				a.errorf("the service %q of provider %q is not exported to namespace %q: workloads could not ask it", p.host, policy.provider, policy.obj.namespace)
			}
		}
	}
}

// providerService checks that the service of a provider has the port.
func (r *registry) providerService(p *provider, namespace string) {
	candidates := r.services[p.host]
	if namespace != elsewhere {
		candidates = slices.DeleteFunc(slices.Clone(candidates), func(s *service) bool { return s.at.obj.namespace != namespace })
		if len(candidates) == 0 {
			p.at.field("service").errorf("no Service or ServiceEntry of namespace %q has the host %q", namespace, p.host)
			return
		}
	}
	if isPort(p.port) && !slices.ContainsFunc(candidates, func(s *service) bool { return s.hasPort(p.port) }) {
		p.at.field("port").errorf("%q has no port %d", p.host, p.port)
	}
}

// customFilters are the filters of the policies with CUSTOM: for each provider
// rules on trial that say which requests it is about, and the question. Where a
// provider is not known, every request is denied.
func (c *Config) customFilters(set []*authorizationPolicy, suffix string) ([]*hcmv3.HttpFilter, error) {
	rules := make(map[string]map[string]*rbacv3.Policy)
	for _, policy := range set {
		if policy.action != security.AuthorizationPolicy_CUSTOM {
			continue
		}
		if _, ok := c.providers[policy.provider]; !ok {
			deny, err := httpFilter(rbacFilter+".custom"+suffix, &httprbacv3.RBAC{Rules: denyAll()})
			return []*hcmv3.HttpFilter{deny}, err
		}
		if rules[policy.provider] == nil {
			rules[policy.provider] = make(map[string]*rbacv3.Policy)
		}
		for name, rule := range policy.policies {
			rules[policy.provider][customPolicy+"-"+name] = rule
		}
	}
	var filters []*hcmv3.HttpFilter
	for _, name := range sortedKeys(rules) {
		// Policies of several providers must not see each other's matches.
		prefix, own := customPrefix, suffix
		if len(rules) > 1 || suffix != "" {
			own += "." + name
			prefix += name + suffix + "_"
		}
		// DENY decides for what may match: a request that can be read in two ways
		// is asked about.
		matched, err := httpFilter(rbacFilter+".custom"+own, &httprbacv3.RBAC{
			ShadowRules:           &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: rules[name]},
			ShadowRulesStatPrefix: prefix,
		})
		if err != nil {
			return nil, err
		}
		question, err := httpFilter(extAuthzFilter+own, c.providers[name].question(prefix))
		if err != nil {
			return nil, err
		}
		filters = append(filters, matched, question)
	}
	return filters, nil
}

// question is the filter for the requests that the rules with a prefix match.
func (p *provider) question(prefix string) *authzv3.ExtAuthz {
	return &authzv3.ExtAuthz{
		Services: p.filter.Services, TransportApiVersion: p.filter.TransportApiVersion,
		FailureModeAllow: p.filter.FailureModeAllow, ClearRouteCache: p.filter.ClearRouteCache,
		StatusOnError: p.filter.StatusOnError, WithRequestBody: p.filter.WithRequestBody, AllowedHeaders: p.filter.AllowedHeaders,
		FilterEnabledMetadata: &matcherv3.MetadataMatcher{
			Filter: rbacFilter,
			Path: []*matcherv3.MetadataMatcher_PathSegment{{
				Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: prefix + shadowPolicy},
			}},
			Value: &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
				MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: customPolicy},
			}}},
		},
	}
}

func denyAll() *rbacv3.RBAC {
	return &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: map[string]*rbacv3.Policy{
		"deny-due-to-unknown-provider": {
			Permissions: []*rbacv3.Permission{anyPermission()}, Principals: []*rbacv3.Principal{anyPrincipal()},
		},
	}}
}
