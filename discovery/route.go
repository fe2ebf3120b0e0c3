package discovery

import (
	"regexp"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/retry"
)

// Regex is an RE2 program that must match a whole string.
type Regex struct {
	// Source is the expression as configured, without anchors.
	Source string
	// Program is the compiled expression, anchored at both ends.
	Program *regexp.Regexp
}

// MatchString reports whether the whole of s matches.
func (r *Regex) MatchString(s string) bool { return r.Program.MatchString(s) }

// Substitution is Envoy's RegexMatchAndSubstitute: every match in a text is
// replaced.
type Substitution struct {
	// Source and Template are the expression and its replacement as configured.
	// "\1" in the replacement is the first group of the match.
	Source, Template string
	// Program is the compiled expression, without anchors of its own.
	Program *regexp.Regexp
	// Replacement is Template in the form of [regexp.Regexp.Expand].
	Replacement string
}

// Replace returns s with every match replaced.
func (r *Substitution) Replace(s string) string {
	return r.Program.ReplaceAllString(s, r.Replacement)
}

// RouteTable is a RouteConfiguration.
type RouteTable struct {
	Name         string
	VirtualHosts []*VirtualHost
	Headers      HeaderMutations
	// MostSpecificHeaderMutationsWins reverses the order in which the levels'
	// mutations are applied.
	MostSpecificHeaderMutationsWins bool
	IgnorePortInHostMatching        bool
}

// VirtualHost is a set of domains and their routes.
type VirtualHost struct {
	Name    string
	Domains []string
	Routes  []*Route
	Headers HeaderMutations
	// Retry is the policy of routes that have none, with what it says of headers.
	Retry        *retry.Policy
	RetryHeaders *RetryHeaders
	// Hedge is that of routes that say nothing of it; nil for none.
	Hedge *retry.Hedge
	// Filters is the per-filter configuration by filter name.
	Filters map[string]FilterOverride
}

// FilterOverride is per-route configuration of one HTTP filter.
type FilterOverride struct {
	Config   FilterConfig
	Disabled bool
}

// Route is one rule: the first that matches wins.
type Route struct {
	Name    string
	Match   RouteMatch
	Headers HeaderMutations
	Filters map[string]FilterOverride
	// Exactly one of the following is set.
	Forward  *Forward
	Redirect *Redirect
	Direct   *DirectResponse
	// Local is NonForwardingAction: the request is for this process.
	Local bool
}

// RouteMatch is what a request must have.
type RouteMatch struct {
	Path    PathMatch
	Headers []HeaderMatch
	Query   []QueryMatch
	Cookies []CookieMatch
	// Metadata is what filters must have left. It is looked at when a filter has
	// the request routed again: before the first one there is none.
	Metadata []MetadataMatch
	// GRPC matches gRPC requests only.
	GRPC bool
	// PerMillion is runtime_fraction in millionths; nil matches always.
	PerMillion *uint32
}

// PathMatch is Envoy's path_specifier.
type PathMatch struct {
	Kind  PathMatchKind
	Value string
	// Regex is set for PathRegex and PathTemplate.
	Regex *Regex
	// IgnoreCase is without regard to the case of ASCII letters.
	IgnoreCase bool
}

// PathMatchKind is how a path is compared. The query is never part of it.
type PathMatchKind uint8

const (
	// PathPrefix matches the beginning of the path.
	PathPrefix PathMatchKind = iota
	// PathExact matches the whole path.
	PathExact
	// PathRegex matches the whole path against an RE2 program.
	PathRegex
	// PathSeparatedPrefix matches a prefix that ends at a "/" or at the end.
	PathSeparatedPrefix
	// PathTemplate matches the whole path against a template such as
	// "/videos/{id}/**". Its variables are groups of Regex.
	PathTemplate
)

