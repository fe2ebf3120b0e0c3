// Package keeper holds the identity that a source was given last, until it expires,
// and tells of what happens to it. All sources that renew theirs are built on it.
package keeper

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

// Keeper is a [meshtls.Source] that others fill. Make it with [New], end it with
// [Keeper.Close]. Safe for concurrent use.
type Keeper struct {
	config Config
	state  watch.Value[state]

	mu     sync.Mutex
	expiry *time.Timer // guarded by mu; nil without a certificate
	failed error       // guarded by mu; of the last attempt at a successor, nil if that went well
	closed bool        // guarded by mu
	// telling counts the expiries that are being reported; Add is guarded by mu.
	telling sync.WaitGroup
}

// Config says whose identity is kept, in the words of its source.
type Config struct {
	// Plugin is the kind of the source, which all errors begin with.
	Plugin string
	// Empty is what there is to say before anything has happened.
	Empty string
	// Unreplaced is why a certificate has expired if no attempt at a successor failed.
	Unreplaced string
	// OnChange is told of what happens, under Name, by one goroutine or another. Nil
	// tells nobody.
	OnChange func(observe.CertificateEvent)
	Name     string
}

// state is what Identity returns; err is set if identity is nil.
type state struct {
	identity *meshtls.Identity
	err      error
}

var _ meshtls.Source = (*Keeper)(nil)

// New returns a keeper without an identity.
func New(config Config) *Keeper {
	k := &Keeper{config: config}
	k.state.Store(state{err: fmt.Errorf("%s: %s", config.Plugin, config.Empty)})
	return k
}

// Wait returns when there is a first identity. The error, once ctx has ended, says
// what the last attempt failed of.
func (k *Keeper) Wait(ctx context.Context) error {
	for {
		now, changed := k.state.Watch()
		if now.identity != nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("first certificate: %w: %w", context.Cause(ctx), k.state.Load().err)
		}
	}
}

// Identity returns what there is, and an error once it has expired without a
// successor.
func (k *Keeper) Identity() (*meshtls.Identity, error) {
	now := k.state.Load()
	if now.identity == nil || !IsExpired(now.identity) {
		return now.identity, now.err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return nil, k.expiredLocked(now.identity)
}

// Changed returns a channel that is closed at the next change of what Identity
// returns.
func (k *Keeper) Changed() <-chan struct{} {
	_, changed := k.state.Watch()
	return changed
}

// IsExpired tells whether nobody takes the certificate any more. It is false for an
// identity that holds roots only.
func IsExpired(identity *meshtls.Identity) bool {
	return !identity.NotAfter.IsZero() && time.Now().After(identity.NotAfter)
}

// Set takes an identity over. It reports false if nothing changed: the same was
// there, or the keeper is closed. The caller then reports it, without a lock.
func (k *Keeper) Set(identity *meshtls.Identity) (changed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return false
	}
	k.failed = nil
	if same(k.state.Load().identity, identity) {
		return false
	}
	if k.expiry != nil {
		k.expiry.Stop()
		k.expiry = nil
	}
	k.state.Store(state{identity: identity})
	if !identity.NotAfter.IsZero() {
		k.expiry = time.AfterFunc(time.Until(identity.NotAfter)+time.Nanosecond, func() { k.expire(identity) })
	}
	return true
}

// same tells whether nothing changed for those who use the identity.
func same(a, b *meshtls.Identity) bool {
	return a != nil && a.RootsKey == b.RootsKey &&
		slices.EqualFunc(a.Certificate.Certificate, b.Certificate.Certificate, bytes.Equal)
}

// Fail notes and reports that there is no successor now, and why. What there is
// stays: nothing was withdrawn.
func (k *Keeper) Fail(err error) {
	if identity, err := k.Note(err); err != nil {
		k.Report(identity, err)
	}
}

// Note is Fail for who reports it later, or did so before: it returns what there is to
// be told. A closed keeper has nothing to tell.
func (k *Keeper) Note(err error) (*meshtls.Identity, error) {
	err = fmt.Errorf("%s: %w", k.config.Plugin, err)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, nil
	}
	k.failed = err
	now := k.state.Load()
	if now.identity == nil {
		k.state.Store(state{err: err})
	}
	return now.identity, err
}

// expire takes a certificate away that has not been followed by another.
func (k *Keeper) expire(identity *meshtls.Identity) {
	k.mu.Lock()
	if k.closed || k.state.Load().identity != identity {
		k.mu.Unlock()
		return
	}
	err := k.expiredLocked(identity)
	k.state.Store(state{err: err})
	k.telling.Add(1)
	defer k.telling.Done() // also if OnChange panics
	k.mu.Unlock()
	k.Report(identity, err)
}

func (k *Keeper) expiredLocked(identity *meshtls.Identity) error {
	expired := fmt.Sprintf("%s: certificate of %q expired at %s", k.config.Plugin, identity.ID, identity.NotAfter.Format(time.RFC3339))
	if k.failed != nil {
		return fmt.Errorf("%s: %w", expired, k.failed)
	}
	return errors.New(expired + ": " + k.config.Unreplaced)
}

// Report tells of an identity, of a failure, or of both.
func (k *Keeper) Report(identity *meshtls.Identity, err error) {
	if k.config.OnChange == nil {
		return
	}
	event := observe.CertificateEvent{Source: k.config.Name, Err: err}
	if identity != nil {
		event.ID, event.NotAfter = identity.ID.String(), identity.NotAfter
	}
	k.config.OnChange(event)
}

// Close ends the changes. It waits for OnChange if that is being told of an expiry, and
// must not be called by it. What there is stays until it expires, so that handshakes
// that are under way do not fail.
func (k *Keeper) Close() {
	k.mu.Lock()
	k.closed = true
	if k.expiry != nil {
		k.expiry.Stop()
	}
	k.mu.Unlock()
	k.telling.Wait()
}
