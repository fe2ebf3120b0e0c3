package jwt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter/service"
	"github.com/inboardmesh/inboard/internal/token"
	"github.com/inboardmesh/inboard/observe"
)

const (
	// leastPause is between two fetches, whatever the configuration says and
	// callers send.
	leastPause = time.Second
	// longestKeyPause is the most between fetches for key ids that are not in
	// the set. The pause doubles from leastPause while such fetches bring nothing
	// new.
	longestKeyPause = time.Minute
	// freshPart is the part of the cache duration after which keys are fetched
	// again ahead of need, in percent.
	freshPart = 80
)

// keySet is one version of a key set.
type keySet struct {
	keys *token.Keys
	// generation is another one for each document that differs.
	generation uint64
	document   string
	at         time.Time // when it was fetched last
}

// remote is a key set that is fetched. It is fetched when it is needed, and
// again ahead of its expiry while it is used: there is no goroutine but those
// that fetch. Safe for concurrent use.
type remote struct {
	store *Store
	from  discovery.JWTRemoteKeys

	mu        sync.Mutex
	providers []string  // guarded by mu; whose tokens the keys verify, sorted, copied on write
	set       *keySet   // guarded by mu; nil before the first success
	flight    *flight   // guarded by mu; the fetch under way, or nil
	used      time.Time // guarded by mu
	ended     time.Time // guarded by mu; when the last fetch ended
	failed    bool      // guarded by mu; that the last fetch did
	keyNext   time.Time // guarded by mu; when a key id may cause a fetch again
	keyWait   time.Duration
}

// flight is a fetch under way. set and err are valid once done is closed.
type flight struct {
	done chan struct{}
	set  *keySet
	err  error
}

func newRemote(s *Store, from discovery.JWTRemoteKeys) *remote {
	return &remote{store: s, from: from, used: time.Now(), keyWait: leastPause}
}

// maxProviders bounds the names that a key set remembers.
const maxProviders = 16

// serves notes for which provider the keys are.
func (r *remote) serves(provider string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i, found := slices.BinarySearch(r.providers, provider); !found && len(r.providers) < maxProviders {
		r.providers = slices.Insert(slices.Clone(r.providers), i, provider)
	}
}

func (r *remote) unusedSince(t time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.used.Before(t)
}

// current reports whether a generation is the newest, and may still be used
// without another look at it.
func (r *remote) current(generation uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.set != nil && r.set.generation == generation && time.Since(r.set.at) < r.fresh()
}

func (r *remote) lifetime() time.Duration { return max(r.from.CacheDuration, leastPause) }

func (r *remote) fresh() time.Duration { return r.lifetime() * freshPart / 100 }

// prefetch begins the first fetch.
func (r *remote) prefetch() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.set == nil && r.mayFetchLocked() {
		r.fetchLocked()
	}
}

// get returns the keys that may be used now. It waits for those that are on
// their way, until ctx ends.
func (r *remote) get(ctx context.Context) (*keySet, token.Status, error) {
	r.mu.Lock()
	now := time.Now()
	r.used = now
	set := r.set
	age := time.Duration(0)
	if set != nil {
		age = now.Sub(set.at)
	}
	switch {
	case set != nil && age < r.fresh():
		r.mu.Unlock()
		return set, token.OK, nil
	case set != nil && age < r.lifetime():
		if r.mayFetchLocked() {
			r.fetchLocked()
		}
		r.mu.Unlock()
		return set, token.OK, nil
	case r.flight == nil && !r.mayFetchLocked():
		r.mu.Unlock()
		return r.stale(set)
	}
	f := r.fetchLocked()
	r.mu.Unlock()
	if err := f.wait(ctx); err != nil {
		return nil, token.KeysUnavailable, err
	}
	if f.err != nil {
		return r.stale(set)
	}
	return f.set, token.OK, nil
}

// stale is what to do without keys of now: to use those of before, if the
// configuration says so, and otherwise to accept nothing.
func (r *remote) stale(set *keySet) (*keySet, token.Status, error) {
	if set != nil && r.from.Async {
		return set, token.OK, nil
	}
	return nil, token.KeysUnavailable, nil
}

