package xds

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
	"github.com/inboardmesh/inboard/discovery/xds/internal/decode"
	"github.com/inboardmesh/inboard/discovery/xds/internal/lastgood"
	"github.com/inboardmesh/inboard/internal/slim"
	"github.com/inboardmesh/inboard/observe"
)

// patience is how long the control plane may be silent about a resource before the
// one from disk is used. A control plane that cannot be reached is not waited for.
const patience = time.Second

// errSilent is what is wrong while a resource from disk is in force and nothing
// else is known to be.
var errSilent = errors.New("the control plane has not answered: the last known good version from disk is in force")

// keeper stands between the followers and the client. It notes what is accepted, to
// have it at the next start, and lends what it has from the last one for as long as
// the control plane does not say anything.
//
// What is lent is replaced by what the control plane sends, and by nothing else: not
// by silence, a lost connection or an invalid version, nor by the word that it does not
// exist. A process that runs keeps what it has by that word (gRFC A88), for it may be
// that of a control plane that answers before it has loaded anything; one that has just
// been started must not be the worse for it. What a control plane does not have is not
// younger on disk than the last time that it had it, and is over with its MaxAge.
type keeper struct {
	client keptClient
	store  *lastgood.Store
	types  map[string]ads.Type // by URL, as they are without keeping
	hooks  *observe.Hooks
	logger *slog.Logger
	// strict drops what is lent when an invalid version of it comes, or the word that it
	// does not exist (gRFC A88).
	strict strictness
	// servers are the authorities that a server stands for.
	servers map[string][]string

	// resources and versions belong to the client's goroutine.
	resources map[lastgood.Key]*keptResource
	versions  map[lastgood.Key]string
	// These and the two below are how many there were, see [slim.Fit].
	mostResources, mostVersions int
	// voices are those of the authorities. They belong to the client's goroutine, and
	// the map itself does not change.
	voices map[string]*voice

	mu                 sync.Mutex
	lent               map[lastgood.Key]string   // guarded by mu; the versions of what is lent
	live               map[lastgood.Key]struct{} // guarded by mu; what came from the control plane
	mostLent, mostLive int                       // guarded by mu
}

// voice is what was heard of the control plane of one authority: heard is whether it has
// said anything since its stream began, silent whether it has been waited for in vain
// since it last did. Then it is not waited for again for each resource that those from
// disk lead to.
type voice struct{ heard, silent bool }

// voice returns that of a resource. What is of no authority has one that says nothing.
func (k *keeper) voice(key lastgood.Key) *voice {
	if v := k.voices[ads.Authority(key.Name)]; v != nil {
		return v
	}
	return new(voice)
}

// keptClient is what a keeper needs of [ads.Client].
type keptClient interface {
	watchClient
	Do(f func())
}

// decoded is what the client holds: a value with the bytes that it came from.
type decoded struct {
	raw   []byte
	value any
}

// keptResource is a resource that is watched. It belongs to the client's goroutine.
type keptResource struct {
	key     lastgood.Key
	watches int
	// from is what the client told last; nil while there is nothing from it.
	from *decoded
	// raw and value are what followers have: from, or what is lent.
	raw   []byte
	value any
	lent  bool
	// removed is set while the control plane says that it does not have what is in
	// force, which therefore grows old on disk.
	removed bool
	// expires is set while what is from the client has a time to live. It is not on
	// disk, where it would outlive that.
	expires bool
	// useless is set if what is on disk cannot be used.
	useless bool
}

var _ watchClient = (*keeper)(nil)

// remembering returns a type whose decoder keeps the bytes.
func remembering(t ads.Type) ads.Type {
	decode := t.Decode
	t.Decode = func(raw []byte) (string, any, error) {
		name, value, err := decode(raw)
		if err != nil {
			return name, nil, err
		}
		return name, &decoded{raw: raw, value: value}, nil
	}
	return t
}

// note is the hooks of the client: they tell versions and streams.
func (k *keeper) note(hooks observe.Hooks) observe.Hooks {
	urls := make(map[string]string, len(k.types))
	for url, t := range k.types {
		urls[t.Name] = url
	}
	accepted, changed := hooks.ResourceAccepted, hooks.StreamChanged
	hooks.ResourceAccepted = func(e observe.ResourceEvent) {
		if key := (lastgood.Key{TypeURL: urls[e.Type], Name: e.Name}); k.resources[key] != nil {
			k.versions[key] = e.Version
		}
		if accepted != nil {
			accepted(e)
		}
	}
	hooks.StreamChanged = func(e observe.StreamEvent) {
		for _, authority := range k.servers[e.Server] {
			k.voices[authority].heard = false
		}
		k.store.Connected(e.Server, e.Connected)
		if changed != nil {
			changed(e)
		}
	}
	return hooks
}

