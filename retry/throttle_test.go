package retry

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/outcome"
)

func answer(status int, headers map[string]string) outcome.Outcome {
	return outcome.Outcome{Kind: outcome.Response, Status: status, Sent: true, Header: func(name string) string { return headers[name] }}
}

func TestBR7_TheServerSaysWhenToComeBack(t *testing.T) {
	t.Parallel()
	// A bubble's clock begins at midnight UTC of 2000-01-01.
	const now = "946684800"
	limited := &RateLimited{Max: 300 * time.Second, Headers: []ResetHeader{
		{Name: "retry-after"}, {Name: "x-ratelimit-reset", UnixTime: true},
	}}
	const ordinary = -1
	tests := []struct {
		name    string
		headers map[string]string
		want    time.Duration
	}{
		{"seconds", map[string]string{"retry-after": "2"}, 2 * time.Second},
		{"at once", map[string]string{"retry-after": "0"}, 0},
		{"a point in time", map[string]string{"x-ratelimit-reset": "946684810"}, 10 * time.Second},
		{"now", map[string]string{"x-ratelimit-reset": now}, 0},
		{"the first header counts", map[string]string{"retry-after": "2", "x-ratelimit-reset": "946684810"}, 2 * time.Second},
		{"at most the limit", map[string]string{"retry-after": "300"}, 300 * time.Second},
		{"more than the limit", map[string]string{"retry-after": "301"}, ordinary},
		{"more than the limit, and another header", map[string]string{"retry-after": "301", "x-ratelimit-reset": "946684810"}, 10 * time.Second},
		{"a date", map[string]string{"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT", "x-ratelimit-reset": "946684803"}, 3 * time.Second},
		{"the past", map[string]string{"x-ratelimit-reset": "946684799"}, ordinary},
		{"negative", map[string]string{"retry-after": "-1"}, ordinary},
		{"a number that is too large", map[string]string{"retry-after": "99999999999999999999"}, ordinary},
		{"no header", nil, ordinary},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				for _, random := range []float64{0, 0.5, 0.999} {
					p := &Policy{MaxRetries: 3, On: On5xx, RateLimited: limited, Backoff: Backoff{Base: 10 * time.Millisecond}}
					s := p.Start()
					s.Rand = func() float64 { return random }
					o := answer(503, tt.headers)
					got, ok := s.Next(&o)
					want := time.Duration(float64(tt.want) * (1 + random/2))
					if tt.want == ordinary {
						want = time.Duration(random * float64(10*time.Millisecond))
					}
					if !ok || got != want {
						t.Errorf("random %v: waits %v, want %v", random, got, want)
					}
				}
			})
		})
	}
	t.Run("it causes no retry by itself", func(t *testing.T) {
		t.Parallel()
		p := &Policy{MaxRetries: 3, On: OnReset, RateLimited: limited}
		s := p.Start()
		o := answer(503, map[string]string{"retry-after": "1"})
		if _, ok := s.Next(&o); ok {
			t.Error("retried")
		}
	})
	t.Run("the ordinary waits do not grow meanwhile", func(t *testing.T) {
		t.Parallel()
		p := &Policy{MaxRetries: 3, On: On5xx, RateLimited: limited, Backoff: Backoff{Base: 10 * time.Millisecond}}
		s := p.Start()
		s.Rand = func() float64 { return 0.5 }
		o := answer(503, map[string]string{"retry-after": "1"})
		s.Next(&o)
		plain := answer(503, nil)
		if got, _ := s.Next(&plain); got != 5*time.Millisecond {
			t.Errorf("the next wait is %v", got)
		}
	})
}

func TestBR9_RetriesNeedMoreThanHalfOfTheTokens(t *testing.T) {
	t.Parallel()
	throttle := NewThrottle(ThrottleSettings{MaxTokens: 10, TokenRatio: 0.5})
	for i, want := range []bool{true, true, true, true, false, false} { // 9, 8, 7, 6, 5, 4 tokens
		throttle.Failed()
		if got := throttle.Allows(); got != want {
			t.Errorf("after %d failures: allowed is %t", i+1, got)
		}
	}
	for i, want := range []bool{false, false, true} { // 4.5, 5, 5.5
		throttle.Succeeded()
		if got := throttle.Allows(); got != want {
			t.Errorf("after %d successes: allowed is %t", i+1, got)
		}
	}
	for range 100 {
		throttle.Succeeded()
	}
	for range 4 {
		throttle.Failed()
	}
	if !throttle.Allows() {
		t.Error("the bucket holds less than its size")
	}
	for range 100 {
		throttle.Failed()
	}
	for range 11 {
		throttle.Succeeded()
	}
	if !throttle.Allows() {
		t.Error("the bucket holds less than nothing")
	}
	var none *Throttle
	none.Failed()
	none.Succeeded()
	if !none.Allows() {
		t.Error("no throttle throttles")
	}
}

func TestThrottlesCountEveryCallOnce(t *testing.T) {
	t.Parallel()
	throttle := NewThrottle(ThrottleSettings{MaxTokens: 1000, TokenRatio: 1})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				throttle.Failed()
			}
		})
	}
	wg.Wait()
	if got := throttle.tokens.Load(); got != 600*thousandths {
		t.Errorf("%d thousandths are left", got)
	}
}
