package balancer

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestChangesWakeThoseWhoWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, hosts := checked(t, Config{}, 1, 0)
		var told atomic.Int32 // those who are told at once are told on goroutines of their own
		waits := func(change func()) int32 {
			t.Helper()
			told.Store(0)
			s.AfterChange(func() { told.Add(1) })
			stop := s.AfterChange(func() { t.Error("told in spite of stop") })
			stop()
			change()
			synctest.Wait()
			return told.Load()
		}
		for _, c := range []struct {
			name   string
			change func()
			want   int32
		}{
			{"an update", func() { s.Update(Config{}, []LocalityEndpoints{{Weight: 1, Endpoints: []Endpoint{{Address: "a0"}}}}) }, 1},
			{"a check that fails", func() { s.SetCheck(hosts[0], Failing) }, 1},
			{"a check that passes, twice", func() { s.SetCheck(hosts[0], Passing); s.SetCheck(hosts[0], Failing) }, 1},
			{"a check that changes nothing", func() { s.SetCheck(hosts[0], Failing) }, 0},
			{"something that the set does not see", s.Changed, 1 + 1}, // who was not told yet waits on
		} {
			if got := waits(c.change); got != c.want {
				t.Errorf("%s: told %d times, want %d", c.name, got, c.want)
			}
		}
	})
}
