package retry

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// ThrottleSettings are gRFC A6's retryThrottling. Unlike a [Budget] it counts
// what failed and what succeeded, and not what is in flight.
type ThrottleSettings struct {
	// MaxTokens is the size of the bucket, and what is in it at first: in
	// (0, 1000].
	MaxTokens float64
	// TokenRatio is what a success puts in; it must be positive. Beyond three
	// decimal places it is cut off.
	TokenRatio float64
}

// Validate reports every field that is out of range, by the name that it has in
// the configuration.
func (s ThrottleSettings) Validate() error {
	const most = 1000
	var errs []error
	if !(s.MaxTokens > 0 && s.MaxTokens <= most) { // also refuses NaN
		errs = append(errs, fmt.Errorf("maxTokens %v: must be above 0 and at most %d", s.MaxTokens, most))
	}
	if !(s.TokenRatio >= 1.0/thousandths && s.TokenRatio <= most) {
		errs = append(errs, fmt.Errorf("tokenRatio %v: must be at least 0.001 and at most %d", s.TokenRatio, most))
	}
	return errors.Join(errs...)
}

// thousandths of a token are what is counted: whole numbers can be added
// atomically.
const thousandths = 1000

// Throttle keeps all calls to one destination from trying again while too many
// of them fail: a retry needs more than half of the bucket. A failure takes one
// token out, a success puts TokenRatio in. A nil Throttle never throttles. Safe
// for concurrent use; it takes no lock.
type Throttle struct {
	settings   ThrottleSettings
	limit, add int64
	tokens     atomic.Int64
}

// NewThrottle returns a throttle with a full bucket. The settings must be valid,
// see [ThrottleSettings.Validate].
func NewThrottle(s ThrottleSettings) *Throttle {
	t := &Throttle{settings: s, limit: int64(s.MaxTokens * thousandths), add: int64(s.TokenRatio * thousandths)}
	t.tokens.Store(t.limit)
	return t
}

// Settings returns what the throttle was made with.
func (t *Throttle) Settings() ThrottleSettings { return t.settings }

// Failed counts a failure that the retry policy is about, or after which the
// server forbade retries.
func (t *Throttle) Failed() { t.change(-thousandths) }

// Succeeded counts a success.
func (t *Throttle) Succeeded() {
	if t != nil {
		t.change(t.add)
	}
}

// Allows reports whether a retry may be made.
func (t *Throttle) Allows() bool { return t == nil || t.tokens.Load() > t.limit/2 }

func (t *Throttle) change(by int64) {
	if t == nil {
		return
	}
	for {
		old := t.tokens.Load()
		next := min(max(old+by, 0), t.limit)
		if next == old || t.tokens.CompareAndSwap(old, next) {
			return
		}
	}
}
