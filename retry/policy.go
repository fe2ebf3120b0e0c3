package retry

import "time"

// Policy says when and how a call is tried again. It is immutable once a call
// uses it. The zero value makes one attempt.
type Policy struct {
	// MaxRetries is num_retries: attempts after the first. The decoder fills
	// in Envoy's default of 1.
	MaxRetries uint32
	// On is the set of conditions of which one must hold.
	On Conditions
	// RetriableStatusCodes is for the condition RetriableStatusCodes.
	RetriableStatusCodes []int
	// PerTryTimeout ends one attempt; 0 means none. One that is not shorter
	// than the route's timeout has no effect.
	PerTryTimeout time.Duration
	// PerTryIdleTimeout ends an attempt, or its response, of which nothing has
	// arrived for so long; 0 means none. Unlike PerTryTimeout it goes on while
	// the response is read.
	PerTryIdleTimeout time.Duration
	Backoff           Backoff
	// RateLimited replaces Backoff for a response that says when to come back;
	// nil takes no notice of that.
	RateLimited *RateLimited
	// AvoidPreviousHosts is the previous_hosts predicate. It is exact: an
	// endpoint that was tried is not tried again while there is another, so
	// Envoy's number of attempts at selecting one has no meaning here.
	AvoidPreviousHosts bool
	// OmitCanary is the omit_canary_hosts predicate: retries avoid endpoints
	// whose metadata "envoy.lb" has a canary of true, while there are others.
	OmitCanary bool
	// OmitMetadata is the omit_host_metadata predicate: retries avoid endpoints
	// whose metadata "envoy.lb" has all these values, while there are others;
	// empty avoids none.
	OmitMetadata map[string]string
	// PriorityUpdates is previous_priorities with its update_frequency: after
	// each so many attempts, the priorities that they went to are avoided until
	// there is no other left. 0 leaves priorities to the balancer.
	PriorityUpdates uint32
}

// RateLimited is the back-off of a response in which the server says how long to
// wait ("rate_limited_retry_back_off" of Envoy).
type RateLimited struct {
	// Headers are looked at in this order; the first that holds a wait of at
	// most Max is used. Without one the ordinary back-off is.
	Headers []ResetHeader
	// Max is max_interval. The decoder fills in Envoy's default of 300 s.
	Max time.Duration
}

// ResetHeader is a response header that tells when to come back.
type ResetHeader struct {
	// Name is lower case.
	Name string
	// UnixTime is true for a time in seconds since 1970, false for a number of
	// seconds from now.
	UnixTime bool
}

// Backoff is the wait between attempts.
type Backoff struct {
	// Base is base_interval; 0 means Envoy's default of 25 ms.
	Base time.Duration
	// Max is max_interval; 0 means ten times Base.
	Max time.Duration
}

// Budget bounds the retries in flight by a share of the requests in flight.
type Budget struct {
	// Percent of the active and pending requests; Envoy's default of 20 is
	// filled in by the decoder.
	Percent float64
	// MinConcurrency is always allowed; Envoy's default of 3 is filled in by
	// the decoder.
	MinConcurrency uint32
}
