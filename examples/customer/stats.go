package main

import (
	"context"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/observe"
)

// stats is what the mesh of this process tells about itself. Most programs
// leave [mesh.WithHooks] out and get OpenTelemetry. Safe for concurrent use.
type stats struct {
	mu  sync.Mutex
	now snapshot // guarded by mu
}

// snapshot is the answer of GET /stats.
type snapshot struct {
	// Calls is how many calls have ended, Attempts how often they were sent,
	// and Retries how many of these were not the first.
	Calls    int `json:"calls"`
	Attempts int `json:"attempts"`
	Retries  int `json:"retries"`
	// Refused is how many attempts a limit or a breaker refused.
	Refused int `json:"refused"`
	// Breakers has the state of every error-rate breaker that was ever not
	// closed, by its cluster: "closed", "open" or "half-open".
	Breakers    map[string]string `json:"breakers"`
	Certificate certificate       `json:"certificate"`
	// Connected is whether there is a control plane at the moment, and Updates
	// is how many changed resources it has sent.
	Connected bool `json:"connected"`
	Updates   int  `json:"updates"`
}

// certificate is who we are. The first one has the number 1.
type certificate struct {
	ID      string    `json:"id"`
	Expires time.Time `json:"expires"`
	Number  int       `json:"number"`
}

func newStats() *stats {
	return &stats{now: snapshot{Breakers: make(map[string]string)}}
}

// hooks is what the mesh calls. Most hooks are on the way of a call, so they
// only count.
func (s *stats) hooks() *observe.Hooks {
	return &observe.Hooks{
		CallEnded: func(context.Context, *observe.Call) {
			s.change(func(now *snapshot) { now.Calls++ })
		},
		AttemptEnded: func(_ context.Context, a *observe.Attempt) {
			s.change(func(now *snapshot) {
				now.Attempts++
				if a.Number > 1 {
					now.Retries++
				}
			})
		},
		Overflowed: func(observe.OverflowEvent) {
			s.change(func(now *snapshot) { now.Refused++ })
		},
		BreakerChanged: func(e observe.BreakerEvent) {
			s.change(func(now *snapshot) { now.Breakers[e.Cluster] = e.To })
		},
		CertificateChanged: func(e observe.CertificateEvent) {
			if e.Err != nil {
				return // the mesh logs it
			}
			s.change(func(now *snapshot) {
				now.Certificate = certificate{ID: e.ID, Expires: e.NotAfter, Number: now.Certificate.Number + 1}
			})
		},
		StreamChanged: func(e observe.StreamEvent) {
			s.change(func(now *snapshot) { now.Connected = e.Connected })
		},
		ResourceAccepted: func(observe.ResourceEvent) {
			s.change(func(now *snapshot) { now.Updates++ })
		},
	}
}

func (s *stats) change(f func(*snapshot)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.now)
}

// serve serves GET /stats.
func (s *stats) serve(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	now := s.now
	now.Breakers = maps.Clone(now.Breakers)
	s.mu.Unlock()
	answer(w, http.StatusOK, &now)
}
