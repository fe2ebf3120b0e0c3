// Package keeper holds the identity that a source has last been given by an agent,
// until it expires, and tells of what happens to it. tls/sds and tls/spiffe are
// built on it.
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
	plugin, agent, name string
	onChange            func(observe.CertificateEvent)

	state watch.Value[state]

	mu     sync.Mutex
	expiry *time.Timer // guarded by mu; nil without a certificate
	closed bool        // guarded by mu
}

// state is what Identity returns; err is set if identity is nil.
type state struct {
	identity *meshtls.Identity
	err      error
}

var _ meshtls.Source = (*Keeper)(nil)

// New returns a keeper without an identity. plugin and agent are what its errors
// begin with: the kind of the source, and the address of what fills it. onChange is
// told of what happens, under name; nil tells nobody.
func New(plugin, agent, name string, onChange func(observe.CertificateEvent)) *Keeper {
	k := &Keeper{plugin: plugin, agent: agent, name: name, onChange: onChange}
	k.state.Store(state{err: fmt.Errorf("%s: no answer from %q yet", plugin, agent)})
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
	if now.identity != nil && time.Now().After(now.identity.NotAfter) {
		return nil, k.expired(now.identity)
	}
	return now.identity, now.err
}

// Changed returns a channel that is closed at the next change of what Identity
// returns.
func (k *Keeper) Changed() <-chan struct{} {
	_, changed := k.state.Watch()
	return changed
}

// Set takes an identity over. It reports false if nothing changed: the same was
// there, or the keeper is closed. The caller then reports it, without a lock.
func (k *Keeper) Set(identity *meshtls.Identity) (changed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || same(k.state.Load().identity, identity) {
		return false
	}
	if k.expiry != nil {
		k.expiry.Stop()
	}
	k.state.Store(state{identity: identity})
	k.expiry = time.AfterFunc(time.Until(identity.NotAfter)+time.Nanosecond, func() { k.expire(identity) })
	return true
}

// same tells whether nothing changed for those who use the identity.
func same(a, b *meshtls.Identity) bool {
	return a != nil && a.RootsKey == b.RootsKey &&
		slices.EqualFunc(a.Certificate.Certificate, b.Certificate.Certificate, bytes.Equal)
}

// Fail notes that the agent is away or said something useless. What there is stays:
// nothing was withdrawn.
func (k *Keeper) Fail(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	err = fmt.Errorf("%s: %q: %w", k.plugin, k.agent, err)
	k.mu.Lock()
	now := k.state.Load()
	if now.identity == nil && !k.closed {
		k.state.Store(state{err: err})
	}
	k.mu.Unlock()
	k.Report(now.identity, err)
}

// expire takes a certificate away that has not been followed by another.
func (k *Keeper) expire(identity *meshtls.Identity) {
	k.mu.Lock()
	if k.closed || k.state.Load().identity != identity {
		k.mu.Unlock()
		return
	}
	err := k.expired(identity)
	k.state.Store(state{err: err})
	k.mu.Unlock()
	k.Report(identity, err)
}

func (k *Keeper) expired(identity *meshtls.Identity) error {
	return fmt.Errorf("%s: certificate of %q expired at %s and was not replaced",
		k.plugin, identity.ID, identity.NotAfter.Format(time.RFC3339))
}

// Report tells of an identity, of a failure, or of both.
func (k *Keeper) Report(identity *meshtls.Identity, err error) {
	if k.onChange == nil {
		return
	}
	event := observe.CertificateEvent{Source: k.name, Err: err}
	if identity != nil {
		event.ID, event.NotAfter = identity.ID.String(), identity.NotAfter
	}
	k.onChange(event)
}

// Close ends the changes. What there is stays until it expires, so that handshakes
// that are under way do not fail.
func (k *Keeper) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	if k.expiry != nil {
		k.expiry.Stop()
	}
}
