package retry

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/outcome"
)

const seed = 20240607

// seeded returns a source of random numbers and logs its seed.
func seeded(t *testing.T) func() float64 {
	t.Helper()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, seed)).Float64
}

func TestBR1_AttemptsAreCounted(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		policy   *Policy
		failure  outcome.Outcome
		attempts int
	}{
		{"no policy", nil, status(503), 1},
		{"zero policy", &Policy{}, status(503), 1},
		{"no retries", &Policy{On: On5xx}, status(503), 1},
		{"one retry", &Policy{On: On5xx, MaxRetries: 1}, status(503), 2},
		{"many retries", &Policy{On: On5xx, MaxRetries: 20}, status(503), 21},
		{"another failure", &Policy{On: OnReset, MaxRetries: 20}, status(503), 1},
		{"gRPC", &Policy{On: OnGRPCUnavailable, MaxRetries: 3}, grpcStatus(14), 4},
		{"gRPC makes five attempts at most", &Policy{On: OnGRPCUnavailable, MaxRetries: 20}, grpcStatus(14), 5},
		{"the largest number", &Policy{On: OnGRPCUnavailable, MaxRetries: math.MaxUint32}, grpcStatus(14), 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := tt.policy.Start()
			if s.Attempts() != 1 {
				t.Errorf("%d attempts at the start, want 1", s.Attempts())
			}
			for range 100 {
				if _, ok := s.Next(&tt.failure); !ok {
					break
				}
			}
			if s.Attempts() != tt.attempts {
				t.Errorf("%d attempts, want %d", s.Attempts(), tt.attempts)
			}
			if _, ok := s.Next(&tt.failure); ok {
				t.Error("another attempt after the end")
			}
		})
	}
}

func TestRemainingRetries(t *testing.T) {
	t.Parallel()
	p := &Policy{On: On5xx | OnGRPCUnavailable, MaxRetries: 7}
	s := p.Start()
	failed, success := status(503), status(200)
	for want := 7; want > 0; want-- {
		if s.Remaining() != want {
			t.Errorf("%d retries remain, want %d", s.Remaining(), want)
		}
		if _, ok := s.Next(&success); ok {
			t.Error("a success is retried")
		}
		s.Next(&failed)
	}
	if s.Remaining() != 0 {
		t.Errorf("%d retries remain, want 0", s.Remaining())
	}
	s = p.Start()
	unavailable := grpcStatus(14)
	s.Next(&unavailable)
	if s.Remaining() != 3 {
		t.Errorf("%d gRPC retries remain, want 3", s.Remaining())
	}
	var zero Sequence
	if zero.Remaining() != 0 || zero.Attempts() != 1 {
		t.Errorf("the zero sequence has %d retries and %d attempts, want 0 and 1", zero.Remaining(), zero.Attempts())
	}
	if _, ok := zero.Next(&failed); ok {
		t.Error("the zero sequence retries")
	}
}

