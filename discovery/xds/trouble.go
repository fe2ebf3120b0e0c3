package xds

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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
	if of, ok := errors.AsType[*ads.Error](err); ok && transient(err) {
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

// transient reports whether an error is about the connection and not about the
// resource: what was asked for may still come. gRPC reports a stream that broke
// with a status, and one that the server ended with io.EOF.
func transient(err error) bool {
	if errors.Is(err, io.EOF) {
		return true
	}
	_, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err)
	return ok
}

// unavailable is an error of a connection that was not even begun.
type unavailable struct{ error }

// Unwrap returns the reason.
func (u unavailable) Unwrap() error { return u.error }

// GRPCStatus has the code UNAVAILABLE.
func (u unavailable) GRPCStatus() *status.Status { return status.New(codes.Unavailable, u.Error()) }

// sameError reports whether two errors read the same.
func sameError(a, b error) bool {
	if a == nil || b == nil {
		return (a == nil) == (b == nil)
	}
	return a.Error() == b.Error()
}