// Watch is that of the client, with what is on disk. Secrets are never there: what
// needs one waits for the control plane.
func (k *keeper) Watch(typeURL, name string, w ads.Watcher) (cancel func()) {
	if typeURL == decode.SecretURL {
		return k.client.Watch(typeURL, name, w)
	}
	kw := &keptWatch{keeper: k, key: lastgood.Key{TypeURL: typeURL, Name: ads.Canonical(name)}, to: w}
	k.client.Do(kw.begin) // before the first event
	stop := k.client.Watch(typeURL, name, kw)
	return sync.OnceFunc(func() {
		kw.cancelled.Store(true)
		stop()
		k.client.Do(kw.end)
	})
}

// keptWatch is one watch. But for cancelled it belongs to the client's goroutine.
type keptWatch struct {
	keeper    *keeper
	key       lastgood.Key
	to        ads.Watcher
	cancelled atomic.Bool
	resource  *keptResource
	given     any         // what the watcher has; nil while it has nothing
	silent    *time.Timer // nil if there is nothing to wait for, or no more
}

var _ ads.ExpiryWatcher = (*keptWatch)(nil)

func (w *keptWatch) begin() {
	k := w.keeper
	w.resource = k.resources[w.key]
	if w.resource == nil {
		w.resource = &keptResource{key: w.key}
		k.resources[w.key] = w.resource
	}
	w.resource.watches++
	if (w.resource.lent || k.voice(w.key).silent) && w.lend(errSilent) {
		return
	}
	if _, ok := k.store.Kept(w.key); ok {
		w.silent = time.AfterFunc(patience, func() { k.client.Do(w.impatient) })
	}
}

// impatient lends what is on disk unless there is something better.
func (w *keptWatch) impatient() {
	if w.silent != nil && w.given == nil && !w.cancelled.Load() && w.lend(errSilent) {
		v := w.keeper.voice(w.key)
		v.silent = !v.heard
	}
}

// waitNoMore ends the wait for the control plane.
func (w *keptWatch) waitNoMore() {
	if w.silent != nil {
		w.silent.Stop()
		w.silent = nil
	}
}

// hear notes that the control plane has said something.
func (w *keptWatch) hear() { *w.keeper.voice(w.key) = voice{heard: true} }

func (w *keptWatch) end() {
	w.waitNoMore()
	k, r := w.keeper, w.resource
	r.watches--
	if r.watches > 0 {
		return
	}
	delete(k.resources, w.key)
	delete(k.versions, w.key)
	k.resources = slim.Fit(k.resources, &k.mostResources)
	k.versions = slim.Fit(k.versions, &k.mostVersions)
	if r.value != nil {
		k.store.Release(w.key)
	}
	k.settle(r.key, "", false, false)
}

// lend gives the watcher what is on disk, if it has nothing. why is why. It reports
// whether the watcher has a value now.
func (w *keptWatch) lend(why error) bool {
	r := w.resource
	if r.value == nil && !w.keeper.recall(r) {
		return false
	}
	if w.given != r.value {
		w.given = r.value
		w.to.Changed(r.value)
	}
	if r.lent {
		w.to.AmbientError(why)
	}
	return true
}

// recall takes a resource from disk, through the decoder of those that come from
// the control plane.
func (k *keeper) recall(r *keptResource) bool {
	kept, ok := k.store.Kept(r.key)
	if !ok || r.useless {
		return false
	}
	value, err := k.decode(r.key.TypeURL, kept.Value)
	if err != nil {
		r.useless = true
		k.store.Drop(r.key)
		err = fmt.Errorf("%s %q from disk is not used: %w", k.types[r.key.TypeURL].Name, r.key.Name, err)
		k.logger.Warn("last known good configuration refused", "error", err)
		k.report(observe.LastGoodEvent{Kind: observe.LastGoodRefused, Err: err})
		return false
	}
	r.raw, r.value, r.lent = kept.Value, value, true
	k.settle(r.key, kept.Version, true, false)
	return true
}

// decode turns a panic into an error, as the client does.
func (k *keeper) decode(typeURL string, raw []byte) (value any, err error) {
	defer func() {
		if p := recover(); p != nil {
			k.logger.Error("decoding an xDS resource from disk panicked", "panic", p, "stack", string(debug.Stack()))
			value, err = nil, fmt.Errorf("the decoder panicked: %v", p)
		}
	}()
	// The name inside does not matter: the control plane may have overridden it.
	_, value, err = k.types[typeURL].Decode(raw)
	return value, err
}