// HeaderMatch is Envoy's HeaderMatcher.
type HeaderMatch struct {
	// Name is lower case.
	Name string
	Kind HeaderMatchKind
	// String is set for HeaderString.
	String StringMatch
	// Start and End delimit HeaderRange: [Start, End).
	Start, End int64
	// Present is set for HeaderPresent: whether it must be there or absent.
	Present bool
	Invert  bool
	// TreatMissingAsEmpty lets a missing header be compared as "".
	TreatMissingAsEmpty bool
}

// HeaderMatchKind is how a header is compared.
type HeaderMatchKind uint8

// The kinds of Envoy's HeaderMatcher.
const (
	HeaderString HeaderMatchKind = iota
	HeaderRange
	HeaderPresent
)

// QueryMatch is Envoy's QueryParameterMatcher.
type QueryMatch struct {
	Name string
	// AnyValue is present_match: the parameter must only be there.
	AnyValue bool
	String   StringMatch
}

// CookieMatch is Envoy's CookieMatcher: it compares the first cookie of that
// name. A missing cookie matches only if Invert is set.
type CookieMatch struct {
	Name   string
	String StringMatch
	Invert bool
}

// Forward sends the request to a cluster.
type Forward struct {
	// Clusters has one entry for a plain cluster; weights are relative to
	// their sum, which is positive.
	Clusters []WeightedCluster
	// WeightHeader is the lower-case name of a request header whose value, an
	// unsigned number, takes the place of the random one when a cluster is drawn,
	// so that several hops choose alike; "" draws. A header that is missing or
	// is no number is as none.
	WeightHeader string
	// WeightHash draws by the hash of a request instead: what has the same hash
	// goes to the same cluster. Nil draws at random, and so does a request of
	// which nothing can be hashed.
	WeightHash []HashPolicy
	// Hash chooses an endpoint of a cluster that balances by hash. Nil leaves it
	// to chance, and so does a request of which nothing can be hashed.
	Hash []HashPolicy
	// Subset is the subset of the cluster's endpoints to use, for a cluster that
	// has subsets; nil is its fallback. That of the weighted cluster, which
	// includes it, goes first.
	Subset *balancer.Match
	// Timeout covers the call with all its attempts; 0 means none. Envoy's
	// default of 15 s is filled in by the decoder.
	Timeout time.Duration
	// MaxStreamDuration and GRPCTimeoutHeaderMax are those of gRFC A31; nil
	// means unset, 0 means no limit.
	MaxStreamDuration    *time.Duration
	GRPCTimeoutHeaderMax *time.Duration
	// GRPCTimeoutHeaderOffset is taken off the deadline that the application of a
	// gRPC call gave; 0 takes nothing off.
	GRPCTimeoutHeaderOffset time.Duration
	// IdleTimeout ends a call of which no part of the request or the response
	// has moved for so long; nil leaves that to the listener, 0 is no limit.
	IdleTimeout *time.Duration
	// Retry is the effective policy (the route's, else the virtual host's);
	// nil means one attempt.
	Retry *retry.Policy
	// RetryHeaders are the conditions of Retry that are about headers; nil
	// without one.
	RetryHeaders *RetryHeaders
	// Hedge makes attempts beside each other; nil does not.
	Hedge *retry.Hedge
	// MinTime refuses an attempt for which less than this is left of the call's
	// time; 0 refuses none.
	MinTime time.Duration
	// AttemptCount tells the upstream in x-envoy-attempt-count which attempt it
	// is, from 1 (include_request_attempt_count of the virtual host).
	AttemptCount bool
	// AttemptCountInResponse tells the caller in x-envoy-attempt-count how many
	// attempts there were (include_attempt_count_in_response of the virtual host).
	AttemptCountInResponse bool
	// TimeoutRetry tells the upstream in x-envoy-is-timeout-retry of a retry that
	// follows a timeout (include_is_timeout_retry_header of the virtual host).
	TimeoutRetry bool
	Priority     RoutingPriority
	// PrefixRewrite replaces the matched prefix, or the whole path if it was not
	// matched by a prefix; "" keeps it. At most one of it, PathSubstitution and
	// PathFormat is set.
	PrefixRewrite string
	// PathSubstitution rewrites what it matches of the path; nil keeps it.
	PathSubstitution *Substitution
	// PathFormat computes the path; nil keeps it, and so does an empty result.
	PathFormat *Format
	// HostRewrite replaces the authority; "" keeps it. At most one of it and
	// HostFrom is set.
	HostRewrite string
	// HostFrom computes the authority; nil keeps it.
	HostFrom *HostSource
	// AppendForwardedHost appends an authority that is replaced to
	// x-forwarded-host.
	AppendForwardedHost bool
	// InternalRedirect follows redirects of the upstream; nil hands them to the
	// caller.
	InternalRedirect *InternalRedirect
	// Mirrors get copies of the requests.
	Mirrors []Mirror
}

