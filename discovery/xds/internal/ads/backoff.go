package ads

import (
	"math"
	"math/rand/v2"
	"time"
)

// The back-off between connects (gRPC connection-backoff, gRFC A57), and the
// floor under it: gRFC A57 resets the back-off after each response, so a server
// that answers once and dies would otherwise be called in a tight loop.
const (
	backoffBase   = time.Second
	backoffFactor = 1.6
	backoffJitter = 0.2
	backoffMax    = 120 * time.Second
	connectFloor  = time.Second
)

// backoff paces connects.
type backoff struct {
	// failures counts the attempts since the last response.
	failures int
	// last is when the last attempt began.
	last time.Time
}

// delay returns how long to wait at now before the next attempt.
func (b *backoff) delay(now time.Time) time.Duration {
	var d time.Duration
	if b.failures > 0 {
		d = time.Duration(math.Min(
			float64(backoffBase)*math.Pow(backoffFactor, float64(b.failures-1)),
			float64(backoffMax)))
		d = time.Duration(float64(d) * (1 + backoffJitter*(2*rand.Float64()-1)))
	}
	if !b.last.IsZero() {
		d = max(d, b.last.Add(connectFloor).Sub(now))
	}
	return max(d, 0)
}
