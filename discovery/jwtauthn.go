package discovery

import (
	"time"

	"github.com/inboardmesh/inboard/internal/token"
)

// JWTAuthn is the JWT authentication filter: which requests need which tokens.
type JWTAuthn struct {
	// Providers are who issues tokens, by the name that requirements use.
	Providers map[string]*JWTProvider
	// Rules says what requests need: the first that matches decides. A request
	// that none matches needs nothing.
	Rules []JWTRule
	// Requirements are those that routes name, see [JWTPerRoute].
	Requirements map[string]*JWTRequirement
	// BypassCORSPreflight lets CORS preflight requests pass, which never carry
	// a token.
	BypassCORSPreflight bool
	// StripFailureResponse tells a caller that is refused nothing but the status.
	StripFailureResponse bool
}

func (*JWTAuthn) filterConfig() {}

// UsedClusters are those through which keys are fetched.
func (f *JWTAuthn) UsedClusters() []string {
	var names []string
	for _, p := range f.Providers {
		if p.RemoteKeys != nil {
			names = append(names, p.RemoteKeys.Cluster)
		}
	}
	return names
}

// JWTPerRoute is the configuration of [JWTAuthn] in a route: instead of a rule,
// the requirement of a name. It is "" for a route that needs nothing.
type JWTPerRoute struct{ Requirement string }

func (*JWTPerRoute) filterConfig() {}

// JWTRule is what the requests that match need.
type JWTRule struct {
	Match RouteMatch
	// Requires is nil if they need nothing.
	Requires *JWTRequirement
}

// JWTRequirement is a requirement about the tokens of a request.
type JWTRequirement struct {
	Kind JWTRequirementKind
	// Provider and Audiences are set for JWTProviderRequired. Audiences replace
	// those of the provider; nil keeps them.
	Provider  string
	Audiences []string
	// Of is set for JWTAny and JWTAll.
	Of []*JWTRequirement
}

// JWTRequirementKind is the kind of a [JWTRequirement].
type JWTRequirementKind uint8

const (
	// JWTNothing is fulfilled by every request.
	JWTNothing JWTRequirementKind = iota
	// JWTProviderRequired is a valid token of one provider.
	JWTProviderRequired
	// JWTAny is one of several requirements, the first that is fulfilled.
	JWTAny
	// JWTAll is each of several requirements.
	JWTAll
	// JWTAllowMissing is no token at all, or only valid ones. In a JWTAny it is
	// about the tokens of the providers beside it; alone, about those of all.
	JWTAllowMissing
	// JWTAllowMissingOrFailed is fulfilled by every request; what a valid token
	// says is used.
	JWTAllowMissingOrFailed
)

// JWTProvider is who issues tokens, which of them are accepted and what becomes
// of them.
type JWTProvider struct {
	// Issuer is the iss that tokens must have; "" accepts any that a key of the
	// provider has signed.
	Issuer string
	// Audiences are the audiences of which a token must have one. Empty does not
	// check.
	Audiences []string
	// Subjects is what the subject must match; nil does not check.
	Subjects *StringMatch
	// RequireExpiration refuses tokens that never expire.
	RequireExpiration bool
	// MaxLifetime is how long a token may still be valid; 0 is any time.
	MaxLifetime time.Duration
	// ClockSkew is how far the issuer's clock may be apart. Envoy's default of
	// 60 s is filled in by the decoder.
	ClockSkew time.Duration
	// Exactly one of Keys and RemoteKeys is set.
	Keys       *token.Keys
	RemoteKeys *JWTRemoteKeys

	// Headers, Params and Cookies are where tokens are looked for. The decoder
	// fills in the default: "Authorization: Bearer" and the query parameter
	// access_token.
	Headers []JWTHeader
	// Params are names of query parameters, Cookies of cookies.
	Params, Cookies []string
	// Forward leaves a token that was accepted in the request. One in a cookie
	// stays always.
	Forward bool

	// PayloadHeader is the lower-case name of the header that hands the claims
	// on, base64url; "" hands nothing on. PadPayload pads it.
	PayloadHeader string
	PadPayload    bool
	// ClaimHeaders hand single claims on.
	ClaimHeaders []JWTClaimHeader
	// PayloadMetadata, HeaderMetadata and FailureMetadata are the keys of the
	// dynamic metadata for the claims, for the token's header, and for why a
	// token was refused; "" for none.
	PayloadMetadata, HeaderMetadata, FailureMetadata string
	// SpaceDelimited are claims whose text becomes the list of its words in the
	// metadata.
	SpaceDelimited []string
	// ClearRoute routes the request again when its claims are known.
	ClearRoute bool
	// CacheSize is how many accepted tokens are remembered; 0 is none.
	CacheSize int
}

// JWTHeader is a header that may hold a token after a prefix.
type JWTHeader struct {
	// Name is lower case.
	Name   string
	Prefix string
}

// JWTClaimHeader hands a claim on in a header.
type JWTClaimHeader struct {
	// Header is lower case.
	Header string
	// Path leads from the claims to the claim.
	Path []string
}

// JWTRemoteKeys is a key set that is fetched through a cluster.
type JWTRemoteKeys struct {
	// Scheme, Host and Path are those of the request: "https", "issuer.test",
	// "/keys?x=y". Where it goes is the cluster's. https is refused over a
	// cluster without TLS.
	Scheme, Host, Path string
	Cluster            string
	// Timeout bounds one attempt.
	Timeout time.Duration
	// CacheDuration is how long keys are used after they were fetched. Envoy's
	// default of 10 min is filled in by the decoder.
	CacheDuration time.Duration
	// Async fetches before the first request, and keeps keys until there are
	// newer ones, also beyond CacheDuration. Without it, keys that cannot be
	// fetched again verify nothing.
	Async bool
	// FailedRefetch is the pause after a fetch that failed. Envoy's default of
	// 1 s is filled in by the decoder.
	FailedRefetch time.Duration
	// Retries are further attempts of a fetch, RetryBase and RetryMax their
	// back-off.
	Retries             int
	RetryBase, RetryMax time.Duration
}
