package istio

import (
	"cmp"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	security "istio.io/api/security/v1beta1"

	"github.com/inboardmesh/inboard/internal/token"
)

const (
	jwtFilter = "envoy.filters.http.jwt_authn"
	// jwtPayload is the key of the claims in the metadata of the filter, by which
	// policies and routes find them.
	jwtPayload = "payload"
	// defaultKeysTimeout and keysCache are Istio's.
	defaultKeysTimeout = 5 * time.Second
	keysCache          = 5 * time.Minute
)

// requestPolicy is a RequestAuthentication. All that apply to a workload apply
// together.
type requestPolicy struct {
	obj      *object
	at       at
	selector map[string]string
	spec     *security.RequestAuthentication
	// keys are the clusters of the rules that fetch their keys, "" for the others.
	keys []string
}

func (r *registry) addRequestAuthentication(o *object, spec *security.RequestAuthentication, a at) {
	p := &requestPolicy{obj: o, at: a, spec: spec, selector: spec.GetSelector().GetMatchLabels()}
	checkSelector(p.selector, a.field("selector").field("matchLabels"))
	for i, rule := range spec.JwtRules {
		checkJWTRule(rule, a.field("jwtRules").index(i))
	}
	r.requestPolicies = append(r.requestPolicies, p)
}

// checkJWTRule checks a rule by itself, as Istio's validation does.
func checkJWTRule(rule *security.JWTRule, a at) {
	if rule.Issuer == "" {
		a.field("issuer").errorf("must not be empty: name the iss that tokens have")
	}
	checkNonEmpty(rule.Audiences, a.field("audiences"))
	checkNonEmpty(rule.FromParams, a.field("fromParams"))
	checkNonEmpty(rule.FromCookies, a.field("fromCookies"))
	checkNonEmpty(rule.SpaceDelimitedClaims, a.field("spaceDelimitedClaims"))
	looked := make(map[string]bool)
	for i, h := range rule.FromHeaders {
		checkHeaderName(h.Name, a.field("fromHeaders").index(i).field("name"))
		looked[strings.ToLower(h.Name)] = true
	}
	if len(rule.FromHeaders)+len(rule.FromParams)+len(rule.FromCookies) == 0 {
		looked["authorization"] = true
	}
	written := make(map[string]bool)
	output := func(name string, a at) {
		checkHeaderName(name, a)
		lower := strings.ToLower(name)
		switch {
		case looked[lower]:
			a.errorf("%q is where tokens are looked for: use another header", name)
		case written[lower]:
			a.errorf("%q is written twice", name)
		}
		written[lower] = true
	}
	if rule.OutputPayloadToHeader != "" {
		output(rule.OutputPayloadToHeader, a.field("outputPayloadToHeader"))
	}
	for i, c := range rule.OutputClaimToHeaders {
		ca := a.field("outputClaimToHeaders").index(i)
		output(c.Header, ca.field("header"))
		if c.Claim == "" {
			ca.field("claim").errorf("must not be empty")
		}
	}
	checkDuration(rule.Timeout, a.field("timeout"))
	switch {
	case rule.Jwks != "" && rule.JwksUri != "":
		a.field("jwks").errorf("must not be set beside jwksUri")
	case rule.Jwks != "":
		checkKeys(rule, a.field("jwks"))
	case rule.JwksUri == "":
		a.errorf("must have jwks or jwksUri: keys are not looked for at the issuer")
	}
}

// checkKeys checks the keys that a rule has with it, of which each workload gets all.
func checkKeys(rule *security.JWTRule, a at) {
	keys, err := token.ParseKeys([]byte(rule.Jwks), true)
	if err != nil {
		a.errorf("%v", err)
		return
	}
	if private := token.Private([]byte(rule.Jwks)); len(private) > 0 {
		for _, err := range private {
			a.errorf("%v, by which each workload that gets it could make tokens of %q: give its public half, without %q and what else is private", err, rule.Issuer, "d")
		}
		return
	}
	if keys.Len() == 0 {
		reasons := []string{"has no key that can be used: every token of the issuer would be refused"}
		for _, err := range keys.Unused() {
			reasons = append(reasons, err.Error())
		}
		a.errorf("%s", strings.Join(reasons, "; "))
		return
	}
	if public, err := token.ParseKeys([]byte(rule.Jwks), false); err != nil || public.Len() < keys.Len() {
		a.warnf(lintSymmetricKey, "has a symmetric key: each workload that gets it can make tokens of %q", rule.Issuer)
	}
}

