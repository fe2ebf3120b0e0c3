package decode

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/token"
)

var jwtFields = []messageFields{
	{
		message: (*jwtv3.JwtAuthentication)(nil),
		read:    "providers rules bypass_cors_preflight requirement_map strip_failure_response",
		instead: map[string]string{
			"filter_state_rules": "nothing here keeps state of a request, so that no token would ever be asked for: use rules",
		},
		// It names metrics.
		harmless: "stat_prefix",
	},
	{
		message: (*jwtv3.JwtProvider)(nil),
		read: "issuer audiences subjects require_expiration max_lifetime remote_jwks local_jwks forward from_headers " +
			"from_params from_cookies forward_payload_header pad_forward_payload_header payload_in_metadata " +
			"normalize_payload_in_metadata header_in_metadata failed_status_in_metadata clock_skew_seconds " +
			"jwt_cache_config claim_to_headers clear_route_cache",
	},
	{message: (*jwtv3.JwtProvider_NormalizePayload)(nil), read: "space_delimited_claims"},
	{
		message: (*jwtv3.JwtCacheConfig)(nil),
		read:    "jwt_cache_size",
		// Larger tokens than 4096 bytes are verified at each use.
		harmless: "jwt_max_token_size",
	},
	{message: (*jwtv3.JwtHeader)(nil), read: "name value_prefix"},
	{message: (*jwtv3.JwtClaimToHeader)(nil), read: "header_name claim_name claim_path"},
	{message: (*jwtv3.JwtClaimToHeader_PathSegment)(nil), read: "key"},
	{message: (*jwtv3.RemoteJwks)(nil), read: "http_uri cache_duration async_fetch retry_policy"},
	{
		message: (*jwtv3.JwksAsyncFetch)(nil),
		read:    "failed_refetch_duration",
		// A listener is activated without waiting: requests that come before the
		// keys wait for them, or are refused.
		harmless: "fast_listener",
	},
	{message: (*jwtv3.RequirementRule)(nil), read: "match requires requirement_name"},
	{
		message: (*jwtv3.JwtRequirement)(nil),
		read:    "provider_name provider_and_audiences requires_any requires_all allow_missing allow_missing_or_failed",
		instead: map[string]string{
			"extract_only_without_validation": "what an unverified token says could be anybody's word",
		},
	},
	{message: (*jwtv3.ProviderWithAudiences)(nil), read: "provider_name audiences"},
	{message: (*jwtv3.JwtRequirementOrList)(nil), read: "requirements"},
	{message: (*jwtv3.JwtRequirementAndList)(nil), read: "requirements"},
	{message: (*jwtv3.PerRouteConfig)(nil), read: "disabled requirement_name"},
}

// jwtConfig decodes what the filter is configured with, in a listener or in a
// route. ok is false if it is another filter's.
func (d *decoder) jwtConfig(at path, a *anypb.Any) (config discovery.FilterConfig, ok bool) {
	switch {
	case is(a, (*jwtv3.JwtAuthentication)(nil)):
		m := &jwtv3.JwtAuthentication{}
		if d.unpack(at, a, m) {
			config = d.jwtAuthn(at, m)
		}
	case is(a, (*jwtv3.PerRouteConfig)(nil)):
		m := &jwtv3.PerRouteConfig{}
		if d.unpack(at, a, m) {
			if r := d.jwtPerRoute(at, m); r != nil {
				config = r
			}
		}
	default:
		return nil, false
	}
	return config, true
}

