// Package explain says where a call would go, and why: it asks the compiled
// configuration of the call's target, and the running clusters, what they would
// do. It sends nothing and counts nothing.
package explain

import "time"

// Verdict is what would become of a call.
type Verdict string

const (
	// Forward is a call that goes to an endpoint of Explanation.Cluster, if no filter
	// answers before.
	Forward Verdict = "forward"
	// NoEndpoint is a call that would be forwarded, and fails at this moment, because
	// the cluster has no endpoint that can be picked.
	NoEndpoint Verdict = "no-endpoint"
	// Overflow is a call that would be forwarded, and fails at this moment with nothing
	// sent, because the cluster's error-rate breaker is open, or one of its limits is
	// reached: Explanation.Reason says which.
	Overflow Verdict = "overflow"
	// NoTime is a call that would be forwarded, and fails with nothing sent, because too
	// little of its time is left.
	NoTime Verdict = "no-time"
	// DirectResponse is a call that the configuration answers.
	DirectResponse Verdict = "direct-response"
	// Redirect is a call that is answered with another location.
	Redirect Verdict = "redirect"
	// FilterAnswer is a call that a filter of the route answers.
	FilterAnswer Verdict = "filter-answers"
	// NoRoute is a call that fails, because no route is for it.
	NoRoute Verdict = "no-route"
	// NoCluster is a call that fails, because its route leads to a cluster that is
	// not there or cannot be used.
	NoCluster Verdict = "no-cluster"
	// NoConfig is a call that fails, because its target's configuration cannot be
	// had.
	NoConfig Verdict = "no-configuration"
	// AroundMesh is a call that passes round the mesh.
	AroundMesh Verdict = "around-the-mesh"
	// Refused is a call to a host that is unknown, which the outbound policy
	// refuses.
	Refused Verdict = "refused"
)

// Explanation is where a call would go, and why. It has no values of headers,
// cookies or parameters whose names sound like secrets. Applications see it as that
// of package mesh, which has every field of it.
type Explanation struct {
	// Protocol is "http" or "grpc".
	Protocol string
	Method   string
	// Host is the authority, Path the escaped path without the query.
	Host string
	Path string
	// Target is the destination's name in the configuration, "host:port".
	Target  string
	Verdict Verdict
	// Reason says more about the verdict, where there is more to say.
	Reason string

	// VirtualHost is nil if none is for the host. Hosts are then those that there
	// are.
	VirtualHost *VirtualHost
	Hosts       []VirtualHost
	// NotMatched are the routes before Route, all of them if it is nil, each with
	// the first condition that the request does not meet.
	NotMatched []Mismatch
	Route      *Route
	// Answer is that of the configuration, for DirectResponse and Redirect.
	Answer *Answer
	// Filters run before the call is forwarded or answered, in this order.
	Filters []Filter
	// Choices are the clusters of the route. Draw is how one was chosen, nil if
	// there is one only.
	Choices []Choice
	Draw    *Draw
	// Mirrors are the clusters that get copies of the request.
	Mirrors []Mirror
	// Cluster is the chosen one.
	Cluster *Cluster
	// ResponseHeaders are what the configuration does to the headers of responses and
	// answers, in order: "sets x-frame-options: DENY", "adds via: %PROTOCOL% if absent",
	// "removes server". What a filter adds is among its effects.
	ResponseHeaders []string
	// Redirects says which redirects of the endpoint the call follows by itself, "" if
	// they are handed to the application.
	Redirects string
	// Sent is what the endpoint would see, nil if the call is not forwarded.
	Sent     *Sent
	Timeouts *Timeouts
	// Retry is nil if there is one attempt only, and no hedging.
	Retry *Retry
}

// VirtualHost is a virtual host of the route table.
type VirtualHost struct {
	Name string
	// Domain is the one of Domains that is for the request.
	Domain  string
	Domains []string
}

// Mismatch is a route that does not match.
type Mismatch struct {
	// Index is its number in the virtual host, from 0.
	Index int
	Name  string
	// Condition is the first one that is not met: "path", "header x-user",
	// "query v", "cookie c", "metadata f:k", "grpc" or "fraction". Want is what it asks for and Got
	// what the request has.
	Condition string
	Want      string
	Got       string
}

