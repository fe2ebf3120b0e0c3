package filesource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/internal/watch"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// minRetryPause is the pause after a first failed reading; it doubles up to the
// refresh interval.
const minRetryPause = time.Second

// Source is the identity in the files. Safe for concurrent use.
type Source struct {
	config Config
	state  watch.Value[state]
	cancel context.CancelFunc
	loop   sync.WaitGroup
}

// state is what Identity returns; err is set if identity is nil.
type state struct {
	identity *meshtls.Identity
	err      error
}

var _ meshtls.Source = (*Source)(nil)

// New returns a source that has read good material. ctx bounds the wait for
// that, in which the files are read again and again (the agent that writes them
// may start later), and not the source's life: the source must be closed. The
// error says what is wrong with the files.
func New(ctx context.Context, config Config) (*Source, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	if config.RefreshInterval == 0 {
		config.RefreshInterval = DefaultRefreshInterval
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Source{config: config, cancel: cancel}
	s.state.Store(state{err: errors.New("file_watcher: the files were not read yet")})
	s.loop.Go(func() { s.run(running) })
	for {
		now, changed := s.state.Watch()
		if now.identity != nil {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			s.Close()
			return nil, fmt.Errorf("first certificate: %w: %w", context.Cause(ctx), s.state.Load().err)
		}
	}
}

// Identity returns the certificate with the roots, and an error once the
// certificate has expired without a successor.
func (s *Source) Identity() (*meshtls.Identity, error) {
	now := s.state.Load()
	if now.identity != nil && isExpired(now.identity) {
		return nil, expired(now.identity, nil)
	}
	return now.identity, now.err
}

// Changed returns a channel that is closed at the next change of what Identity
// returns.
func (s *Source) Changed() <-chan struct{} {
	_, changed := s.state.Watch()
	return changed
}

// String says what the source is. It keeps fmt from the key, which it would print
// with the unexported fields.
func (*Source) String() string { return "a source of certificate files" }

// Close ends the readings and returns when the last one has ended. The current
// certificate stays available until it expires, so that handshakes that are
// under way do not fail.
func (s *Source) Close() {
	s.cancel()
	s.loop.Wait()
}

// run reads the files until Close cancels ctx.
func (s *Source) run(ctx context.Context) {
	var (
		last     material
		current  *meshtls.Identity
		failures int
		reported string
	)
	for {
		next, err := s.config.update(last, time.Now())
		if ctx.Err() != nil {
			return
		}
		last = next
		pause := s.config.RefreshInterval
		if err != nil {
			err = fmt.Errorf("file_watcher: %w", err)
			pause = retryPause(failures, pause)
			failures++
		} else {
			failures = 0
		}
		identity, buildErr := s.config.identity(last)
		err = errors.Join(err, buildErr)
		switch {
		case identity == nil || isExpired(identity):
			if current == nil {
				s.state.Store(state{err: err})
			}
		case current == nil || !same(identity, current):
			current = identity
			s.state.Store(state{identity: identity})
			s.report(current, nil)
		}
		if err == nil {
			reported = ""
		} else if text := err.Error(); text != reported {
			reported = text
			s.report(current, err)
		}
		if current != nil && !current.NotAfter.IsZero() {
			// The certificate may expire before the next reading.
			if left := max(0, time.Until(current.NotAfter)); left < pause {
				if !sleep(ctx, left+time.Nanosecond) {
					return
				}
				pause -= left
				err = expired(current, err)
				s.state.Store(state{err: err})
				s.report(current, err)
				current = nil
			}
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// same tells whether nothing changed for those who use the identity.
func same(a, b *meshtls.Identity) bool {
	return a.RootsKey == b.RootsKey &&
		slices.EqualFunc(a.Certificate.Certificate, b.Certificate.Certificate, bytes.Equal)
}

// isExpired is false for an identity that holds roots only.
func isExpired(identity *meshtls.Identity) bool {
	return !identity.NotAfter.IsZero() && time.Now().After(identity.NotAfter)
}

func expired(identity *meshtls.Identity, cause error) error {
	if cause == nil {
		cause = errors.New("the files hold no newer one")
	}
	return fmt.Errorf("file_watcher: certificate of %q expired at %s: %w",
		identity.ID, identity.NotAfter.Format(time.RFC3339), cause)
}

func (s *Source) report(identity *meshtls.Identity, err error) {
	if s.config.OnChange == nil {
		return
	}
	event := observe.CertificateEvent{Source: s.config.Name, Err: err}
	if identity != nil {
		event.ID, event.NotAfter = identity.ID.String(), identity.NotAfter
	}
	s.config.OnChange(event)
}

// retryPause doubles with each failure up to the interval.
func retryPause(failures int, interval time.Duration) time.Duration {
	return min(interval, minRetryPause<<min(failures, 20))
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
