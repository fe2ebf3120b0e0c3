package mesh

import (
	"encoding/json"
	"time"
)

// Explanation is where a call would go, and why. Its JSON form is stable: fields
// are added and not renamed. It has no values of headers, cookies or parameters
// whose names sound like secrets.
type Explanation struct {
	// Protocol is "http" or "grpc".
	Protocol string `json:"protocol"`
	Method   string `json:"method"`
	// Host is the authority, Path the escaped path without the query.
	Host string `json:"host"`
	Path string `json:"path"`
	// Target is the destination's name in the configuration, "host:port".
	Target  string  `json:"target"`
	Verdict Verdict `json:"verdict"`
	// Reason says more about the verdict, where there is more to say.
	Reason string `json:"reason,omitempty"`

	// VirtualHost is nil if none is for the host. Hosts are then those that there
	// are.
	VirtualHost *ExplainedVirtualHost  `json:"virtualHost,omitempty"`
	Hosts       []ExplainedVirtualHost `json:"virtualHosts,omitempty"`
	// NotMatched are the routes before Route, all of them if it is nil, each with
	// the first condition that the request does not meet.
	NotMatched []ExplainedMismatch `json:"notMatched,omitempty"`
	Route      *ExplainedRoute     `json:"route,omitempty"`
	// Answer is that of the configuration, for VerdictDirectResponse, VerdictRedirect and VerdictFilter.
	Answer *ExplainedAnswer `json:"answer,omitempty"`
	// Filters run before the call is forwarded or answered, in this order.
	Filters []ExplainedFilter `json:"filters,omitempty"`
	// Choices are the clusters of the route. Draw is how one was chosen, nil if
	// there is one only.
	Choices []ExplainedChoice `json:"choices,omitempty"`
	Draw    *ExplainedDraw    `json:"draw,omitempty"`
	// Mirrors are the clusters that get copies of the request.
	Mirrors []ExplainedMirror `json:"mirrors,omitempty"`
	// Cluster is the chosen one.
	Cluster *ExplainedCluster `json:"cluster,omitempty"`
	// ResponseHeaders are what the configuration does to the headers of responses and
	// answers, in order: "sets x-frame-options: DENY", "adds via: %PROTOCOL% if absent",
	// "removes server". What a filter adds is among its effects.
	ResponseHeaders []string `json:"responseHeaders,omitempty"`
	// Redirects says which redirects of the endpoint the call follows by itself, "" if
	// they are handed to the application.
	Redirects string `json:"redirects,omitempty"`
	// Sent is what the endpoint would see, nil if the call is not forwarded.
	Sent     *ExplainedSent     `json:"sent,omitempty"`
	Timeouts *ExplainedTimeouts `json:"timeouts,omitempty"`
	// Retry is nil if there is one attempt only. Its Max is 0 if that is so although
	// hedging is configured.
	Retry *ExplainedRetry `json:"retry,omitempty"`
}

// ExplainedVirtualHost is a virtual host of the route table.
type ExplainedVirtualHost struct {
	Name string `json:"name"`
	// Domain is the one of Domains that is for the request.
	Domain  string   `json:"domain,omitempty"`
	Domains []string `json:"domains,omitempty"`
}

// ExplainedMismatch is a route that does not match.
type ExplainedMismatch struct {
	// Index is its number in the virtual host, from 0.
	Index int    `json:"index"`
	Name  string `json:"name"`
	// Condition is the first one that is not met: "path", "header x-user",
	// "query v", "cookie c", "metadata f:k", "grpc" or "fraction". Want is what it asks for and Got
	// what the request has.
	Condition string `json:"condition"`
	Want      string `json:"want"`
	Got       string `json:"got"`
}

// ExplainedRoute is the route that matches.
type ExplainedRoute struct {
	Index int    `json:"index"`
	Name  string `json:"name"`
	// Match is its conditions, in words.
	Match string `json:"match"`
}