// jwtAuthn decodes the configuration of the JWT authentication filter.
func (d *decoder) jwtAuthn(at path, m *jwtv3.JwtAuthentication) *discovery.JWTAuthn {
	f := &discovery.JWTAuthn{
		Providers:            make(map[string]*discovery.JWTProvider, len(m.GetProviders())),
		BypassCORSPreflight:  m.GetBypassCorsPreflight(),
		StripFailureResponse: m.GetStripFailureResponse(),
	}
	for _, name := range slices.Sorted(maps.Keys(m.GetProviders())) {
		in := at.entry("providers", name)
		f.Providers[name] = d.jwtProvider(in, m.GetProviders()[name])
	}
	d.jwtHeaders(at, f.Providers)
	if len(m.GetRequirementMap()) > 0 {
		f.Requirements = make(map[string]*discovery.JWTRequirement, len(m.GetRequirementMap()))
	}
	for _, name := range slices.Sorted(maps.Keys(m.GetRequirementMap())) {
		in := at.entry("requirement_map", name)
		f.Requirements[name] = d.jwtRequirement(in, m.GetRequirementMap()[name], f, 0)
	}
	for i, rule := range m.GetRules() {
		in := at.element("rules", i)
		decoded := discovery.JWTRule{Match: d.routeMatch(in.field("match"), rule.GetMatch())}
		switch r := rule.GetRequirementType().(type) {
		case *jwtv3.RequirementRule_Requires:
			decoded.Requires = d.jwtRequirement(in.field("requires"), r.Requires, f, 0)
		case *jwtv3.RequirementRule_RequirementName:
			decoded.Requires = f.Requirements[r.RequirementName]
			if decoded.Requires == nil {
				d.refusef(in.field("requirement_name"), "%q is not in requirement_map", r.RequirementName)
			}
		default:
			if len(rule.ProtoReflect().GetUnknown()) > 0 {
				d.refusef(in, "requires something unknown")
			}
		}
		f.Rules = append(f.Rules, decoded)
	}
	return f
}