// [0, (2^N-1)*B), at most Max: uniform, so the mean is in the middle.
func TestBR5_HTTPBackoffIsFullyJittered(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	tests := []struct {
		name    string
		backoff Backoff
		bounds  []time.Duration
	}{
		{"default", Backoff{}, []time.Duration{25 * ms, 75 * ms, 175 * ms, 250 * ms, 250 * ms}},
		{"base", Backoff{Base: 10 * ms}, []time.Duration{10 * ms, 30 * ms, 70 * ms, 100 * ms}},
		{"base and cap", Backoff{Base: 10 * ms, Max: 20 * ms}, []time.Duration{10 * ms, 20 * ms, 20 * ms}},
		{"base below a millisecond", Backoff{Base: time.Microsecond}, []time.Duration{ms, 3 * ms, 7 * ms, 10 * ms}},
		{"negative", Backoff{Base: -1, Max: -1}, []time.Duration{25 * ms, 75 * ms, 175 * ms, 250 * ms}},
		{"cap below base", Backoff{Base: 10 * ms, Max: ms}, []time.Duration{ms, ms}},
		{"an hour", Backoff{Base: time.Hour, Max: 100 * time.Hour}, []time.Duration{time.Hour, 3 * time.Hour}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			const n = 10_000
			failed := status(503)
			random := seeded(t)
			p := &Policy{On: On5xx, MaxRetries: 100, Backoff: tt.backoff}
			largest := make([]time.Duration, len(tt.bounds))
			sum := make([]float64, len(tt.bounds))
			for range n {
				s := p.Start()
				s.Rand = random
				for i, bound := range tt.bounds {
					d, ok := s.Next(&failed)
					if !ok || d < 0 || d >= bound {
						t.Fatalf("wait before retry %d is %v, %v, want it in [0, %v)", i+1, d, ok, bound)
					}
					largest[i] = max(largest[i], d)
					sum[i] += float64(d)
				}
			}
			for i, bound := range tt.bounds {
				if float64(largest[i]) < 0.99*float64(bound) {
					t.Errorf("the largest wait before retry %d is %v, want nearly %v", i+1, largest[i], bound)
				}
				// The deviation of a uniform draw is its range over sqrt(12).
				tolerance := 4 * float64(bound) / math.Sqrt(12*n)
				if mean := sum[i] / n; math.Abs(mean-float64(bound)/2) > tolerance {
					t.Errorf("the mean wait before retry %d is %v, want %v", i+1, time.Duration(mean), bound/2)
				}
			}
		})
	}
}

func TestBR6_GRPCBackoffIsExponential(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	tests := []struct {
		name    string
		backoff Backoff
		middles []time.Duration
	}{
		{"default", Backoff{}, []time.Duration{25 * ms, 50 * ms, 100 * ms, 200 * ms}},
		{"base", Backoff{Base: 100 * ms}, []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms}},
		{"base and cap", Backoff{Base: 100 * ms, Max: 300 * ms}, []time.Duration{100 * ms, 200 * ms, 300 * ms, 300 * ms}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			const n = 10_000
			failed := grpcStatus(14)
			random := seeded(t)
			p := &Policy{On: OnGRPCUnavailable, MaxRetries: 4, Backoff: tt.backoff}
			least, largest := make([]float64, 4), make([]float64, 4)
			for range n {
				s := p.Start()
				s.Rand = random
				for i, middle := range tt.middles {
					d, ok := s.Next(&failed)
					factor := float64(d) / float64(middle)
					if !ok || factor < 0.8-1e-6 || factor >= 1.2 {
						t.Fatalf("wait before retry %d is %v, %v, want %v times 0.8 to 1.2", i+1, d, ok, middle)
					}
					if least[i] == 0 || factor < least[i] {
						least[i] = factor
					}
					largest[i] = max(largest[i], factor)
				}
			}
			for i := range tt.middles {
				if least[i] > 0.81 || largest[i] < 1.19 {
					t.Errorf("factors before retry %d are %.3f to %.3f, want 0.8 to 1.2", i+1, least[i], largest[i])
				}
			}
		})
	}
}

func TestBackoffDoesNotOverflow(t *testing.T) {
	t.Parallel()
	for _, b := range []Backoff{{Base: math.MaxInt64}, {Base: math.MaxInt64, Max: math.MaxInt64}, {Base: 1, Max: math.MaxInt64}, {Base: math.MaxInt64 / 10}} {
		for _, n := range []uint32{1, 2, 63, 64, 1100, math.MaxUint32} {
			for _, r := range []float64{0, 0.5, math.Nextafter(1, 0)} {
				if d := b.http(n, r); d < 0 || r > 0 && d == 0 {
					t.Errorf("%+v.http(%d, %v) = %v", b, n, r, d)
				}
				if d := b.grpc(n, r); d <= 0 {
					t.Errorf("%+v.grpc(%d, %v) = %v", b, n, r, d)
				}
			}
		}
	}
}