func checkNonEmpty(values []string, a at) {
	for i, value := range values {
		if value == "" {
			a.index(i).errorf("must not be empty")
		}
	}
}

func checkHeaderName(name string, a at) {
	if !httpguts.ValidHeaderFieldName(name) {
		a.errorf("%q is not the name of a header", name)
	}
}

// resolveKeys finds the cluster through which each rule's keys are fetched. It
// must be known: a policy cannot make workloads call what the mesh does not know
// (V33).
func (r *registry) resolveKeys(c *Config) {
	for _, p := range r.requestPolicies {
		p.keys = make([]string, len(p.spec.JwtRules))
		for i, rule := range p.spec.JwtRules {
			if rule.JwksUri != "" {
				p.keys[i] = r.keysCluster(c, p, rule.JwksUri, p.at.field("jwtRules").index(i).field("jwksUri"))
			}
		}
	}
	slices.SortStableFunc(r.requestPolicies, func(a, b *requestPolicy) int {
		return cmp.Or(cmp.Compare(a.obj.namespace, b.obj.namespace), cmp.Compare(a.obj.name, b.obj.name))
	})
	c.requestPolicies = r.requestPolicies
}

// keysCluster is the cluster of a URI, "" with a problem.
func (r *registry) keysCluster(c *Config, p *requestPolicy, uri string, a at) string {
	u, err := url.Parse(uri)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		a.errorf("%q is not a URL that begins with http:// or https://", uri)
		return ""
	case u.User != nil || u.Fragment != "":
		a.errorf("must have neither a user nor a fragment")
		return ""
	}
	port := uint32(80)
	if u.Scheme == "https" {
		port = 443
	}
	if text := u.Port(); text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			a.errorf("%q is not a port: use 1..65535", text)
			return ""
		}
		port = uint32(n)
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if !r.known(host, a) {
		return ""
	}
	s := serviceIn(r.services[host], p.obj.namespace)
	switch {
	case s == nil:
		a.errorf("%q is not exported to namespace %q: workloads could not fetch the keys", host, p.obj.namespace)
		return ""
	case !s.hasPort(port) && s.listsPort(port):
		a.errorf("port %[2]d of %[1]q is not in the mesh, because its callers encrypt by themselves: give it protocol HTTP, and %[1]q a DestinationRule with trafficPolicy.tls: "+
			"the mesh does the TLS when it fetches the keys", host, port)
		return ""
	case !s.hasPort(port):
		a.errorf("%q has no port %d", host, port)
		return ""
	}
	name := clusterName(port, "", host)
	if cluster := c.clusters[name].in(p.obj.namespace); cluster != nil && cluster.TransportSocket == nil {
		a.errorf("the keys would be fetched in plaintext, and whoever can change them on the way could sign tokens: "+
			"give %q a DestinationRule with trafficPolicy.tls, or endpoints with mutual TLS", host)
	}
	return name
}

// requestPoliciesOf are the policies that may apply to a port of a node, by their
// places in the list. A policy of the root namespace is for all namespaces. A node that
// says no namespace trusts the issuers of that one alone.
func (c *Config) requestPoliciesOf(node Node, port uint32) []int {
	labels, unsure := c.labelsOf(node, port)
	var applied []int
	for i, p := range c.requestPolicies {
		if p.obj.namespace != c.peers.rootNamespace && p.obj.namespace != node.Namespace {
			continue
		}
		if unsure || len(p.selector) == 0 || slices.ContainsFunc(labels, func(l map[string]string) bool { return subsetOf(p.selector, l) }) {
			applied = append(applied, i)
		}
	}
	return applied
}