// RetryHeaders are what a retry policy says of headers.
type RetryHeaders struct {
	// Response is for retry.OnRetriableHeaders, which holds if one of them
	// matches the response.
	Response []HeaderMatch
	// Request leaves requests of which none of them matches without retries;
	// empty leaves none out.
	Request []HeaderMatch
}

// HostSource is where the authority of a forwarded request comes from. Exactly
// one field is set. What it gives is not used if it is empty or no host.
type HostSource struct {
	// Endpoint takes the host name of the endpoint that is called.
	Endpoint bool
	// Header takes the first value of a request header, by its lower-case name.
	Header string
	// Path takes what a substitution makes of the path.
	Path *Substitution
}

// HashPolicy is one step of Envoy's RouteAction.hash_policy. Exactly one of
// Header, Cookie, Query, Source and Channel is set.
type HashPolicy struct {
	// Header is a lower-case name. Its value is rewritten by HeaderRewrite, if
	// that is not nil, before it is hashed.
	Header        string
	HeaderRewrite *Substitution
	// Cookie is a name. A call that has no such cookie is given one by NewCookie,
	// which the caller finds in the response; nil gives none, and there is
	// nothing to hash.
	Cookie    string
	NewCookie *NewCookie
	Query     string
	// Source hashes where the call comes from, which is this process.
	Source bool
	// Channel hashes which gRPC channel, or HTTP transport, the call is made on.
	Channel bool
	// Terminal ends the list if there is a hash already.
	Terminal bool
}

// NewCookie is a cookie to be made for callers that have none.
type NewCookie struct {
	// TTL is how long it is good for; 0 is as long as the caller's session.
	TTL        time.Duration
	Path       string
	Attributes []CookieAttribute
}

// CookieAttribute is a further attribute of a cookie, such as "SameSite=Lax".
// Without a value it is only its name.
type CookieAttribute struct{ Name, Value string }

// InternalRedirect is Envoy's InternalRedirectPolicy.
type InternalRedirect struct {
	// MaxRedirects is how many redirects of one call are followed; a route with
	// 0 follows none.
	MaxRedirects uint32
	// Statuses are the responses that are followed.
	Statuses []int
	// CrossScheme follows redirects to another scheme.
	CrossScheme bool
	// SafeCrossScheme refuses, of those, the redirects from http to https.
	SafeCrossScheme bool
	// AllowedRoutes are the names of the routes that a redirect may lead to; nil
	// allows all.
	AllowedRoutes []string
	// PreviousRoutes refuses to go from a route to the same route twice.
	PreviousRoutes bool
	// CopyHeaders are lower-case names of response headers that become headers of
	// the next request.
	CopyHeaders []string
}

// WeightedCluster is one choice of a route.
type WeightedCluster struct {
	// Name is the cluster's. It is "" if the request names it in Header.
	Name string
	// Header is the lower-case name of the request header that names the
	// cluster; "" is a fixed one.
	Header string
	Weight uint32
	// HostRewrite replaces the authority, before the route would; "" leaves it to
	// the route.
	HostRewrite string
	// Subset is as Forward's.
	Subset  *balancer.Match
	Headers HeaderMutations
	Filters map[string]FilterOverride
}