// Changed takes what the control plane sent. If it is what was lent, followers keep
// what they have made of it. What was removed may come back as it was, and is the
// client's same value then. For a watch that has nothing yet that only is what is in
// force, and no word that it is back.
func (w *keptWatch) Changed(resource any) {
	k, r := w.keeper, w.resource
	w.hear()
	from := resource.(*decoded)
	if r.from != from || r.removed && w.given != nil {
		if r.value == nil || !bytes.Equal(r.raw, from.raw) {
			r.value = from.value
		}
		r.from, r.raw, r.lent, r.removed = from, from.raw, false, false
		k.keep(r)
		k.settle(r.key, "", false, true)
	}
	w.given = r.value
	w.to.Changed(r.value)
}

// Expires notes whether the control plane bounds how long the resource may be used.
func (w *keptWatch) Expires(expires bool) {
	r := w.resource
	if r.expires == expires {
		return
	}
	r.expires = expires
	if r.from != nil && !r.removed {
		w.keeper.keep(r)
	}
}

// keep has what came from the client at the next start, if it may be used then.
func (k *keeper) keep(r *keptResource) {
	if r.expires {
		k.store.Drop(r.key)
		return
	}
	k.store.Keep(r.key, k.versions[r.key], r.from.raw)
}

// ResourceError says that the client has nothing.
func (w *keptWatch) ResourceError(err error) {
	k, r := w.keeper, w.resource
	gone := isWithdrawn(err) && !errors.Is(err, ads.ErrUnanswered)
	if !isOffline(err) && !errors.Is(err, ads.ErrUnanswered) {
		w.hear()
	}
	if gone && k.strict.of(r.key.Name) {
		k.store.Drop(r.key)
	}
	if r.from != nil {
		// It was the client's, which has taken it away by the rules for that.
		r.from, r.raw, r.value, r.removed = nil, nil, nil, false
	}
	why := err
	if gone {
		why = fmt.Errorf("%w: the last known good version from disk is in force", err)
	}
	if w.lendable(err) && w.lend(why) {
		return
	}
	w.given = nil
	w.waitNoMore() // it is not silent
	if r.lent {
		r.raw, r.value, r.lent = nil, nil, false
	}
	k.settle(r.key, "", false, false)
	w.to.ResourceError(err)
}

// isWithdrawn reports whether the control plane does not stand by a resource any more: it
// says that there is none, or that this process is not to have it.
func isWithdrawn(err error) bool {
	return errors.Is(err, discovery.ErrNotFound) || errors.Is(err, ads.ErrRefused)
}

// lendable reports whether what is on disk may be used although the client reports
// an error.
func (w *keptWatch) lendable(err error) bool {
	return !w.keeper.strict.of(w.key.Name) || isOffline(err) || errors.Is(err, ads.ErrTransient) || errors.Is(err, ads.ErrUnanswered)
}

// AmbientError says that something is wrong with what the client has.
func (w *keptWatch) AmbientError(err error) {
	if isWithdrawn(err) {
		w.resource.removed = true
		w.keeper.store.Disown(w.key)
	}
	w.to.AmbientError(err)
}

// settle notes where what is in force for a resource comes from, and tells it.
func (k *keeper) settle(key lastgood.Key, version string, lent, live bool) {
	k.mu.Lock()
	before := len(k.lent)
	delete(k.lent, key)
	delete(k.live, key)
	if lent {
		k.lent[key] = version
	}
	if live {
		k.live[key] = struct{}{}
	}
	k.lent = slim.Fit(k.lent, &k.mostLent)
	k.live = slim.Fit(k.live, &k.mostLive)
	after := len(k.lent)
	k.mu.Unlock()
	if before == after {
		return
	}
	status := k.store.Status()
	switch {
	case before == 0:
		saved := []any{"file", status.File, "saved", status.Saved}
		if status.Saved.IsZero() { // it is what this process was sent itself
			saved = saved[:2]
		}
		k.logger.Warn("the control plane does not answer: last known good configuration from disk is used", saved...)
	case after == 0:
		k.logger.Info("no configuration from disk is used any more")
	}
	k.report(observe.LastGoodEvent{Kind: observe.LastGoodUsed, Resources: after, Saved: status.Saved})
}

func (k *keeper) report(e observe.LastGoodEvent) {
	if k.hooks.LastGood != nil {
		k.hooks.LastGood(e)
	}
}
