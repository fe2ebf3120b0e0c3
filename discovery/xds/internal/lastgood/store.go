package lastgood

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/internal/slim"
	"github.com/inboardmesh/inboard/observe"
)

const (
	// writeDelay is how long a change waits for others before it is written.
	writeDelay = time.Second
	// idleFactor times the length of the last write is the least pause between two:
	// a large configuration that changes all the time takes a tenth of the disk.
	idleFactor = 9
	// maxBytesPerSecond bounds what is written on average: the file is written whole, and
	// one of 24 MB that changes all the time would be 500 MB a minute. A process that is
	// killed begins with what was in force for as long before.
	maxBytesPerSecond = 1 << 20
	// retryDelay is after how long a write that failed is tried again.
	retryDelay = time.Minute
	// refreshes is how often within MaxAge a file is written although nothing has
	// changed, so that it is not taken for an old one.
	refreshes = 4
	// linger is how long what nobody watches any more stays: a process closes its
	// listeners before it ends, and they are needed at the next start.
	linger = 10 * time.Minute
	// ahead is how far the clock of who wrote a file may have been before ours.
	ahead = 5 * time.Minute
)

// Config is how resources are kept. All of it is required.
type Config struct {
	// Dir is the directory. It is made if it is not there.
	Dir string
	// MaxAge is how old a resource may be: how long ago the control plane stood by
	// it.
	MaxAge time.Duration
	// MaxBytes bounds the file.
	MaxBytes int64
	// Owner says all that must be equal for a file to be ours: who asks which
	// control plane. Label is the same for people, in short.
	Owner, Label string
	// Servers returns the servers, as they are told to [Store.Connected], that stand by
	// a resource.
	Servers func(Key) []string
	// Report is told what happens, never with a lock held. It must not block.
	Report func(observe.LastGoodEvent)
}

// Status is what there is to know of a [Store].
type Status struct {
	// File is the path of the file that this process writes; "" if it has none.
	File string
	// Others is how many files before it other processes with the same identity
	// have in the directory.
	Others int
	// Saved is when the control plane last stood by what was found at the start;
	// zero if nothing that can be used was.
	Saved time.Time
	// Refused is why what was found at the start is not used; nil if there was
	// nothing.
	Refused error
	// Written is when the file was last written by this process, NotWritten why the
	// last attempt failed, or what the file is without, nil if neither.
	Written    time.Time
	NotWritten error
}

// Store holds the resources that are worth keeping, and writes them. Make it with
// [Open] and end it with [Store.Stop]. It is safe for concurrent use.
type Store struct {
	config Config
	owner  [sha256.Size]byte
	// dir, files and secrets belong to whoever writes: run, and Stop after it. The
	// first two are nil while the directory cannot be used.
	dir     *directory
	files   files
	secrets secrets
	wake    chan struct{} // holds one token
	stop    func()
	ending  chan struct{} // closed by Stop
	wg      sync.WaitGroup

	mu        sync.Mutex
	items     map[Key]*item        // guarded by mu
	most      int                  // guarded by mu; how many items there were, see [slim.Fit]
	connected map[string]struct{}  // guarded by mu; the servers that there is a stream to
	contacts  map[string]time.Time // guarded by mu; when the last stream to each broke
	contact   time.Time            // guarded by mu; when the last of all broke
	dirty     bool                 // guarded by mu; something is not written
	frozen    bool                 // guarded by mu; nothing is noted any more
	status    Status               // guarded by mu
	told      string               // guarded by mu; the reason for which writing failed last
	toldLeft  string               // guarded by mu; what the file was last told to be without
}

// item is a resource that is kept.
type item struct {
	resource Resource
	// live is true if the control plane sent it to this process, and has not said
	// since that it does not have it.
	live bool
	// released is when nobody watched it any more; zero if somebody does, or never
	// did in this process.
	released time.Time
	// looked is true once it is known whether it holds a secret.
	looked, secret bool
}

// Open reads what is there and starts to write what changes. A file that is refused
// is no error, and neither is a disk that does not work: both are reported. A
// directory that others may write to is an error.
func Open(config Config) (*Store, error) {
	s := &Store{
		config: config, owner: sha256.Sum256([]byte(config.Owner)),
		wake: make(chan struct{}, 1), ending: make(chan struct{}),
		items: make(map[Key]*item), connected: make(map[string]struct{}), contacts: make(map[string]time.Time),
	}
	s.status.File = filepath.Join(config.Dir, fileName(s.owner, 0))
	s.stop = sync.OnceFunc(s.end)
	dir, err := openDirectory(config.Dir)
	_, broken := errors.AsType[unusable](err)
	switch {
	case broken:
		s.written(nil, 0, err) // it is tried again with the next write
	case err != nil:
		return nil, err
	default:
		s.take(dir)
	}
	s.wg.Go(s.run) // ends with Stop
	return s, nil
}

// take begins with a directory: with a seat in it, and what is found there. Without
// a seat nothing is written, but what there is can be used.
func (s *Store) take(dir *directory) {
	err := dir.sit(s.owner)
	s.load(dir, time.Now())
	if err != nil {
		_ = dir.close() // it was only held open
		s.written(nil, 0, err)
		return
	}
	s.seated(dir)
}

// seated notes which file is ours.
func (s *Store) seated(dir *directory) {
	s.dir, s.files = dir, dir
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.File, s.status.Others = filepath.Join(dir.path, dir.seat.file), dir.seat.number
}

