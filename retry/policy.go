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
	Backoff       Backoff
	// AvoidPreviousHosts is the previous_hosts predicate. It is exact: an
	// endpoint that was tried is not tried again while there is another, so
	// Envoy's number of attempts at selecting one has no meaning here.
	AvoidPreviousHosts bool
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