// newer returns keys that are newer than a generation, nil if there are none. It
// fetches them, but not more often than once in a while: whoever sends tokens
// with random key ids does not make this process call the issuer.
func (r *remote) newer(ctx context.Context, than uint64) (*keySet, error) {
	r.mu.Lock()
	if r.set != nil && r.set.generation != than {
		set := r.set
		r.mu.Unlock()
		return set, nil
	}
	if r.flight == nil {
		now := time.Now()
		if now.Before(r.keyNext) || !r.mayFetchLocked() {
			r.mu.Unlock()
			return nil, nil
		}
		r.keyNext = now.Add(r.keyWait)
		r.keyWait = min(2*r.keyWait, longestKeyPause)
	}
	f := r.fetchLocked()
	r.mu.Unlock()
	if err := f.wait(ctx); err != nil {
		return nil, err
	}
	// One that failed has no set: the keys of before are the newest.
	if f.set == nil || f.set.generation == than {
		return nil, nil
	}
	return f.set, nil
}

// mayFetchLocked keeps the pause after the last fetch.
func (r *remote) mayFetchLocked() bool {
	pause := leastPause
	if r.failed {
		pause = max(pause, r.from.FailedRefetch)
	}
	return r.ended.IsZero() || time.Since(r.ended) >= pause
}

// fetchLocked begins a fetch, or returns the one that is under way.
func (r *remote) fetchLocked() *flight {
	if r.flight != nil {
		return r.flight
	}
	f := &flight{done: make(chan struct{})}
	r.flight = f
	last := r.set
	if !r.store.background(func() { // ends with the fetch, which the store's context bounds
		set, err := r.fetch(last)
		r.land(f, set, err)
	}) {
		f.err = errClosed
		r.flight = nil
		close(f.done)
	}
	return f
}

// land takes over what a fetch has brought.
func (r *remote) land(f *flight, set *keySet, err error) {
	r.mu.Lock()
	f.set, f.err = set, err
	r.flight = nil
	r.ended, r.failed = time.Now(), err != nil
	if err == nil {
		if r.set == nil || r.set.generation != set.generation {
			r.keyWait = leastPause // this issuer does change its keys
		}
		r.set = set
	}
	r.mu.Unlock()
	close(f.done)
}

func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fetch gets the key set, with the retries of the configuration.
func (r *remote) fetch(last *keySet) (*keySet, error) {
	for attempt := 0; ; attempt++ {
		start := time.Now()
		set, err := r.attempt(last)
		r.report(start, set, err)
		if err == nil || attempt >= r.from.Retries || !r.pause(attempt) {
			return set, err
		}
	}
}

func (r *remote) attempt(last *keySet) (*keySet, error) {
	ctx, cancel := service.WithTimeout(r.store.ctx, r.from.Timeout)
	defer cancel()
	document, err := r.store.fetch(ctx, &r.from)
	if err != nil {
		return nil, err
	}
	// No secrets: whoever can fetch the set could sign.
	keys, err := token.ParseKeys(document, false)
	if err != nil {
		return nil, fmt.Errorf("the answer is no key set: %w", err)
	}
	if keys.Len() == 0 {
		return nil, fmt.Errorf("no key of the set can be used: %w", errors.Join(keys.Unused()...))
	}
	set := &keySet{keys: keys, document: string(document), generation: 1, at: time.Now()}
	if last != nil {
		set.generation = last.generation
		if last.document != set.document {
			set.generation++
		}
	}
	return set, nil
}

// pause waits before another attempt: random up to a bound that doubles.
func (r *remote) pause(attempt int) bool {
	bound := r.from.RetryBase
	for range min(attempt, 30) {
		bound = min(2*bound, r.from.RetryMax)
	}
	timer := time.NewTimer(time.Duration(rand.Int64N(int64(max(bound, 1)))))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.store.ctx.Done():
		return false
	}
}

func (r *remote) report(start time.Time, set *keySet, err error) {
	hook := r.store.hooks.KeysFetched
	if hook == nil {
		return
	}
	path, _, _ := strings.Cut(r.from.Path, "?")
	event := observe.KeysEvent{
		Cluster: r.from.Cluster, Host: r.from.Host, URL: r.from.Scheme + "://" + r.from.Host + path,
		Err: err, Duration: time.Since(start),
	}
	r.mu.Lock()
	event.Providers = r.providers
	event.InUse = err != nil && r.set != nil && (r.from.Async || time.Since(r.set.at) < r.lifetime())
	r.mu.Unlock()
	switch {
	case set != nil:
		event.Keys = set.keys.Len()
	case r.store.ctx.Err() != nil:
		event.Reason = "closed"
	default:
		event.Reason = string(service.ReasonOf(err))
	}
	hook(event)
}