// load takes the resources of a file, or says why not. Of the files of several
// processes it is the one whose process last heard of the control plane: all of them
// were told what is for this identity, and an older one only knows less. It is used
// as a whole; files are not mixed.
func (s *Store) load(dir *directory, now time.Time) {
	dir.sweep(s.config.MaxAge, now)
	files, err := dir.files(s.owner)
	if err != nil {
		return // what cannot be read here cannot be written either, which is reported
	}
	var best *snapshot
	var refused error
	for _, file := range files {
		if best != nil && !best.saved.Before(file.modified) {
			break // a file is not older than what it says
		}
		name := file.name
		found, err := s.read(dir, name, now)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it was swept in between
		case err != nil:
			err = fmt.Errorf("file %q is not used: %w", filepath.Join(dir.path, name), err)
			s.config.Report(observe.LastGoodEvent{Kind: observe.LastGoodRefused, Err: err})
			refused = errors.Join(refused, err)
		case best == nil || found.saved.After(best.saved) || found.saved.Equal(best.saved) && name == dir.seat.file:
			best = found
		}
	}
	if best == nil {
		s.status.Refused = refused
		return
	}
	s.status.Saved, s.contact = best.saved, best.saved
	for i := range best.resources {
		if r := best.resources[i]; now.Sub(r.Seen) <= s.config.MaxAge {
			s.items[r.Key] = &item{resource: r, looked: true}
		}
	}
}

func (s *Store) read(dir *directory, name string, now time.Time) (*snapshot, error) {
	data, err := dir.read(name, s.config.MaxBytes)
	if err != nil {
		return nil, err
	}
	found, err := decode(data)
	switch {
	case err != nil:
		return nil, err
	case found.owner != s.owner:
		return nil, fmt.Errorf("it is that of %s, and this is %s", found.label, s.config.Label)
	case found.saved.Sub(now) > ahead:
		return nil, fmt.Errorf("it was written at %v, which has not come yet: its age is not known", found.saved.UTC().Format(time.RFC3339))
	}
	if age := now.Sub(found.saved); age > s.config.MaxAge {
		return nil, fmt.Errorf("the control plane was last heard of %v before, more than the %v that are allowed", age.Round(time.Second), s.config.MaxAge)
	}
	return found, nil
}

// Kept returns what the control plane does not stand by: what was found at the start,
// as long as it has sent nothing better, and what it does not have any more.
func (s *Store) Kept(key Key) (Resource, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if it := s.items[key]; it != nil && !it.live {
		return it.resource, true
	}
	return Resource{}, false
}

// Keep notes what the control plane sent. The value must not be changed afterwards.
func (s *Store) Keep(key Key, version string, value []byte) {
	s.mu.Lock()
	if !s.frozen {
		s.items[key] = &item{live: true, resource: Resource{Key: key, Version: version, Value: value}}
		s.dirty = true
	}
	s.mu.Unlock()
	s.poke()
}

// Release notes that nobody watches a resource any more.
func (s *Store) Release(key Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it := s.items[key]
	if it == nil || s.frozen {
		return
	}
	s.disownLocked(it)
	it.released = time.Now()
	s.dirty = true // but not worth a file of its own
}

// Disown notes that the control plane does not stand by a resource any more: it says
// that it has none of that name. It is kept, and as old from now on as it is.
func (s *Store) Disown(key Key) {
	s.mu.Lock()
	if it := s.items[key]; it != nil && it.live && !s.frozen {
		s.disownLocked(it)
		s.dirty = true
	}
	s.mu.Unlock()
	s.poke()
}

func (s *Store) disownLocked(it *item) {
	if it.live {
		it.live, it.resource.Seen = false, s.seenLocked(it.resource.Key, time.Now())
	}
}

// seenLocked is until when a server that a live resource can be from stands by it.
func (s *Store) seenLocked(key Key, now time.Time) (seen time.Time) {
	for _, server := range s.config.Servers(key) {
		if _, ok := s.connected[server]; ok {
			return now
		}
		if at := s.contacts[server]; at.After(seen) {
			seen = at
		}
	}
	return seen
}

// savedLocked is when the control plane was last heard of.
func (s *Store) savedLocked(now time.Time) time.Time {
	if len(s.connected) > 0 {
		return now
	}
	return s.contact
}

// Drop forgets a resource: it must not be used at the next start.
func (s *Store) Drop(key Key) {
	s.mu.Lock()
	if _, ok := s.items[key]; ok && !s.frozen {
		delete(s.items, key)
		s.items = slim.Fit(s.items, &s.most)
		s.dirty = true
	}
	s.mu.Unlock()
	s.poke()
}

// Connected notes that there is a stream to a server, or none any more.
func (s *Store) Connected(server string, connected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch _, was := s.connected[server]; {
	case s.frozen:
	case connected:
		s.connected[server] = struct{}{}
	case was:
		delete(s.connected, server)
		s.contact = time.Now()
		s.contacts[server] = s.contact
		s.dirty = true // as old as that, from now on
	}
}

// Status returns what there is to know now.
func (s *Store) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Stop writes what is not written yet, and returns when nothing is written any
// more. What is noted afterwards is lost. It may be called more than once.
func (s *Store) Stop() { s.stop() }

func (s *Store) end() {
	close(s.ending)
	s.wg.Wait()
	s.mu.Lock()
	s.frozen = true
	if len(s.connected) > 0 && len(s.items) > 0 {
		s.dirty = true // the control plane stands by it until now
	}
	s.mu.Unlock()
	s.write()
	s.leave()
}

func (s *Store) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