// ExplainedAnswer is a response that the configuration gives.
type ExplainedAnswer struct {
	Status int `json:"status"`
	// GRPCCode is what a gRPC call gets.
	GRPCCode string `json:"grpcCode,omitempty"`
	Location string `json:"location,omitempty"`
	// Headers are those that a filter gives it, "access-control-max-age: 60".
	Headers []string `json:"headers,omitempty"`
	// Body is the body, or its beginning, BodyBytes its length.
	Body      string `json:"body,omitempty"`
	BodyBytes int    `json:"bodyBytes,omitempty"`
}

// ExplainedFilter is a filter of the listener as it is set for the route.
type ExplainedFilter struct {
	Name string `json:"name"`
	// Enabled is false if it is switched off for the route, or has nothing to do
	// for the request.
	Enabled bool `json:"enabled"`
	// Effect is what it does, in words.
	Effect string `json:"effect"`
}

// ExplainedChoice is one of the clusters of a route.
type ExplainedChoice struct {
	Cluster string `json:"cluster"`
	Weight  uint32 `json:"weight"`
	// Percent is its share of the calls.
	Percent float64 `json:"percent"`
	Chosen  bool    `json:"chosen"`
}

// ExplainedMirror is a cluster that gets copies.
type ExplainedMirror struct {
	Cluster string `json:"cluster"`
	// Percent is the share of the calls that are copied.
	Percent float64 `json:"percent"`
	// Missing is whether there is no such cluster, so that nothing is copied: a header
	// names one that no route of the table does.
	Missing bool `json:"missing,omitempty"`
}

// ExplainedDraw is how one of several clusters was chosen.
type ExplainedDraw struct {
	// By is "random", "header", "hash" or "session", which names it. At random, the next
	// call may go to another one.
	By string `json:"by"`
	// Number is below Total, the sum of the weights.
	Number uint64 `json:"number"`
	Total  uint64 `json:"total"`
}

// ExplainedCluster is the chosen cluster at this moment.
type ExplainedCluster struct {
	Name string `json:"name"`
	// Error is why it cannot be used.
	Error string `json:"error,omitempty"`
	// Policy is the load-balancing policy, HashOf what it hashes of a request, if it
	// hashes. Protocol is the HTTP version to the endpoints.
	Policy   string   `json:"policy,omitempty"`
	HashOf   []string `json:"hashOf,omitempty"`
	Protocol string   `json:"protocol,omitempty"`
	// Hash is "determined" if it leads the call to one endpoint, "drawn: " and why, or ""
	// if it has no say.
	Hash string `json:"hash,omitempty"`
	// ZoneAware is "on", "off: " and why, or "" without zone aware routing.
	ZoneAware string `json:"zoneAware,omitempty"`
	// MutualTLS is whether every endpoint is reached with mutual TLS. Peers are the
	// identities and names of which an endpoint must prove one. A cluster without endpoints
	// may expect nobody, which is said.
	MutualTLS bool     `json:"mutualTLS"`
	Peers     []string `json:"peers,omitempty"`
	// Endpoints are all of them; those with Candidate are picked from.
	Endpoints []ExplainedEndpoint `json:"endpoints"`
	Limits    *ExplainedLimits    `json:"limits,omitempty"`
	// Pool is how connections are shared and when they are closed, in words: "at most 2 to
	// an endpoint; closed behind 100 calls; closed after 1m0s without a call". "" is as
	// usual: without bounds, and closed after an hour without a call. The limit to an
	// endpoint and connections made ahead are for HTTP only, not for gRPC.
	Pool string `json:"pool,omitempty"`
	// Breaker is the state of the error-rate breaker: "closed", "half-open",
	// "open", "" without one.
	Breaker string `json:"breaker,omitempty"`
	// Drops are the shares of the calls that are refused before an endpoint is
	// picked.
	Drops []ExplainedDrop `json:"drops,omitempty"`
	// Outlier is whether endpoints that fail are ejected, Detectors by what and for how
	// long, in words.
	Outlier   bool   `json:"outlierDetection"`
	Detectors string `json:"detectors,omitempty"`
	// SlowStart is how the traffic of new endpoints grows, and Checks how endpoints are
	// checked actively, in words; "" if that is not so.
	SlowStart string `json:"slowStart,omitempty"`
	Checks    string `json:"healthChecks,omitempty"`
	// Panic is which priorities with traffic have too few fit endpoints, and what becomes
	// of the calls that come to them; "" if none has.
	Panic string `json:"panic,omitempty"`
	// PanicThreshold is the share of fit endpoints, in percent, below which a priority is in
	// panic; 0 is none.
	PanicThreshold float64 `json:"panicThreshold,omitempty"`
	// Subsetting is how many of the endpoints this process uses, in words; "" if all.
	// Endpoints are those.
	Subsetting string `json:"subsetting,omitempty"`
	// Shares are how the calls are divided among priorities and weighted localities, in
	// words: "71% to priority 0: 80% in eu/a, 20% in us/a"; nil if they are not. Those of an
	// aggregate name the leaf: "71% to near, priority 0".
	Shares []string `json:"shares,omitempty"`
	// Leaves are the clusters that an aggregate consists of, in order; nil for others.
	// They have the endpoints, and all of the above: what an aggregate has of its own are
	// Drops, Shares and the limit of retries.
	Leaves []ExplainedLeaf `json:"leaves,omitempty"`
}

