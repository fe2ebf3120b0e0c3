package retry

import "time"

// Hedge says when a call makes another attempt beside one that is under way. The
// first good answer is the call's; the other attempts are given up. Hedges are
// retries: MaxRetries of the [Policy], its pauses aside, and the limits on
// retries bound them. The zero value does not hedge.
//
// Only what may be done twice is hedged: the pipeline asks the protocol.
type Hedge struct {
	// OnPerTryTimeout starts another attempt when an attempt has taken the
	// per-try timeout, and lets that go on (hedge_on_per_try_timeout of Envoy).
	OnPerTryTimeout bool
	// Delay starts another attempt each time that it has passed without a good
	// answer (hedgingDelay of gRFC A6); 0 does not.
	Delay time.Duration
	// MaxAttempts bounds the attempts of a call that is hedged by Delay, the
	// first included; 0 leaves that to the policy's MaxRetries.
	MaxAttempts uint32
}

// After returns how long an attempt goes on alone; ok is false without a hedge.
func (h *Hedge) After(p *Policy) (wait time.Duration, ok bool) {
	switch {
	case h == nil:
	case h.Delay > 0:
		return h.Delay, true
	case h.OnPerTryTimeout && p != nil && p.PerTryTimeout > 0:
		return p.PerTryTimeout, true
	}
	return 0, false
}