// Redirect answers with a Location.
type Redirect struct {
	Status int
	Scheme string
	Host   string
	Port   uint32
	// At most one of Path, PrefixRewrite, PathSubstitution and PathFormat is set;
	// without one the path stays.
	Path             string
	PrefixRewrite    string
	PathSubstitution *Substitution
	PathFormat       *Format
	StripQuery       bool
}

// DirectResponse answers without an upstream.
type DirectResponse struct {
	Status int
	Body   []byte
}

// HeaderMutations are the header operations of one level.
type HeaderMutations struct {
	RequestAdd     []HeaderValue
	RequestRemove  []string
	ResponseAdd    []HeaderValue
	ResponseRemove []string
}

// HeaderValue is one header to set.
type HeaderValue struct {
	// Name is lower case.
	Name string
	// Value is what to set, unless Format computes it.
	Value  string
	Format *Format
	Action HeaderAction
	// KeepEmpty sets an empty value too, which is left out otherwise.
	KeepEmpty bool
}

// HeaderAction is Envoy's HeaderAppendAction.
type HeaderAction uint8

// The actions of Envoy's HeaderAppendAction.
const (
	AppendIfExistsOrAdd HeaderAction = iota
	AddIfAbsent
	OverwriteIfExistsOrAdd
	OverwriteIfExists
)

// Fault is the fault injection filter.
type Fault struct {
	Delay *FaultDelay
	Abort *FaultAbort
	// RateLimit slows the bodies of responses down.
	RateLimit *FaultRateLimit
	// Headers must all match for a fault to be injected.
	Headers []HeaderMatch
	// UpstreamCluster is the cluster that a request must be on its way to; "" is
	// any. A request that has arrived is on its way to none.
	UpstreamCluster string
	// DownstreamNodes are the nodes one of which must have sent a request, by its
	// header x-envoy-downstream-service-node; nil is any.
	DownstreamNodes []string
	// MaxActive caps the faults that are active at once; 0 means no cap.
	MaxActive uint32
}

func (*Fault) filterConfig() {}

// FaultDelay delays a share of the calls.
type FaultDelay struct {
	// Fixed is how long, unless FromHeader lets a request say it: in the header
	// x-envoy-fault-delay-request, in milliseconds. Without it there is no delay.
	Fixed      time.Duration
	FromHeader bool
	// PerMillion of the calls are delayed. A request may ask for a smaller share of
	// its kind, in the header x-envoy-fault-delay-request-percentage, in units of
	// Unit millionths; it cannot ask for a larger one.
	PerMillion uint32
	Unit       uint32
}

// FaultRateLimit limits how fast the body of a response passes: that of a gRPC call
// is its messages.
type FaultRateLimit struct {
	// KiBPerSecond is the limit, unless FromHeader lets a request say it: in the
	// header x-envoy-fault-throughput-response. Without it there is no limit.
	KiBPerSecond uint64
	FromHeader   bool
	// PerMillion of the responses are limited. PerMillion and Unit are as in
	// [FaultDelay], with the header x-envoy-fault-throughput-response-percentage.
	PerMillion uint32
	Unit       uint32
}

// FaultAbort ends a share of the calls with a status.
type FaultAbort struct {
	// HTTPStatus or, if IsGRPC, GRPCStatus.
	HTTPStatus int
	GRPCStatus uint32
	IsGRPC     bool
	// FromHeader lets a request say the status: in x-envoy-fault-abort-request or
	// x-envoy-fault-abort-grpc-request. Without one there is no abort.
	FromHeader bool
	// PerMillion of the calls are aborted. PerMillion and Unit are as in
	// [FaultDelay], with the header x-envoy-fault-abort-request-percentage.
	PerMillion uint32
	Unit       uint32
}
