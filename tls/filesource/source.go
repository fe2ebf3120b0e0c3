package filesource

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/tls/internal/keeper"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// minRetryPause is the pause after a first failed reading; it doubles up to the
// refresh interval.
const minRetryPause = time.Second

// Source is the identity in the files. Safe for concurrent use.
type Source struct {
	config Config
	kept   *keeper.Keeper
	cancel context.CancelFunc
	loop   sync.WaitGroup
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
	s := &Source{
		config: config, cancel: cancel,
		kept: keeper.New(keeper.Config{
			Plugin: "file_watcher", Empty: "the files were not read yet", Unreplaced: "the files hold no newer one",
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

// Identity returns the certificate with the roots, and an error once the
// certificate has expired without a successor.
func (s *Source) Identity() (*meshtls.Identity, error) { return s.kept.Identity() }

// Changed returns a channel that is closed at the next change of what Identity
// returns.
func (s *Source) Changed() <-chan struct{} { return s.kept.Changed() }

// String says what the source is. It keeps fmt from the key, which it would print
// with the unexported fields.
func (*Source) String() string { return "a source of certificate files" }

// Close ends the readings and returns when the last one has ended, and OnChange, which
// must not call it. The current certificate stays available until it expires, so that
// handshakes that are under way do not fail.
func (s *Source) Close() {
	s.kept.Close()
	s.cancel()
	s.loop.Wait()
}

// run reads the files until Close cancels ctx.
func (s *Source) run(ctx context.Context) {
	var (
		last     material
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
			pause = retryPause(failures, pause)
			failures++
		} else {
			failures = 0
		}
		identity, buildErr := s.config.identity(last)
		if identity != nil && !keeper.IsExpired(identity) && s.kept.Set(identity) {
			s.kept.Report(identity, nil)
		}
		if err = errors.Join(err, buildErr); err == nil {
			reported = ""
		} else {
			current, failure := s.kept.Note(err)
			if text := err.Error(); text != reported {
				reported = text
				s.kept.Report(current, failure)
			}
		}
		if !sleep(ctx, pause) {
			return
		}
	}
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
