package retry

import (
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/inboardmesh/inboard/outcome"
)

const (
	// defaultBase and minBase are the default and the least base_interval, and
	// maxFactor makes the default max_interval of it ("Envoy RetryBackOff").
	defaultBase = 25 * time.Millisecond
	minBase     = time.Millisecond
	maxFactor   = 10
	// grpcMaxRetries is gRFC A6's cap of five attempts.
	grpcMaxRetries = 4
	// pushbackHeader is gRFC A6's word of the server about when, if ever, to
	// try again.
	pushbackHeader = "grpc-retry-pushback-ms"
)

// Sequence is the attempts of one call under a [Policy]. It counts and draws
// waits; it never sleeps. The zero value makes one attempt. A Sequence belongs
// to one call and is not safe for concurrent use.
type Sequence struct {
	// Rand draws from [0, 1); nil means [rand.Float64].
	Rand func() float64

	policy  *Policy
	retries uint32
	// step is the number of waits drawn since the start of the series, which a
	// server's pushback restarts.
	step uint32
	grpc bool
}

// Start begins the attempts of one call. The first attempt is under way then;
// [Sequence.Next] decides on each further one. A nil Policy makes one attempt.
func (p *Policy) Start() Sequence { return Sequence{policy: p} }

// Attempts returns how many attempts were granted, the first included.
func (s *Sequence) Attempts() int { return int(s.retries) + 1 }

// Remaining returns how many more retries the policy allows at most. For gRPC
// that is capped at five attempts in all from the first [Sequence.Next] on.
func (s *Sequence) Remaining() int { return int(s.limit() - min(s.limit(), s.retries)) }

// Next takes the outcome of the latest attempt and says whether another one may
// be made, and after which wait. If ok is false the call is over and o is its
// result. It counts the attempt that it grants.
//
// The wait before retry N (Envoy router docs) is uniformly random in
// [0, (2^N-1)*Base), the bound being at most Max. For gRPC (gRFC A6 and A44) it
// is min(Base*2^(N-1), Max), times a random factor in [0.8, 1.2). A gRPC server
// may say grpc-retry-pushback-ms: that is waited exactly and the series starts
// again; a value that is negative or not a number ends the call. Where the policy
// has RateLimited, what a response says of when to come back takes the place of
// the drawn wait, which then does not grow.
func (s *Sequence) Next(o *outcome.Outcome) (delay time.Duration, ok bool) {
	s.grpc = o.GRPC
	if s.retries >= s.limit() || !s.policy.Retryable(o) {
		return 0, false
	}
	if wait, forbidden, ok := Pushback(o); ok {
		if forbidden {
			return 0, false
		}
		s.retries++
		s.step = 0
		return wait, true
	}
	s.retries++
	if limited := s.policy.RateLimited; limited != nil {
		if wait, ok := limited.wait(o); ok {
			return jittered(wait, s.random()), true
		}
	}
	s.step++
	if s.grpc {
		return s.policy.Backoff.grpc(s.step, s.random()), true
	}
	return s.policy.Backoff.http(s.step, s.random()), true
}

// Hedge takes an attempt that is made beside others, if one is left. most bounds
// the attempts in all; 0 leaves that to the policy.
func (s *Sequence) Hedge(grpc bool, most uint32) bool {
	s.grpc = grpc
	if s.retries >= s.limit() || most > 0 && s.retries+1 >= most {
		return false
	}
	s.retries++
	return true
}

// Pushback is what a gRPC server says of when to try again: after a wait, or
// never. ok is false if it says nothing.
func Pushback(o *outcome.Outcome) (wait time.Duration, forbidden, ok bool) {
	if !o.GRPC {
		return 0, false, false
	}
	pushback := o.HeaderValue(pushbackHeader)
	if pushback == "" {
		return 0, false, false
	}
	ms, err := strconv.ParseUint(pushback, 10, 31)
	if err != nil {
		return 0, true, true
	}
	return time.Duration(ms) * time.Millisecond, false, true
}

func (s *Sequence) limit() uint32 {
	switch {
	case s.policy == nil:
		return 0
	case s.grpc:
		return min(s.policy.MaxRetries, grpcMaxRetries)
	}
	return s.policy.MaxRetries
}

func (s *Sequence) random() float64 {
	if s.Rand != nil {
		return s.Rand()
	}
	return rand.Float64()
}

// wait returns how long the server asks to wait. ok is false if it does not, or
// for longer than Max.
func (l *RateLimited) wait(o *outcome.Outcome) (wait time.Duration, ok bool) {
	if o.Kind != outcome.Response {
		return 0, false
	}
	for _, h := range l.Headers {
		seconds, err := strconv.ParseInt(o.HeaderValue(h.Name), 10, 64)
		if err != nil {
			continue
		}
		if h.UnixTime {
			// Envoy too counts in whole seconds here, and takes the past for none.
			seconds -= time.Now().Unix()
		}
		if seconds >= 0 && seconds <= int64(l.Max/time.Second) {
			return time.Duration(seconds) * time.Second, true
		}
	}
	return 0, false
}

// jittered returns a wait that is up to half as long again, for a random r in
// [0, 1): what was told to come back at one time does not.
func jittered(wait time.Duration, r float64) time.Duration {
	return time.Duration(math.Min(float64(wait)*(1+r/2), math.MaxInt64/2))
}

// bounds returns the interval to start with and the cap, with the defaults.
func (b Backoff) bounds() (base, limit time.Duration) {
	base = b.Base
	switch {
	case base <= 0:
		base = defaultBase
	case base < minBase:
		base = minBase
	}
	limit = b.Max
	if limit <= 0 {
		limit = base * maxFactor
		if limit/maxFactor != base {
			limit = math.MaxInt64
		}
	}
	return base, limit
}

// http returns the wait before the n-th retry for a random r in [0, 1).
func (b Backoff) http(n uint32, r float64) time.Duration {
	base, limit := b.bounds()
	bound := math.Min((math.Exp2(float64(n))-1)*float64(base), float64(limit))
	return time.Duration(r * bound)
}

// grpc returns the wait before the n-th retry for a random r in [0, 1).
func (b Backoff) grpc(n uint32, r float64) time.Duration {
	base, limit := b.bounds()
	wait := math.Min(math.Exp2(float64(n-1))*float64(base), float64(limit))
	// Half of the largest duration bounds the product below what overflows.
	return time.Duration(math.Min(wait, math.MaxInt64/2) * (0.8 + 0.4*r))
}
