package ca

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

var (
	errPluggedIn = errors.New("the CA is plugged in from files: replace the files and start again")
	errPrepared  = errors.New("a new root is prepared already: promote it with PromoteRoot")
	errNotReady  = errors.New("no new root is prepared: call PrepareRotation first")
	errOneRoot   = errors.New("there is one root only: nothing to finish")
	errUnused    = errors.New("the new root does not sign yet: call PromoteRoot first")
)

// PrepareRotation is the first step of a change of the root: it makes a new
// root and adds it to the trust bundle. The old one signs as before. Wait until every
// workload has renewed its certificate, and so has the new bundle, before the
// next step.
//
// Like the other steps it is kept in the CA's directory, and refused for a
// CA that is plugged in. The bundle of peers changes with their next
// certificate.
func (c *CA) PrepareRotation() error {
	return c.rotate("prepare", func(old authority) (*authority, error) {
		if old.next != nil {
			return nil, errPrepared
		}
		next, err := newRoot(c.trustDomain, time.Now())
		if err != nil {
			return nil, err
		}
		if err := c.store.saveNext(next.key); err != nil {
			return nil, err
		}
		old.next = &next
		old.roots = append(slices.Clone(old.roots), next.cert)
		return &old, c.store.saveRoots(old.roots)
	})
}

// PromoteRoot is the second step: from now on the new root signs. The old one
// stays in the trust bundle, and its key is forgotten. Wait until every
// workload has renewed its certificate before the last step.
func (c *CA) PromoteRoot() error {
	return c.rotate("promote", func(old authority) (*authority, error) {
		if old.next == nil {
			return nil, errNotReady
		}
		if err := c.store.promoteNext(); err != nil {
			return nil, err
		}
		next := *old.next
		rest := slices.DeleteFunc(slices.Clone(old.roots), next.cert.Equal)
		return &authority{signer: next, roots: append([]*x509.Certificate{next.cert}, rest...)}, nil
	})
}

// FinishRotation is the last step: every root but the one that signs leaves
// the trust bundle. Certificates that an old root signed are refused from now
// on.
func (c *CA) FinishRotation() error {
	return c.rotate("finish", func(old authority) (*authority, error) {
		switch {
		case old.next != nil:
			return nil, errUnused
		case len(old.roots) == 1:
			return nil, errOneRoot
		}
		old.roots = []*x509.Certificate{old.signer.cert}
		return &old, c.store.saveRoots(old.roots)
	})
}

// rotate runs one step. A step that fails changes nothing.
func (c *CA) rotate(step string, change func(authority) (*authority, error)) error {
	c.rotation.Lock()
	defer c.rotation.Unlock()
	old := c.authority.Load()
	if old.pluggedIn {
		return fmt.Errorf("%s rotation: %w", step, errPluggedIn)
	}
	changed, err := change(*old)
	if err != nil {
		return fmt.Errorf("%s rotation: %w", step, err)
	}
	c.authority.Store(changed)
	return nil
}