// Route is the route that matches.
type Route struct {
	Index int
	Name  string
	// Match is its conditions, in words.
	Match string
}

// Answer is a response that the configuration gives.
type Answer struct {
	Status int
	// GRPCCode is what a gRPC call gets.
	GRPCCode string
	Location string
	// Headers are those that a filter gives it, "access-control-max-age: 60".
	Headers []string
	// Body is the body, or its beginning, BodyBytes its length.
	Body      string
	BodyBytes int
}

// Filter is a filter of the listener as it is set for the route.
type Filter struct {
	Name string
	// Enabled is false if it is switched off for the route, or has nothing to do
	// for the request.
	Enabled bool
	// Effect is what it does, in words.
	Effect string
}

// Choice is one of the clusters of a route.
type Choice struct {
	Cluster string
	Weight  uint32
	// Percent is its share of the calls.
	Percent float64
	Chosen  bool
}

// Mirror is a cluster that gets copies.
type Mirror struct {
	Cluster string
	// Percent is the share of the calls that are copied.
	Percent float64
	// Missing is whether there is no such cluster, so that nothing is copied: a header
	// names one that no route of the table does.
	Missing bool
}

// Draw is how one of several clusters was chosen.
type Draw struct {
	// By is "random", "header", "hash" or "session", which names it. At random, the next
	// call may go to another one.
	By string
	// Number is below Total, the sum of the weights.
	Number uint64
	Total  uint64
}

// Cluster is the chosen cluster at this moment.
type Cluster struct {
	Name string
	// Error is why it cannot be used.
	Error string
	// Policy is the load-balancing policy, HashOf what it hashes of a request, if it
	// hashes. Protocol is the HTTP version to the endpoints.
	Policy   string
	HashOf   []string
	Protocol string
	// Hash is "determined" if it leads the call to one endpoint, "drawn: " and why, or ""
	// if it has no say.
	Hash string
	// ZoneAware is "on", "off: " and why, or "" without zone aware routing.
	ZoneAware string
	// MutualTLS is whether every endpoint is reached with mutual TLS. Peers are the
	// identities and names of which an endpoint must prove one. A cluster without endpoints
	// may expect nobody, which is said.
	MutualTLS bool
	Peers     []string
	// Endpoints are all of them; those with Candidate are picked from.
	Endpoints []Endpoint
	Limits    *Limits
	// Pool is how connections are shared and when they are closed, in words; ""
	// if as usual.
	Pool string
	// Breaker is the state of the error-rate breaker: "closed", "half-open",
	// "open", "" without one.
	Breaker string
	// Drops are the shares of the calls that are refused before an endpoint is
	// picked.
	Drops []Drop
	// Outlier is whether endpoints that fail are ejected, Detectors by what and for how
	// long, in words.
	Outlier   bool
	Detectors string
	// SlowStart is how the traffic of new endpoints grows, and Checks how endpoints are
	// checked actively, in words; "" if that is not so.
	SlowStart string
	Checks    string
	// Panic is which priorities with traffic have too few fit endpoints, and what becomes
	// of the calls that come to them; "" if none has.
	Panic string
	// PanicThreshold is the share of fit endpoints, in percent, below which a priority is in
	// panic; 0 is none.
	PanicThreshold float64
	// Subsetting is how many of the endpoints this process uses, in words; "" if all.
	// Endpoints are those.
	Subsetting string
	// Shares are how the calls are divided among priorities and weighted localities, in
	// words: "71% to priority 0: 80% in eu/a, 20% in us/a"; nil if they are not. Those of an
	// aggregate name the leaf: "71% to near, priority 0".
	Shares []string
	// Leaves are the clusters that an aggregate consists of, in order; nil for others.
	// They have the endpoints, and all of the above: what an aggregate has of its own are
	// Drops, Shares and the limit of retries.
	Leaves []Leaf
}