// ExplainedLeaf is one of the clusters that an aggregate consists of.
type ExplainedLeaf struct {
	Name string `json:"name"`
	// Error is why it cannot be used.
	Error string `json:"error,omitempty"`
	// Policy, Protocol and the following are as those of a cluster.
	Policy    string           `json:"policy"`
	Protocol  string           `json:"protocol"`
	ZoneAware string           `json:"zoneAware,omitempty"`
	Limits    *ExplainedLimits `json:"limits,omitempty"`
	Pool      string           `json:"pool,omitempty"`
	Breaker   string           `json:"breaker,omitempty"`
	Drops     []ExplainedDrop  `json:"drops,omitempty"`
	Outlier   bool             `json:"outlierDetection"`
	Detectors string           `json:"detectors,omitempty"`
	SlowStart string           `json:"slowStart,omitempty"`
	Checks    string           `json:"healthChecks,omitempty"`
	Panic     string           `json:"panic,omitempty"`
	// PanicThreshold and Subsetting are as those of a cluster.
	PanicThreshold float64 `json:"panicThreshold,omitempty"`
	Subsetting     string  `json:"subsetting,omitempty"`
	// Refuses is why an attempt that goes to it fails, "" if it does not.
	Refuses string `json:"refuses,omitempty"`
}

// ExplainedEndpoint is an endpoint of the chosen cluster.
type ExplainedEndpoint struct {
	Address string `json:"address"`
	// Cluster is the one of the cluster's Leaves that it is of, "" without leaves.
	Cluster  string `json:"cluster,omitempty"`
	Hostname string `json:"hostname,omitempty"`
	Locality string `json:"locality,omitempty"`
	Priority uint32 `json:"priority"`
	Weight   uint32 `json:"weight"`
	// Health is what the control plane says.
	Health string `json:"health"`
	// Security is "mutual TLS", "TLS" or "plaintext".
	Security string `json:"security"`
	// Ejected is why outlier detection leaves it out, "" if it does not.
	Ejected string `json:"ejected,omitempty"`
	// Check is what active health checks found: "healthy", "degraded", "unhealthy",
	// "not yet" before the first has ended, "" if it is not checked.
	Check string `json:"check,omitempty"`
	// Warmth is how much of its weight slow start leaves it now, in percent; 0 is that
	// it leaves all.
	Warmth float64 `json:"warmth,omitempty"`
	// Unreachable is whether connecting failed a moment ago, or the endpoint takes no
	// requests over HTTP/2 for now (MAX_CONCURRENT_STREAMS is 0).
	Unreachable bool `json:"unreachable,omitempty"`
	// Active is how many requests are in flight to it.
	Active int64 `json:"active"`
	// Candidate is whether the first attempt can go to it now. Why says why not.
	Candidate bool   `json:"candidate"`
	Why       string `json:"why,omitempty"`
}