// jwtAuthn translates the rules of several policies, as Istio does: a token of
// one of the issuers is enough, none at all is allowed, and a bad one is not.
func (c *Config) jwtAuthn(applied []int) *jwtv3.JwtAuthentication {
	type sourced struct {
		rule    *security.JWTRule
		cluster string
	}
	var rules []sourced
	for _, i := range applied {
		p := c.requestPolicies[i]
		for j, rule := range p.spec.JwtRules {
			rules = append(rules, sourced{rule, p.keys[j]})
		}
	}
	if len(rules) == 0 {
		return nil
	}
	slices.SortStableFunc(rules, func(a, b sourced) int { return cmp.Compare(a.rule.Issuer, b.rule.Issuer) })
	m := &jwtv3.JwtAuthentication{Providers: make(map[string]*jwtv3.JwtProvider), BypassCorsPreflight: true}
	var one, each []*jwtv3.JwtRequirement
	for i, s := range rules {
		name := "origins-" + strconv.Itoa(i)
		m.Providers[name] = jwtProvider(s.rule, s.cluster)
		required := &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_ProviderName{ProviderName: name}}
		one = append(one, required)
		each = append(each, requiresAny(required, &jwtv3.JwtRequirement{
			RequiresType: &jwtv3.JwtRequirement_AllowMissing{AllowMissing: &emptypb.Empty{}},
		}))
	}
	requirement := each[0]
	if len(rules) > 1 {
		requirement = requiresAny(append(one, &jwtv3.JwtRequirement{
			RequiresType: &jwtv3.JwtRequirement_RequiresAll{RequiresAll: &jwtv3.JwtRequirementAndList{Requirements: each}},
		})...)
	}
	m.Rules = []*jwtv3.RequirementRule{{
		Match:           &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		RequirementType: &jwtv3.RequirementRule_Requires{Requires: requirement},
	}}
	return m
}

func requiresAny(of ...*jwtv3.JwtRequirement) *jwtv3.JwtRequirement {
	return &jwtv3.JwtRequirement{
		RequiresType: &jwtv3.JwtRequirement_RequiresAny{RequiresAny: &jwtv3.JwtRequirementOrList{Requirements: of}},
	}
}

func jwtProvider(rule *security.JWTRule, cluster string) *jwtv3.JwtProvider {
	claims := map[string]struct{}{"permission": {}, "scope": {}}
	for _, claim := range rule.SpaceDelimitedClaims {
		claims[claim] = struct{}{}
	}
	p := &jwtv3.JwtProvider{
		Issuer: rule.Issuer, Audiences: rule.Audiences, Forward: rule.ForwardOriginalToken,
		ForwardPayloadHeader: rule.OutputPayloadToHeader, PayloadInMetadata: jwtPayload,
		NormalizePayloadInMetadata: &jwtv3.JwtProvider_NormalizePayload{SpaceDelimitedClaims: slices.Sorted(maps.Keys(claims))},
		FromParams:                 rule.FromParams, FromCookies: rule.FromCookies,
	}
	for _, h := range rule.FromHeaders {
		p.FromHeaders = append(p.FromHeaders, &jwtv3.JwtHeader{Name: h.Name, ValuePrefix: h.Prefix})
	}
	for _, c := range rule.OutputClaimToHeaders {
		p.ClaimToHeaders = append(p.ClaimToHeaders, &jwtv3.JwtClaimToHeader{HeaderName: c.Header, ClaimName: c.Claim})
	}
	if cluster == "" {
		p.JwksSourceSpecifier = &jwtv3.JwtProvider_LocalJwks{LocalJwks: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: rule.Jwks},
		}}
		return p
	}
	timeout := durationpb.New(defaultKeysTimeout)
	if rule.Timeout != nil {
		timeout = rule.Timeout
	}
	p.JwksSourceSpecifier = &jwtv3.JwtProvider_RemoteJwks{RemoteJwks: &jwtv3.RemoteJwks{
		HttpUri: &corev3.HttpUri{
			Uri: rule.JwksUri, HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: cluster}, Timeout: timeout,
		},
		CacheDuration: durationpb.New(keysCache),
	}}
	return p
}
