package xds

import (
	"fmt"
	"sync"

	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
)

// watchClient is what followers need of [ads.Client]. Watch never calls the
// watcher before it returns, so it may be called with the follower locked.
type watchClient interface {
	Watch(typeURL, name string, w ads.Watcher) (cancel func())
}

// follower owns resources: its lock guards them, and it is told of their
// changes.
type follower interface {
	sync.Locker
	// updateLocked runs after each event of a resource that is no cluster's.
	updateLocked()
	// clusterLocked runs after each event of a resource of a cluster.
	clusterLocked(c *cluster)
	// waitsLocked reports whether what cannot be asked for, because of err, is to be
	// waited for.
	waitsLocked(err error) bool
	// withdrawnLocked runs when the control plane does not stand by a resource any more,
	// of which the last version stays in force for those who use it. A follower that
	// nobody uses ends with that, and reports it.
	withdrawnLocked() bool
}

// resource is one xDS resource that a follower watches. A nil *resource is one
// that nobody watches. Everything that changes is guarded by the follower's
// lock.
type resource[V any] struct {
	name     string
	follower follower
	cluster  *cluster // whose resource it is; nil for others
	accept   func(any) (*V, error)
	cancel   func() // nil once it is left

	// value is what to use, nil if there is nothing.
	value *V
	// err is why there is no value, or what is wrong although there is one.
	err error
}

// watchLocked starts to watch a resource. accept checks and narrows what the
// client decoded.
func watchLocked[V any](c watchClient, f follower, typeURL, name string, accept func(any) (*V, error)) *resource[V] {
	r := &resource[V]{name: name, follower: f, accept: accept}
	r.cancel = c.Watch(typeURL, name, r)
	return r
}

// leaveLocked ends the watch.
func (r *resource[V]) leaveLocked() {
	if r != nil && r.cancel != nil {
		r.cancel()
		r.cancel = nil
	}
}

var _ ads.Watcher = (*resource[int])(nil)

// Changed takes a new value. One that is not of the kind that the follower
// needs is refused: the last one stays in force.
func (r *resource[V]) Changed(decoded any) {
	value, err := r.accept(decoded)
	r.event(func() {
		r.err = err
		if err == nil {
			r.value = value
		}
	})
}

// ResourceError takes the value away.
func (r *resource[V]) ResourceError(err error) {
	r.event(func() { r.value, r.err = nil, err })
}

// AmbientError keeps the value.
func (r *resource[V]) AmbientError(err error) {
	r.event(func() {
		if !isWithdrawn(err) || !r.follower.withdrawnLocked() {
			r.err = err
		}
	})
}

func (r *resource[V]) event(apply func()) {
	r.follower.Lock()
	defer r.follower.Unlock()
	if r.cancel == nil {
		return // it was on its way when the watch ended
	}
	apply()
	switch {
	case r.cancel == nil: // that has ended the follower, which must follow nothing more
	case r.cluster != nil:
		r.follower.clusterLocked(r.cluster)
	default:
		r.follower.updateLocked()
	}
}

// asIs accepts what the decoder of the resource's type returns.
func asIs[V any](decoded any) (*V, error) {
	value, ok := decoded.(*V)
	if !ok {
		return nil, fmt.Errorf("decoded as %T, not as %T", decoded, value)
	}
	return value, nil
}
