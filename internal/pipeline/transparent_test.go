package pipeline

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// What the peer certainly did not process is sent again without asking the policy,
// and counts neither as one of its retries nor in the limits on retries.
func TestBR12_TransparentRetriesAreNotRetries(t *testing.T) {
	t.Parallel()
	tests := []struct {
		kind   outcome.Kind
		first  int // how many attempts end so
		policy *retry.Policy
		want   int
	}{
		{outcome.RefusedStream, 1, nil, 2},
		{outcome.RefusedStream, 2, nil, 2}, // once only
		{outcome.ResetBeforeRequest, 3, nil, 4},
		{outcome.ResetBeforeRequest, 9, nil, 4}, // a connection that never works must not be asked for ever
		{outcome.RefusedStream, 1, &retry.Policy{MaxRetries: 1, On: retry.OnRefusedStream}, 2},
		{outcome.RefusedStream, 2, &retry.Policy{MaxRetries: 1, On: retry.OnRefusedStream}, 3},
		{outcome.RefusedStream, 9, &retry.Policy{MaxRetries: 1, On: retry.OnRefusedStream}, 3},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%v %d times, policy %t", tt.kind, tt.first, tt.policy != nil), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(func(target *discovery.Target) {
					top(target).Forward.Retry = tt.policy
					if tt.policy == nil {
						v1(target).Limits[0].MaxRetries = 0
					}
				}))
				var retries []int
				d := &adapter{attempt: func(_ context.Context, a *Attempt, n int) outcome.Outcome {
					retries = append(retries, a.Retries())
					if n <= tt.first {
						return failure(tt.kind)
					}
					return response(200)
				}}
				b.run(t.Context(), d)
				if d.attempts != tt.want {
					t.Errorf("%d attempts, want %d", d.attempts, tt.want)
				}
				if retries[1] != 0 {
					t.Errorf("the attempts took themselves for retries %v", retries)
				}
				b.idle("v1")
			})
		})
	}
}

// TestBR12_G9_AThrottleEndsTransparentRetriesOfRefusedRequests: with everything refused,
// what arrives is not twice what is offered.
func TestBR12_G9_AThrottleEndsTransparentRetriesOfRefusedRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const calls, tokens = 100, 6
		b := newBench(t)
		b.configure(newTarget(retrying(retry.Policy{MaxRetries: 2, On: retry.OnRefusedStream}), func(target *discovery.Target) {
			v1(target).RetryThrottle = &retry.ThrottleSettings{MaxTokens: tokens, TokenRatio: 0.1}
		}))
		d := &adapter{attempt: always(failure(outcome.RefusedStream))}
		for range calls {
			b.run(t.Context(), d)
		}
		// While tokens are left, a call makes one of each kind beside its first attempt.
		if most := calls + 2*tokens/2; d.attempts > most || d.attempts <= calls {
			t.Errorf("%d calls made %d attempts, want at most %d", calls, d.attempts, most)
		}
		b.idle("v1")
	})
}
