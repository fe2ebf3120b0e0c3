package balancer

import "time"

// OutlierConfig is how a cluster finds the hosts that fail more than others, and
// for how long it leaves them out: Envoy's OutlierDetection. Hosts that are left
// out ("ejected") count as unhealthy, as in Envoy: they are not picked unless
// their priority is in panic. Their connections stay, and so do the calls on them.
//
// What is counted is what [Host.Report] is told. Failures of local origin are
// those without a response: a connection that was refused or broke, a timeout.
// The others are external: a response that says that the server failed. Without
// SplitLocalOrigin both count as external.
//
// A timeout counts if the configuration set it and no response had begun, as in
// Envoy's router. A deadline that the caller brought counts if the host has had a
// second since it was sent the request: shorter ones say more of the caller, who need
// not be trusted. A connection that cannot be made counts once, however many calls
// wait for it, unless it is this process that lacks what it takes.
//
// The zero value ejects nobody. [DefaultOutlierConfig] has Envoy's defaults.
type OutlierConfig struct {
	// Interval is how often [Set.Sweep] is to be called. The detectors by rate
	// look at what was reported since the last sweep, and hosts return at a sweep.
	Interval time.Duration
	// BaseEjectionTime is how long the first ejection of a host lasts, the n-th
	// n times as long, until MaxEjectionTime. A sweep at which a host is in
	// service makes n smaller by 1.
	BaseEjectionTime time.Duration
	// MaxEjectionTime counts as BaseEjectionTime if that is longer.
	MaxEjectionTime time.Duration
	// EjectionJitter is the most that is added to the time of an ejection, at
	// random, so that not all hosts return at once.
	EjectionJitter time.Duration
	// MaxEjectionPercent is how many of all hosts may be ejected at a time. One
	// may be ejected whatever the percentage if another is fit to serve, but for
	// 0, which allows none. With 100 it is only a panic that keeps a cluster
	// going all of whose hosts fail.
	MaxEjectionPercent uint32
	// AlwaysEjectOneHost allows one ejection even of a single host, or with a
	// MaxEjectionPercent of 0.
	AlwaysEjectOneHost bool
	// UnejectOnCheck lets the success of an active health check end an ejection,
	// see [Set.Recovered].
	UnejectOnCheck bool
	// SplitLocalOrigin counts failures of local origin apart.
	SplitLocalOrigin bool

	// Consecutive5xx is about failures in a row; without SplitLocalOrigin those
	// of local origin are among them.
	Consecutive5xx ConsecutiveFailures
	// ConsecutiveGateway is about those of them that [outcome.Outcome.Gateway]
	// holds for.
	ConsecutiveGateway ConsecutiveFailures
	// ConsecutiveLocal is about failures of local origin, with SplitLocalOrigin.
	ConsecutiveLocal ConsecutiveFailures

	SuccessRate       SuccessRate
	FailurePercentage FailurePercentage
}

// ConsecutiveFailures ejects a host at once when it has failed so many times in a
// row.
type ConsecutiveFailures struct {
	// Threshold is how many; 0 means never.
	Threshold uint32
	// Enforcing is in how many percent of the cases the host is ejected.
	Enforcing uint32
}

func (c ConsecutiveFailures) enforced() bool { return c.Threshold > 0 && c.Enforcing > 0 }

// SuccessRate ejects, at a sweep, the hosts that succeed less than the others: below
// the mean by more than StdevFactor/1000 standard deviations.
type SuccessRate struct {
	// MinimumHosts is how many hosts must have had RequestVolume calls since the
	// last sweep. Only those are compared.
	MinimumHosts  uint32
	RequestVolume uint32
	StdevFactor   uint32
	// Enforcing is in how many percent of the cases the host is ejected, for the
	// rate of external successes; EnforcingLocal for that of local ones, with
	// SplitLocalOrigin.
	Enforcing      uint32
	EnforcingLocal uint32
}