// jwtHeaders refuses that claims are handed on where tokens are looked for: the
// filter takes such headers for its own, so that it would never see a token.
func (d *decoder) jwtHeaders(at path, providers map[string]*discovery.JWTProvider) {
	looked := make(map[string]struct{})
	for _, p := range providers {
		for _, h := range p.Headers {
			looked[h.Name] = struct{}{}
		}
		if len(p.Cookies) > 0 {
			looked["cookie"] = struct{}{}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(providers)) {
		in, p := at.entry("providers", name), providers[name]
		if _, ok := looked[p.PayloadHeader]; ok {
			d.refusef(in.field("forward_payload_header"), "%q is where tokens are looked for", p.PayloadHeader)
		}
		for i, h := range p.ClaimHeaders {
			if _, ok := looked[h.Header]; ok {
				d.refusef(in.element("claim_to_headers", i).field("header_name"), "%q is where tokens are looked for", h.Header)
			}
		}
	}
}

const (
	defaultClockSkew = time.Minute
	defaultJWTCache  = 100
	maxJWTCache      = 100_000
)

func (d *decoder) jwtProvider(at path, m *jwtv3.JwtProvider) *discovery.JWTProvider {
	p := &discovery.JWTProvider{
		Issuer: m.GetIssuer(), Audiences: m.GetAudiences(), RequireExpiration: m.GetRequireExpiration(),
		MaxLifetime: d.duration(at.field("max_lifetime"), m.GetMaxLifetime()),
		ClockSkew:   defaultClockSkew, CacheSize: defaultJWTCache,
		Params: m.GetFromParams(), Cookies: m.GetFromCookies(), Forward: m.GetForward(),
		PadPayload:      m.GetPadForwardPayloadHeader(),
		PayloadMetadata: m.GetPayloadInMetadata(), HeaderMetadata: m.GetHeaderInMetadata(),
		FailureMetadata: m.GetFailedStatusInMetadata(),
		SpaceDelimited:  m.GetNormalizePayloadInMetadata().GetSpaceDelimitedClaims(),
		ClearRoute:      m.GetClearRouteCache(),
	}
	if m.GetMaxLifetime() != nil && p.MaxLifetime == 0 {
		d.refusef(at.field("max_lifetime"), "must not be 0: no token would be accepted")
	}
	if m.GetSubjects() != nil {
		p.Subjects = new(d.stringMatch(at.field("subjects"), m.GetSubjects()))
	}
	if s := m.GetClockSkewSeconds(); s > 0 {
		p.ClockSkew = time.Duration(s) * time.Second
	}
	if n := m.GetJwtCacheConfig().GetJwtCacheSize(); n > 0 {
		p.CacheSize = int(min(n, maxJWTCache))
	}
	if m.GetForwardPayloadHeader() != "" {
		p.PayloadHeader = d.mutableHeader(at.field("forward_payload_header"), m.GetForwardPayloadHeader())
	}
	for i, h := range m.GetClaimToHeaders() {
		p.ClaimHeaders = append(p.ClaimHeaders, d.jwtClaimHeader(at.element("claim_to_headers", i), h))
	}
	for i, h := range m.GetFromHeaders() {
		name := strings.ToLower(h.GetName())
		if !httpguts.ValidHeaderFieldName(name) {
			d.refusef(at.element("from_headers", i).field("name"), "%q is not a valid header name", h.GetName())
		}
		p.Headers = append(p.Headers, discovery.JWTHeader{Name: name, Prefix: h.GetValuePrefix()})
	}
	if len(p.Headers)+len(p.Params)+len(p.Cookies) == 0 {
		p.Headers = []discovery.JWTHeader{{Name: "authorization", Prefix: "Bearer "}}
		p.Params = []string{"access_token"}
	}
	switch keys := m.GetJwksSourceSpecifier().(type) {
	case *jwtv3.JwtProvider_RemoteJwks:
		p.RemoteKeys = d.jwtRemoteKeys(at.field("remote_jwks"), keys.RemoteJwks)
	case *jwtv3.JwtProvider_LocalJwks:
		p.Keys = d.jwtKeys(at.field("local_jwks"), keys.LocalJwks)
	default:
		d.refusef(at, "must have remote_jwks or local_jwks")
	}
	return p
}

func (d *decoder) jwtClaimHeader(at path, m *jwtv3.JwtClaimToHeader) discovery.JWTClaimHeader {
	h := discovery.JWTClaimHeader{Header: d.mutableHeader(at.field("header_name"), m.GetHeaderName())}
	switch {
	case (m.GetClaimName() == "") == (len(m.GetClaimPath()) == 0):
		d.refusef(at, "must have either claim_name or claim_path")
	case m.GetClaimName() != "":
		h.Path = strings.Split(m.GetClaimName(), ".")
	default:
		for _, segment := range m.GetClaimPath() {
			h.Path = append(h.Path, segment.GetKey())
		}
	}
	return h
}

// jwtKeys reads a key set of the configuration. One without keys is accepted,
// and no token with it. Files and variables of this process are not the control
// plane's to name.
func (d *decoder) jwtKeys(at path, m *corev3.DataSource) *token.Keys {
	text, in := m.GetInlineString(), at.field("inline_string")
	if _, ok := m.GetSpecifier().(*corev3.DataSource_InlineBytes); ok {
		text, in = string(m.GetInlineBytes()), at.field("inline_bytes")
	}
	keys, err := token.ParseKeys([]byte(text), true)
	if err != nil {
		d.refusef(in, "%w", err)
	}
	return keys
}

const (
	defaultKeysDuration = 10 * time.Minute
	defaultKeysRefetch  = time.Second
)

func (d *decoder) jwtRemoteKeys(at path, m *jwtv3.RemoteJwks) *discovery.JWTRemoteKeys {
	uri := m.GetHttpUri()
	r := &discovery.JWTRemoteKeys{
		Cluster: uri.GetCluster(), Timeout: d.duration(at.field("http_uri").field("timeout"), uri.GetTimeout()),
		CacheDuration: defaultKeysDuration, FailedRefetch: defaultKeysRefetch, Async: m.GetAsyncFetch() != nil,
	}
	if r.Timeout == 0 {
		d.refusef(at.field("http_uri").field("timeout"), "must not be 0: no keys would be fetched")
	}
	r.Scheme, r.Host, r.Path = d.serviceURI(at.field("http_uri").field("uri"), uri.GetUri())
	if m.GetCacheDuration() != nil {
		r.CacheDuration = d.duration(at.field("cache_duration"), m.GetCacheDuration())
	}
	if pause := m.GetAsyncFetch().GetFailedRefetchDuration(); pause != nil {
		r.FailedRefetch = d.duration(at.field("async_fetch").field("failed_refetch_duration"), pause)
	}
	if m.GetRetryPolicy() != nil {
		r.Retries, r.RetryBase, r.RetryMax = d.serviceRetries(at.field("retry_policy"), m.GetRetryPolicy())
	}
	return r
}

// maxRequirements bounds how deep requirements are nested.
const maxRequirements = 8

func (d *decoder) jwtRequirement(at path, m *jwtv3.JwtRequirement, f *discovery.JWTAuthn, depth int) *discovery.JWTRequirement {
	if depth > maxRequirements {
		d.refusef(at, "nested too deep")
		return nil
	}
	list := func(in path, requirements []*jwtv3.JwtRequirement) []*discovery.JWTRequirement {
		decoded := make([]*discovery.JWTRequirement, len(requirements))
		for i, r := range requirements {
			decoded[i] = d.jwtRequirement(in.element("requirements", i), r, f, depth+1)
		}
		return decoded
	}
	r := &discovery.JWTRequirement{}
	switch kind := m.GetRequiresType().(type) {
	case *jwtv3.JwtRequirement_ProviderName:
		r.Kind, r.Provider = discovery.JWTProviderRequired, kind.ProviderName
		d.jwtKnown(at.field("provider_name"), r.Provider, f)
	case *jwtv3.JwtRequirement_ProviderAndAudiences:
		r.Kind, r.Provider = discovery.JWTProviderRequired, kind.ProviderAndAudiences.GetProviderName()
		r.Audiences = kind.ProviderAndAudiences.GetAudiences()
		d.jwtKnown(at.field("provider_and_audiences").field("provider_name"), r.Provider, f)
	case *jwtv3.JwtRequirement_RequiresAny:
		r.Kind, r.Of = discovery.JWTAny, list(at.field("requires_any"), kind.RequiresAny.GetRequirements())
	case *jwtv3.JwtRequirement_RequiresAll:
		r.Kind, r.Of = discovery.JWTAll, list(at.field("requires_all"), kind.RequiresAll.GetRequirements())
	case *jwtv3.JwtRequirement_AllowMissing:
		r.Kind = discovery.JWTAllowMissing
	case *jwtv3.JwtRequirement_AllowMissingOrFailed:
		r.Kind = discovery.JWTAllowMissingOrFailed
	default:
		// One of a kind that this version does not know looks like none.
		if len(m.ProtoReflect().GetUnknown()) > 0 {
			d.refusef(at, "requires something unknown")
		}
	}
	return r
}

func (d *decoder) jwtKnown(at path, name string, f *discovery.JWTAuthn) {
	if f.Providers[name] == nil {
		d.refusef(at, "%q is not in providers", name)
	}
}

// jwtPerRoute decodes the configuration of the filter in a route.
func (d *decoder) jwtPerRoute(at path, m *jwtv3.PerRouteConfig) *discovery.JWTPerRoute {
	switch s := m.GetRequirementSpecifier().(type) {
	case *jwtv3.PerRouteConfig_Disabled:
		if !s.Disabled {
			d.refusef(at.field("disabled"), "must be true")
		}
		return &discovery.JWTPerRoute{}
	case *jwtv3.PerRouteConfig_RequirementName:
		return &discovery.JWTPerRoute{Requirement: s.RequirementName}
	}
	d.refusef(at, "must have disabled or requirement_name")
	return nil
}