// Leaf is one of the clusters that an aggregate consists of.
type Leaf struct {
	Name string
	// Error is why it cannot be used.
	Error string
	// Policy, Protocol and the following are as those of a cluster.
	Policy    string
	Protocol  string
	ZoneAware string
	Limits    *Limits
	Pool      string
	Breaker   string
	Drops     []Drop
	Outlier   bool
	Detectors string
	SlowStart string
	Checks    string
	Panic     string
	// PanicThreshold and Subsetting are as those of a cluster.
	PanicThreshold float64
	Subsetting     string
	// Refuses is why an attempt that goes to it fails, "" if it does not.
	Refuses string
}

// Endpoint is an endpoint of the chosen cluster.
type Endpoint struct {
	Address string
	// Cluster is the one of Cluster.Leaves that it is of, "" without leaves.
	Cluster  string
	Hostname string
	Locality string
	Priority uint32
	Weight   uint32
	// Health is what the control plane says.
	Health string
	// Security is "mutual TLS", "TLS" or "plaintext".
	Security string
	// Ejected is why outlier detection leaves it out, "" if it does not.
	Ejected string
	// Check is what active health checks found: "healthy", "degraded", "unhealthy",
	// "not yet" before the first has ended, "" if it is not checked.
	Check string
	// Warmth is how much of its weight slow start leaves it now, in percent; 0 is that
	// it leaves all.
	Warmth float64
	// Unreachable is whether connecting failed a moment ago, or the endpoint takes no
	// requests over HTTP/2 for now (MAX_CONCURRENT_STREAMS is 0).
	Unreachable bool
	// Active is how many requests are in flight to it.
	Active int64
	// Candidate is whether the first attempt can go to it now. Why says why not.
	Candidate bool
	Why       string
}

// Limits are the limits of the cluster at the route's priority, and what is in
// use.
type Limits struct {
	// Priority is "default" or "high".
	Priority    string
	Connections Limit
	Pending     Limit
	Requests    Limit
	Retries     Limit
}

// Limit is a limit and what is in use of it.
type Limit struct {
	Used uint32
	Max  uint32
	// Budget is what is in the place of Max, in words.
	Budget string
}

// Drop refuses a share of the calls.
type Drop struct {
	Category string
	Percent  float64
}

// Sent is the request as the endpoint sees it.
type Sent struct {
	Host string
	// EndpointHost is whether Host is the endpoint's own name, if it has one.
	EndpointHost bool
	Path         string
	// Set and Removed are the names of the headers that the configuration sets,
	// changes and removes, sorted.
	Set     []string
	Removed []string
	// Headers are the operations that do so, in order: "sets x-tier: gold". The last are
	// those whose value is nothing: "without x-from: %DOWNSTREAM_REMOTE_ADDRESS% is empty here".
	Headers []string
}

// Timeouts bound the call. 0 is none.
type Timeouts struct {
	// Call is for all attempts, what the caller's own deadline leaves apart.
	Call time.Duration
	// Try is for one attempt, TryIdle for one of which nothing arrives, Connect for
	// TCP and TLS.
	Try     time.Duration
	TryIdle time.Duration
	Connect time.Duration
	// Needed must be left of the call's time for an attempt to begin.
	Needed time.Duration
}

// Retry is the retry policy.
type Retry struct {
	// Max is the number of attempts after the first.
	Max uint32
	On  string
	// Statuses are those of the condition "retriable-status-codes".
	Statuses []int
	// Headers are the names of those of the condition "retriable-headers".
	Headers []string
	// BackoffBase and BackoffMax bound the wait before an attempt.
	BackoffBase time.Duration
	BackoffMax  time.Duration
	// RateLimited are the response headers that replace the wait.
	RateLimited []string
	// OtherPriorities is after how many attempts the priorities that they went to are
	// avoided; 0 is never. Omitted is what in the metadata of endpoints makes a retry
	// avoid them: "canary", "stage=dev".
	OtherPriorities uint32
	Omitted         []string
	// OtherEndpoints is whether an endpoint is not tried twice while there is
	// another.
	OtherEndpoints bool
	// Hedge is when another attempt begins beside one that has not ended, in words;
	// "" is never.
	Hedge string
	// NotHedged is why that is never although it is configured, "" otherwise.
	NotHedged string
}
