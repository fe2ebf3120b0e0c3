package breaker

import "time"

// Limits are Envoy's circuit-breaker thresholds of one routing priority.
type Limits struct {
	MaxConnections     uint32
	MaxPendingRequests uint32
	MaxRequests        uint32
	MaxRetries         uint32
}

// DefaultLimits are Envoy's defaults.
var DefaultLimits = Limits{MaxConnections: 1024, MaxPendingRequests: 1024, MaxRequests: 1024, MaxRetries: 3}

// Settings configure an error-rate breaker. It opens when, within Window, at
// least MinRequests have ended and the share of failures reached FailureRatio.
type Settings struct {
	// FailureRatio is in (0, 1].
	FailureRatio float64
	// MinRequests before the ratio counts; at least 1.
	MinRequests uint32
	// Window is the period over which is counted.
	Window time.Duration
	// OpenTime is how long the breaker refuses before it probes.
	OpenTime time.Duration
	// HalfOpenProbes is how many calls may probe at once, and how many must
	// succeed to close it again; at least 1.
	HalfOpenProbes uint32
}
