package xds

import (
	"errors"
	"fmt"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
)

// maxTroubles bounds how many errors one update lists.
const maxTroubles = 8

// troubles joins what is wrong with the resources of one target.
type troubles struct {
	errs []error
	seen map[string]bool
	more int
}

// add notes an error, if it is one. A lost connection is noted once, not once
// per resource.
func (t *troubles) add(err error) {
	if err == nil {
		return
	}
	key := err.Error()
	if of, ok := errors.AsType[*ads.Error](err); ok && isOffline(err) {
		key = of.Err.Error()
	}
	if t.seen[key] {
		return
	}
	if t.seen == nil {
		t.seen = make(map[string]bool)
	}
	t.seen[key] = true
	if len(t.errs) == maxTroubles {
		t.more++
		return
	}
	t.errs = append(t.errs, err)
}

func (t *troubles) err() error {
	switch {
	case t.more > 0:
		return errors.Join(errors.Join(t.errs...), fmt.Errorf("and %d more errors", t.more))
	case len(t.errs) == 1:
		return t.errs[0]
	}
	return errors.Join(t.errs...)
}

// referenced returns the error of a resource that another one refers to. That
// it does not exist does not mean that the destination is unknown: an unknown
// destination may be dialled without the mesh, this one must not. So the error
// does not wrap [discovery.ErrNotFound].
func referenced(err error) error {
	if errors.Is(err, discovery.ErrNotFound) {
		return errors.New(err.Error())
	}
	return err
}

// unusable marks the error of a resource without a value, unless what was asked for
// may still come.
func unusable(err error) error {
	if err == nil || isOffline(err) || errors.Is(err, ads.ErrTransient) || errors.Is(err, discovery.ErrNotFound) {
		return err
	}
	return unusableError{err}
}

// unusableError is an error that is [discovery.ErrUnusable], too.
type unusableError struct{ error }

// Unwrap returns both.
func (u unusableError) Unwrap() []error { return []error{u.error, discovery.ErrUnusable} }

// isOffline reports whether an error is about the connection and not about the
// resource.
func isOffline(err error) bool { return errors.Is(err, ads.ErrOffline) }

// sameError reports whether two errors read the same.
func sameError(a, b error) bool {
	if a == nil || b == nil {
		return (a == nil) == (b == nil)
	}
	return a.Error() == b.Error()
}