// ExplainedLimits are the limits of the cluster at the route's priority, and what is in
// use.
type ExplainedLimits struct {
	// Priority is "default" or "high".
	Priority    string         `json:"priority"`
	Connections ExplainedLimit `json:"connections"`
	Pending     ExplainedLimit `json:"pending"`
	Requests    ExplainedLimit `json:"requests"`
	Retries     ExplainedLimit `json:"retries"`
}

// ExplainedLimit is a limit and what is in use of it.
type ExplainedLimit struct {
	Used uint32 `json:"used"`
	Max  uint32 `json:"max"`
	// Budget is what is in the place of Max, in words.
	Budget string `json:"budget,omitempty"`
}

// ExplainedDrop refuses a share of the calls.
type ExplainedDrop struct {
	Category string  `json:"category"`
	Percent  float64 `json:"percent"`
}

// ExplainedSent is the request as the endpoint sees it.
type ExplainedSent struct {
	Host string `json:"host"`
	// EndpointHost is whether Host is the endpoint's own name, if it has one.
	EndpointHost bool   `json:"endpointHost,omitempty"`
	Path         string `json:"path"`
	// Set and Removed are the names of the headers that the configuration sets,
	// changes and removes, sorted.
	Set     []string `json:"setHeaders,omitempty"`
	Removed []string `json:"removedHeaders,omitempty"`
	// Headers are the operations that do so, in order: "sets x-tier: gold". The last are
	// those whose value is nothing: "without x-from: %DOWNSTREAM_REMOTE_ADDRESS% is empty here".
	Headers []string `json:"headers,omitempty"`
}

// ExplainedTimeouts bound the call. 0 is none.
type ExplainedTimeouts struct {
	// Call is for all attempts, what the caller's own deadline leaves apart.
	Call ExplainedDuration `json:"call"`
	// Try is for one attempt, TryIdle for one of which nothing arrives, Connect for
	// TCP and TLS.
	Try     ExplainedDuration `json:"try"`
	TryIdle ExplainedDuration `json:"tryIdle"`
	Connect ExplainedDuration `json:"connect"`
	// Needed must be left of the call's time for an attempt to begin.
	Needed ExplainedDuration `json:"needed"`
}

// ExplainedRetry is the retry policy.
type ExplainedRetry struct {
	// Max is the number of attempts after the first.
	Max uint32 `json:"max"`
	On  string `json:"on"`
	// Statuses are those of the condition "retriable-status-codes".
	Statuses []int `json:"statuses,omitempty"`
	// Headers are the names of those of the condition "retriable-headers".
	Headers []string `json:"headers,omitempty"`
	// BackoffBase and BackoffMax bound the wait before an attempt.
	BackoffBase ExplainedDuration `json:"backoffBase"`
	BackoffMax  ExplainedDuration `json:"backoffMax"`
	// RateLimited are the response headers that replace the wait.
	RateLimited []string `json:"rateLimited,omitempty"`
	// OtherPriorities is after how many attempts the priorities that they went to are
	// avoided; 0 is never. Omitted is what in the metadata of endpoints makes a retry
	// avoid them: "canary", "stage=dev".
	OtherPriorities uint32   `json:"otherPriorities,omitempty"`
	Omitted         []string `json:"omitted,omitempty"`
	// OtherEndpoints is whether an endpoint is not tried twice while there is
	// another.
	OtherEndpoints bool `json:"otherEndpoints"`
	// Hedge is when another attempt begins beside one that has not ended, in words;
	// "" is never.
	Hedge string `json:"hedge,omitempty"`
	// NotHedged is why that is never although it is configured, "" otherwise.
	NotHedged string `json:"notHedged,omitempty"`
}

// ExplainedDuration is a time that JSON has as text: "1.5s".
type ExplainedDuration time.Duration

// String is as that of [time.Duration].
func (d ExplainedDuration) String() string { return time.Duration(d).String() }

// MarshalText writes the text.
func (d ExplainedDuration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the text.
func (d *ExplainedDuration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = ExplainedDuration(parsed)
	return err
}

// JSON is the explanation as JSON, indented.
func (e *Explanation) JSON() []byte {
	data, err := json.MarshalIndent(e, "", "  ")
	if err != nil { // there is nothing in it that has no JSON
		return nil
	}
	return append(data, '\n')
}