// FailurePercentage ejects, at a sweep, the hosts of whose calls Threshold percent
// or more failed. (Envoy's API says "or more"; gRFC A50 says "more".)
type FailurePercentage struct {
	Threshold uint32
	// MinimumHosts is how many hosts must have had RequestVolume calls since the
	// last sweep. Only those are looked at.
	MinimumHosts  uint32
	RequestVolume uint32
	// Enforcing is in how many percent of the cases the host is ejected, for
	// external failures; EnforcingLocal for local ones, with SplitLocalOrigin.
	Enforcing      uint32
	EnforcingLocal uint32
}

// DefaultOutlierConfig returns Envoy's defaults: five failures in a row and the
// success rate eject, gateway failures and the failure percentage do not. The
// default of MaxEjectionTime is that of Envoy for its BaseEjectionTime.
func DefaultOutlierConfig() OutlierConfig {
	return OutlierConfig{
		Interval:           10 * time.Second,
		BaseEjectionTime:   30 * time.Second,
		MaxEjectionTime:    300 * time.Second,
		MaxEjectionPercent: 10,
		UnejectOnCheck:     true,
		Consecutive5xx:     ConsecutiveFailures{Threshold: 5, Enforcing: 100},
		ConsecutiveGateway: ConsecutiveFailures{Threshold: 5, Enforcing: 0},
		ConsecutiveLocal:   ConsecutiveFailures{Threshold: 5, Enforcing: 100},
		SuccessRate: SuccessRate{
			MinimumHosts: 5, RequestVolume: 100, StdevFactor: 1900, Enforcing: 100, EnforcingLocal: 100,
		},
		FailurePercentage: FailurePercentage{Threshold: 85, MinimumHosts: 5, RequestVolume: 50},
	}
}

// Ejects reports whether the configuration can eject anybody: whether there is
// something to count and to sweep for. A nil configuration cannot.
func (c *OutlierConfig) Ejects() bool {
	switch {
	case c == nil, c.MaxEjectionPercent == 0 && !c.AlwaysEjectOneHost:
		return false
	case c.Consecutive5xx.enforced(), c.ConsecutiveGateway.enforced(),
		c.SuccessRate.Enforcing > 0, c.FailurePercentage.Enforcing > 0:
		return true
	case c.SplitLocalOrigin:
		return c.ConsecutiveLocal.enforced() || c.SuccessRate.EnforcingLocal > 0 || c.FailurePercentage.EnforcingLocal > 0
	}
	return false
}

// ejectionTime is how long the n-th ejection lasts, without jitter.
func (c *OutlierConfig) ejectionTime(n uint32) time.Duration {
	limit := max(c.MaxEjectionTime, c.BaseEjectionTime)
	if c.BaseEjectionTime > 0 && time.Duration(n) > limit/c.BaseEjectionTime {
		return limit // without the product, which may overflow
	}
	return c.BaseEjectionTime * time.Duration(n)
}

// OutlierReason is the detector that ejected a host.
type OutlierReason uint8

// The detectors.
const (
	Consecutive5xxFailures OutlierReason = iota
	ConsecutiveGatewayFailures
	ConsecutiveLocalFailures
	LowSuccessRate
	LowSuccessRateLocal
	HighFailurePercentage
	HighFailurePercentageLocal
)

var reasonNames = [...]string{
	"consecutive-5xx", "consecutive-gateway-failure", "consecutive-local-origin-failure",
	"success-rate", "success-rate-local-origin", "failure-percentage", "failure-percentage-local-origin",
}

// String returns the name used in logs and metric labels, which is Envoy's in
// lower case and with hyphens.
func (r OutlierReason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "unknown"
}

// Ejection is an ejection, or the return of a host from one.
type Ejection struct {
	Host *Host
	// Returned is true if the host is in service again.
	Returned bool
	// Reason is why it was ejected.
	Reason OutlierReason
}
