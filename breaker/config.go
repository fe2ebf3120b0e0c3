package breaker

import (
	"errors"
	"fmt"
	"time"
)

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
	// Window is the period over which is counted; at most a day.
	Window time.Duration
	// OpenTime is how long the breaker refuses before it probes.
	OpenTime time.Duration
	// HalfOpenProbes is how many calls may probe at once, and how many must
	// succeed to close it again; at least 1.
	HalfOpenProbes uint32
}

// maxWindow keeps durations far from where they overflow. What happened longer
// ago says nothing about a cluster.
const maxWindow = 24 * time.Hour

// Validate reports every field that is out of range, by the name that it has in
// the configuration.
func (s Settings) Validate() error {
	var errs []error
	if !(s.FailureRatio > 0 && s.FailureRatio <= 1) { // also refuses NaN
		errs = append(errs, fmt.Errorf("failureRatio %v: must be above 0 and at most 1", s.FailureRatio))
	}
	if s.MinRequests < 1 {
		errs = append(errs, errors.New("minimumRequests 0: must be at least 1"))
	}
	if s.Window <= 0 || s.Window > maxWindow {
		errs = append(errs, fmt.Errorf("window %v: must be above 0 and at most %v", s.Window, maxWindow))
	}
	if s.OpenTime <= 0 {
		errs = append(errs, fmt.Errorf("openTime %v: must be a positive duration", s.OpenTime))
	}
	if s.HalfOpenProbes < 1 {
		errs = append(errs, errors.New("halfOpenProbes 0: must be at least 1"))
	}
	return errors.Join(errs...)
}
