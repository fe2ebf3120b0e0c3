package jwt

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
)

// Fetch gets the document of a key set, in one attempt. It does not follow
// redirects and bounds the size.
type Fetch func(ctx context.Context, from *discovery.JWTRemoteKeys) ([]byte, error)

// Store holds the key sets that are fetched, across versions of a configuration.
// Safe for concurrent use.
type Store struct {
	fetch Fetch
	hooks *observe.Hooks

	// ctx ends with Close and bounds every fetch.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	sets   map[discovery.JWTRemoteKeys]*remote // guarded by mu
	closed bool                                // guarded by mu
}

// NewStore returns a store without key sets. Close ends it.
func NewStore(fetch Fetch, hooks *observe.Hooks) *Store {
	ctx, cancel := context.WithCancel(context.Background())
	return &Store{fetch: fetch, hooks: hooks, ctx: ctx, cancel: cancel, sets: make(map[discovery.JWTRemoteKeys]*remote)}
}

// Close ends the fetches and waits for them. Requests that need keys are refused
// afterwards.
func (s *Store) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
}

// errClosed is why a store fetches nothing any more.
var errClosed = errors.New("mesh closed")

// background runs f on a goroutine that Close waits for, which ends with the
// store's context at the latest.
func (s *Store) background(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Go(f)
	return true
}

// forgetAfter is how long a key set is kept that nobody asked for.
const forgetAfter = time.Hour

// keys returns the key set of a configuration, the same one as before if the
// configuration has not changed: a new version of a listener fetches nothing
// anew.
func (s *Store) keys(provider string, from *discovery.JWTRemoteKeys) *remote {
	s.mu.Lock()
	now := time.Now()
	for key, r := range s.sets {
		if key != *from && r.unusedSince(now.Add(-forgetAfter)) {
			delete(s.sets, key)
		}
	}
	r := s.sets[*from]
	if r == nil {
		r = newRemote(s, *from)
		s.sets[*from] = r
	}
	s.mu.Unlock()
	r.serves(provider)
	if from.Async {
		r.prefetch()
	}
	return r
}
