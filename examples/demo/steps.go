package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// calm is how long a step looks on when nothing is to be waited for.
const calm = 2 * time.Second

// run tells the whole story.
func (s *story) run(ctx context.Context) error {
	for _, step := range []struct {
		title string
		run   func(context.Context) error
	}{
		{"1 canary 90/10", s.begin},
		{"2 canary 50/50", s.half},
		{"3 canary 0/100", s.whole},
		{"4 ada to v1 by header", s.header},
		{"5 kill v1-b, start it again", s.kill},
		{"6 break v1-b", s.breakOne},
		{"7 break all of v2", s.breakSubset},
		{"8 rotate certificates", s.rotate},
		{"9 kill the control plane", s.killPlane},
	} {
		if err := s.step(ctx, step.title, step.run); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) begin(ctx context.Context) error {
	s.tell("traffic.yaml gives v1 %d%% and v2 %d%%", s.rules.V1, s.rules.V2)
	if err := s.follow(ctx); err != nil {
		return err
	}
	return s.hold(ctx, calm)
}

func (s *story) half(ctx context.Context) error {
	return s.canary(ctx, 50, 50)
}

func (s *story) whole(ctx context.Context) error {
	return s.canary(ctx, 0, 100)
}

func (s *story) canary(ctx context.Context, v1, v2 int) error {
	s.tell("traffic.yaml now gives v1 %d%% and v2 %d%%", v1, v2)
	next := s.rules
	next.V1, next.V2 = v1, v2
	if err := s.apply(ctx, next); err != nil {
		return err
	}
	return s.hold(ctx, calm)
}

func (s *story) header(ctx context.Context) error {
	s.tell("traffic.yaml now gives v1 to requests with x-user: ada, whatever the weights")
	next := s.rules
	next.AdaTo = "v1"
	if err := s.apply(ctx, next); err != nil {
		return err
	}
	return s.hold(ctx, calm)
}

func (s *story) kill(ctx context.Context) error {
	if err := s.canary(ctx, 50, 50); err != nil {
		return err
	}
	victim := s.world.payments[1]
	victim.process.kill()
	s.tell("killed payment %s (process %d) in the middle of it; its calls go to %s", victim.name, victim.process.pid(), s.world.payments[0].name)
	if err := s.hold(ctx, calm); err != nil {
		return err
	}
	begin := time.Now()
	if err := s.world.startPayment(ctx, victim); err != nil {
		return err
	}
	if err := s.awaitAnswer(ctx, victim); err != nil {
		return err
	}
	s.tell("started it again as process %d, and it answered calls %s later", victim.process.pid(), milliseconds(time.Since(begin)))
	return s.hold(ctx, calm/2)
}

func (s *story) breakOne(ctx context.Context) error {
	victim := s.world.payments[1]
	before, err := s.world.stats(ctx)
	if err != nil {
		return err
	}
	if err := victim.setBroken(ctx, true); err != nil {
		return err
	}
	s.tell("payment %s now answers everything with 503, or UNAVAILABLE; retries go to %s", victim.name, s.world.payments[0].name)
	_, err = s.awaitStats(ctx, "retries", func(now customerStats) bool { return now.Retries >= before.Retries+enough/4 })
	if err != nil {
		return err
	}
	if err := s.hold(ctx, calm/2); err != nil {
		return err
	}
	if err := victim.setBroken(ctx, false); err != nil {
		return err
	}
	s.tell("mended it")
	return s.awaitAnswer(ctx, victim)
}

// breakSubset is the one step in which calls may fail: those that v2, which is
// broken, answered, and those that its breakers refused.
func (s *story) breakSubset(ctx context.Context) error {
	victim := s.world.payments[2]
	clusters := []string{
		fmt.Sprintf("outbound|%d|v2|%s", httpPort, paymentHost),
		fmt.Sprintf("outbound|%d|v2|%s", grpcPort, paymentHost),
	}
	are := func(state string) func(customerStats) bool {
		return func(now customerStats) bool {
			for _, cluster := range clusters {
				if now.Breakers[cluster] != state {
					return false
				}
			}
			return true
		}
	}
	var over atomic.Pointer[time.Time] // since when v2 must be well again
	s.traffic.expect(func(one sample) bool {
		if end := over.Load(); end != nil && one.start.After(*end) {
			return false
		}
		why := one.reply.Error
		return why.Kind == "response" && strings.Contains(why.Message, "payment "+victim.name+" is broken") ||
			why.Kind == "overflow" && strings.Contains(why.Cluster, "|v2|")
	})
	if err := victim.setBroken(ctx, true); err != nil {
		return err
	}
	s.tell("payment %s, all that there is of v2, now answers with 503, or UNAVAILABLE", victim.name)
	took, err := s.awaitStats(ctx, "open breakers", are("open"))
	if err != nil {
		return err
	}
	s.tell("the breakers of v2 opened after %s: what is for v2 is refused at once, and counted apart", milliseconds(took))
	if err := s.hold(ctx, calm); err != nil {
		return err
	}
	if err := victim.setBroken(ctx, false); err != nil {
		return err
	}
	took, err = s.awaitStats(ctx, "closed breakers", are("closed"))
	if err != nil {
		return err
	}
	now := time.Now()
	over.Store(&now)
	s.breakers = "opened, closed"
	s.mark = s.traffic.count()
	s.tell("mended it; a few probes went well, and the breakers closed after %s", milliseconds(took))
	return s.hold(ctx, calm)
}

func (s *story) rotate(ctx context.Context) error {
	s.tell("certificates live %v here; every workload gets a new one, with a new key, when half of that is over", certificateLifetime)
	before, err := s.world.stats(ctx)
	if err != nil {
		return err
	}
	had := make(map[*payment]int)
	for _, p := range s.world.payments {
		had[p] = len(s.observer.certificates(p))
	}
	for _, p := range s.world.payments {
		_, err := s.await(ctx, "a new certificate of payment "+p.name, func() (bool, string) {
			seen := s.observer.certificates(p)
			return len(seen) > had[p], fmt.Sprint(seen)
		})
		if err != nil {
			return err
		}
	}
	_, err = s.awaitStats(ctx, "a new certificate of the customer", func(now customerStats) bool {
		return now.Certificate.Number > before.Certificate.Number
	})
	if err != nil {
		return err
	}
	now, err := s.world.stats(ctx)
	if err != nil {
		return err
	}
	s.certificates(now)
	return nil
}

// certificates prints who has had which.
func (s *story) certificates(now customerStats) {
	t := &table{out: s.out, indent: "    ", columns: []column{
		{title: "workload", width: 12, left: true},
		{title: "identity", width: 42, left: true},
		{title: "certificates", width: 12},
		{title: "serials, first to last", width: 22, left: true},
		{title: "expires in", width: 10},
	}}
	t.header()
	left := func(expires time.Time) string { return time.Until(expires).Round(100 * time.Millisecond).String() }
	for _, p := range s.world.payments {
		seen := s.observer.certificates(p)
		newest := seen[len(seen)-1]
		t.row("payment "+p.name, newest.id, strconv.Itoa(len(seen)), seen[0].serial[:8]+" to "+newest.serial[:8], left(newest.expires))
	}
	t.row("customer", now.Certificate.ID, strconv.Itoa(now.Certificate.Number), "-", left(now.Certificate.Expires))
}

func (s *story) killPlane(ctx context.Context) error {
	s.world.plane.kill()
	s.tell("killed the control plane (process %d)", s.world.plane.pid())
	if _, err := s.awaitStats(ctx, "the end of the customer's xDS stream", func(now customerStats) bool { return !now.Connected }); err != nil {
		return err
	}
	next := s.rules
	next.V1, next.V2 = 90, 10
	s.tell("traffic.yaml now gives v1 90%% and v2 10%%, but nobody reads it")
	if err := s.world.config.writeTraffic(next); err != nil {
		return err
	}
	if err := s.hold(ctx, calm); err != nil {
		return err
	}
	if err := s.world.startPlane(ctx); err != nil {
		return err
	}
	took, err := s.awaitStats(ctx, "the customer's xDS stream", func(now customerStats) bool { return now.Connected })
	if err != nil {
		return err
	}
	s.tell("started it again as process %d; the customer was back %s later", s.world.plane.pid(), milliseconds(took))
	s.rules = next
	if err := s.follow(ctx); err != nil {
		return err
	}
	return s.hold(ctx, calm)
}
