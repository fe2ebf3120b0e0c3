package discovery

import (
	"regexp"
	"time"

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
	// Retry is the policy of routes that have none.
	Retry *retry.Policy
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
	// PerMillion is runtime_fraction in millionths; nil matches always.
	PerMillion *uint32
}

// PathMatch is Envoy's path_specifier.
type PathMatch struct {
	Kind  PathMatchKind
	Value string
	// Regex is set for PathRegex.
	Regex      *Regex
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

// Forward sends the request to a cluster.
type Forward struct {
	// Clusters has one entry for a plain cluster; weights are relative to
	// their sum, which is positive.
	Clusters []WeightedCluster
	// Timeout covers the call with all its attempts; 0 means none. Envoy's
	// default of 15 s is filled in by the decoder.
	Timeout time.Duration
	// MaxStreamDuration and GRPCTimeoutHeaderMax are those of gRFC A31; nil
	// means unset, 0 means no limit.
	MaxStreamDuration    *time.Duration
	GRPCTimeoutHeaderMax *time.Duration
	// Retry is the effective policy (the route's, else the virtual host's);
	// nil means one attempt.
	Retry    *retry.Policy
	Priority RoutingPriority
	// PrefixRewrite replaces the matched prefix or path; "" keeps it.
	PrefixRewrite string
	// HostRewrite replaces the authority; "" keeps it.
	HostRewrite string
}

// WeightedCluster is one choice of a route.
type WeightedCluster struct {
	Name    string
	Weight  uint32
	Headers HeaderMutations
	Filters map[string]FilterOverride
}

// Redirect answers with a Location.
type Redirect struct {
	Status        int
	Scheme        string
	Host          string
	Port          uint32
	Path          string
	PrefixRewrite string
	StripQuery    bool
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
	Name      string
	Value     string
	Action    HeaderAction
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
	// Headers must all match for a fault to be injected.
	Headers []HeaderMatch
	// MaxActive caps the faults that are active at once; 0 means no cap.
	MaxActive uint32
}

func (*Fault) filterConfig() {}

// FaultDelay delays a share of the calls.
type FaultDelay struct {
	Fixed      time.Duration
	PerMillion uint32
}

// FaultAbort ends a share of the calls with a status.
type FaultAbort struct {
	// HTTPStatus or, if IsGRPC, GRPCStatus.
	HTTPStatus int
	GRPCStatus uint32
	IsGRPC     bool
	PerMillion uint32
}
