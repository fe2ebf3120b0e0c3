package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

const (
	// enough is how many calls show how the traffic is split, and tolerance by
	// how many percent chance may move what they show.
	enough    = 200
	tolerance = 9
	// patience is how long something that must happen may take. It is for
	// machines that are busy with other things; it never takes that long.
	patience = 30 * time.Second
)

// story is the demo after everything has started. Its steps are in steps.go.
type story struct {
	world    *world
	traffic  *traffic
	observer *observer
	out      io.Writer
	rules    rules

	// Of the step that runs: mark is the number of calls before its effect,
	// and breakers is what it saw of them, "" for what is so at its end.
	mark     int
	breakers string

	// told is the number of calls that have been collected; the others are
	// what they came to.
	told     int
	results  []result
	failures []failed
	retries  int
}

// failed is a call that failed although it should not have.
type failed struct {
	step   string
	sample sample
}

// step runs one step and prints what it came to.
func (s *story) step(ctx context.Context, title string, run func(context.Context) error) error {
	fmt.Fprintf(s.out, "\n%s\n", title)
	first := s.told
	s.mark, s.breakers = first, ""
	err := run(ctx)
	all := s.collect(title)
	if err != nil {
		return fmt.Errorf("%s: %w", title, err)
	}
	now, err := s.world.stats(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", title, err)
	}
	if s.breakers == "" {
		s.breakers = breakers(now.Breakers)
	}
	r := result{title: title, all: summarize(all), after: summarize(all[s.mark-first:]), retries: now.Retries - s.retries, breakers: s.breakers}
	s.retries = now.Retries
	s.results = append(s.results, r)
	fmt.Fprintf(s.out, "  = %s\n", r.sentence())
	return nil
}

// collect takes the calls that have ended since the last time.
func (s *story) collect(title string) []sample {
	samples := s.traffic.since(s.told)
	s.told += len(samples)
	for _, one := range samples {
		if one.reply.Error != nil && !one.expected {
			s.failures = append(s.failures, failed{title, one})
		}
	}
	return samples
}

// tell prints what is done and seen.
func (s *story) tell(format string, args ...any) {
	fmt.Fprintf(s.out, "  - "+format+"\n", args...)
}

// hold lets the traffic run on.
func (s *story) hold(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// await waits until a condition holds and returns how long that took. The
// condition says what it sees, for the error.
func (s *story) await(ctx context.Context, what string, condition func() (holds bool, seen string)) (time.Duration, error) {
	begin := time.Now()
	for {
		holds, seen := condition()
		if holds {
			return time.Since(begin), nil
		}
		if time.Since(begin) > patience {
			return 0, fmt.Errorf("waited %v for %s; seen: %s", patience, what, seen)
		}
		if err := s.hold(ctx, 20*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// awaitStats waits for something that the customer's mesh says about itself.
func (s *story) awaitStats(ctx context.Context, what string, condition func(customerStats) bool) (time.Duration, error) {
	return s.await(ctx, what, func() (bool, string) {
		now, err := s.world.stats(ctx)
		if err != nil {
			return false, err.Error()
		}
		return condition(now), fmt.Sprintf("%+v", now)
	})
}

// awaitAnswer waits until a payment answers a call that begins from now on.
func (s *story) awaitAnswer(ctx context.Context, p *payment) error {
	begin, first := time.Now(), s.traffic.count()
	_, err := s.await(ctx, "an answer of payment "+p.name, func() (bool, string) {
		calls := s.traffic.since(first)
		return slices.ContainsFunc(calls, func(one sample) bool {
			return one.reply.Instance == p.name && one.start.After(begin)
		}), fmt.Sprintf("%d calls without it", len(calls))
	})
	return err
}

// apply edits the traffic rules and waits until the calls follow them.
func (s *story) apply(ctx context.Context, r rules) error {
	before, err := s.world.stats(ctx)
	if err != nil {
		return err
	}
	if err := s.world.config.writeTraffic(r); err != nil {
		return err
	}
	s.rules = r
	took, err := s.awaitStats(ctx, "the customer's new configuration", func(now customerStats) bool { return now.Updates > before.Updates })
	if err != nil {
		return err
	}
	s.tell("the customer got the change within %s", milliseconds(took))
	return s.follow(ctx)
}

// follow waits until the calls follow the rules. From then on they are the
// step's effect.
func (s *story) follow(ctx context.Context) error {
	first := s.traffic.count()
	_, err := s.await(ctx, fmt.Sprintf("calls that follow %+v", s.rules), func() (bool, string) {
		calls := s.traffic.since(first)
		split := last(calls, enough, false)
		share := shares(split)
		return len(split) == enough && s.rules.followed(share, last(calls, enough/10, true)), fmt.Sprint(share)
	})
	s.mark = s.traffic.count()
	return err
}

// followed reports whether calls were split as the rules say.
func (r rules) followed(share map[string]float64, adas []sample) bool {
	for version, want := range map[string]int{"v1": r.V1, "v2": r.V2} {
		got := share[version]
		if math.Abs(got-float64(want)) > tolerance || want == 0 && got != 0 {
			return false
		}
	}
	return r.AdaTo == "" || !slices.ContainsFunc(adas, func(one sample) bool { return one.reply.Version != r.AdaTo })
}