func TestBR8_ServerPushback(t *testing.T) {
	t.Parallel()
	const header = "grpc-retry-pushback-ms"
	t.Run("is waited exactly and restarts the series", func(t *testing.T) {
		t.Parallel()
		p := &Policy{On: OnGRPCUnavailable, MaxRetries: 4, Backoff: Backoff{Base: 100 * time.Millisecond}}
		s := p.Start()
		s.Rand = func() float64 { return 0.5 }
		failed, pushed := grpcStatus(14), grpcStatus(14, header, "7000")
		for i, step := range []struct {
			failure outcome.Outcome
			want    time.Duration
		}{
			{failed, 100 * time.Millisecond},
			{failed, 200 * time.Millisecond},
			{pushed, 7 * time.Second},
			{failed, 100 * time.Millisecond},
		} {
			if d, ok := s.Next(&step.failure); !ok || d != step.want {
				t.Errorf("wait before retry %d is %v, %v, want %v", i+1, d, ok, step.want)
			}
		}
		if _, ok := s.Next(&pushed); ok {
			t.Error("the pushback granted a sixth attempt")
		}
	})
	tests := []struct {
		value string
		want  time.Duration
		ok    bool
	}{
		{"0", 0, true},
		{"1", time.Millisecond, true},
		{"2147483647", 2147483647 * time.Millisecond, true},
		{"2147483648", 0, false},
		{"99999999999999999999", 0, false},
		{"-1", 0, false},
		{"-0", 0, false},
		{"+5", 0, false},
		{"5.0", 0, false},
		{" 5", 0, false},
		{"0x10", 0, false},
		{"soon", 0, false},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("value %q", tt.value), func(t *testing.T) {
			t.Parallel()
			p := &Policy{On: OnGRPCUnavailable, MaxRetries: 4}
			s := p.Start()
			failed := grpcStatus(14, header, tt.value)
			if d, ok := s.Next(&failed); d != tt.want || ok != tt.ok {
				t.Errorf("wait %v, %v, want %v, %v", d, ok, tt.want, tt.ok)
			}
		})
	}
	t.Run("does not make a status retryable", func(t *testing.T) {
		t.Parallel()
		p := &Policy{On: OnGRPCUnavailable, MaxRetries: 4}
		s := p.Start()
		if d, ok := s.Next(new(grpcStatus(13, header, "10"))); ok {
			t.Errorf("retried after %v", d)
		}
	})
	t.Run("means nothing in HTTP", func(t *testing.T) {
		t.Parallel()
		p := &Policy{On: On5xx, MaxRetries: 4}
		s := p.Start()
		if d, ok := s.Next(new(status(503, header, "-1"))); !ok || d >= 25*time.Millisecond {
			t.Errorf("wait %v, %v, want it below 25ms", d, ok)
		}
	})
}

func TestSequenceDrawsByItself(t *testing.T) {
	t.Parallel()
	p := &Policy{On: On5xx, MaxRetries: math.MaxUint32}
	s := p.Start()
	failed := status(503)
	seen := make(map[time.Duration]bool)
	for range 50 {
		d, _ := s.Next(&failed)
		seen[d] = true
	}
	if len(seen) < 25 {
		t.Errorf("50 waits have %d values, want them random", len(seen))
	}
}

func TestSequenceAllocatesNothing(t *testing.T) {
	p := &Policy{On: On5xx, MaxRetries: 3}
	failed := status(503)
	if n := testing.AllocsPerRun(100, func() {
		s := p.Start()
		for {
			if _, ok := s.Next(&failed); !ok {
				break
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations per call, want 0", n)
	}
}

// A policy that also knows gRPC's conditions looks for a status in each response.
func TestAResponseWithoutAGRPCStatusCostsNothing(t *testing.T) {
	p := &Policy{On: On5xx | OnGRPCUnavailable, MaxRetries: 3}
	good := status(200)
	if n := testing.AllocsPerRun(100, func() { _ = p.Retryable(&good) }); n != 0 {
		t.Errorf("%v allocations per response, want 0", n)
	}
}

func BenchmarkSequence(b *testing.B) {
	p := &Policy{On: On5xx, MaxRetries: 1}
	failed := status(503)
	b.ReportAllocs()
	for b.Loop() {
		s := p.Start()
		s.Next(&failed)
		s.Next(&failed)
	}
}
