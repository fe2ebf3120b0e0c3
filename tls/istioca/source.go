package istioca

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/tls/internal/keeper"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

const (
	minRetryPause = 200 * time.Millisecond
	maxRetryPause = 30 * time.Second
	// minRenewalPause protects the CA from a certificate that expires at once.
	minRenewalPause = 50 * time.Millisecond
)

// Source is the workload's identity, kept fresh. Safe for concurrent use.
type Source struct {
	config Config
	kept   *keeper.Keeper
	cancel context.CancelFunc
	loop   sync.WaitGroup
}

var _ meshtls.Source = (*Source)(nil)

// New returns a source that has its first certificate. ctx bounds the wait for
// that, in which failed requests are repeated, and not the source's life: the
// source must be closed. The error says what the last request failed of.
func New(ctx context.Context, config Config) (*Source, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	if config.Lifetime <= 0 {
		config.Lifetime = DefaultLifetime
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Source{
		config: config, cancel: cancel,
		kept: keeper.New(keeper.Config{
			Plugin: "istio_ca", Empty: fmt.Sprintf("no answer from %q yet", config.ServerURI), Unreplaced: "renewal is under way",
			Name: config.Name, OnChange: config.OnChange,
		}),
	}
	s.loop.Go(func() { s.run(running) })
	if err := s.kept.Wait(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Identity returns the current certificate with the roots, and an error once it
// has expired without a successor.
func (s *Source) Identity() (*meshtls.Identity, error) { return s.kept.Identity() }

// Changed returns a channel that is closed at the next change of what Identity
// returns.
func (s *Source) Changed() <-chan struct{} { return s.kept.Changed() }

// String says what the source is. It keeps fmt from the key, which it would print
// with the unexported fields.
func (*Source) String() string { return "a source of Istio's CA" }

// Close ends the renewal, with the request that is under way, and returns when its
// goroutine has ended. It waits for OnChange, which must not call it, and for no answer.
// The current certificate stays available until it expires, so that handshakes that are
// under way do not fail.
func (s *Source) Close() {
	s.kept.Close()
	s.cancel()
	s.loop.Wait()
}

// run asks for certificates until Close cancels ctx.
func (s *Source) run(ctx context.Context) {
	failures := 0
	for {
		current, _ := s.kept.Identity()
		identity, err := s.obtain(ctx, current)
		if ctx.Err() != nil {
			return
		}
		var pause time.Duration
		if err != nil {
			failures++
			pause = retryPause(failures)
			s.kept.Fail(fmt.Errorf("certificate from %q: %w", s.config.ServerURI, err))
		} else {
			failures = 0
			pause = max(renewal(time.Now(), identity), minRenewalPause)
			s.kept.Set(identity)
			s.kept.Report(identity, nil)
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// renewal returns the time to wait before a certificate is renewed: a random
// point between one half and two thirds of its life, so that many workloads do
// not come at the same time. The life begins now: CAs set NotBefore to an
// earlier time, because clocks differ. Where two thirds as measured from
// NotBefore come earlier within that range, they are the limit.
func renewal(now time.Time, identity *meshtls.Identity) time.Duration {
	left := identity.NotAfter.Sub(now)
	earliest, latest := left/2, left/3*2
	whole := identity.NotAfter.Sub(identity.Certificate.Leaf.NotBefore)
	if limit := left - whole/3; limit > earliest {
		latest = min(latest, limit)
	}
	return between(earliest, latest)
}

// retryPause grows from minRetryPause to maxRetryPause, and takes a random part
// of up to one half away.
func retryPause(failures int) time.Duration {
	pause := maxRetryPause
	if doublings := failures - 1; doublings < 8 {
		pause = min(pause, minRetryPause<<doublings)
	}
	return between(pause/2, pause)
}

// between returns a random duration of at least low and less than high, or low
// if there is none.
func between(low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + rand.N(high-low)
}

// sleep reports whether d has passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
