package lastgood

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/inboardmesh/inboard/internal/slim"
	"github.com/inboardmesh/inboard/observe"
)

// yieldAfter is after how many of many resources those who wait for a processor go
// first: calls must not wait until all are done.
const yieldAfter = 32

// run writes what changes, until Stop.
func (s *Store) run() {
	refresh := time.NewTicker(s.config.MaxAge / refreshes)
	defer refresh.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	retry := time.NewTimer(retryDelay)
	defer retry.Stop()
	var earliest time.Time // when the next write may begin
	for {
		select {
		case <-s.ending:
			return
		case <-s.wake:
		case <-retry.C:
			s.expire(time.Now())
		case <-refresh.C:
			s.refresh()
		}
		pause.Reset(max(writeDelay, time.Until(earliest)))
		select {
		case <-s.ending:
			return
		case <-pause.C:
		}
		select {
		case <-s.wake: // what came meanwhile is written too
		default:
		}
		start := time.Now()
		size := s.write()
		retry.Reset(retryDelay)
		pace := time.Duration(float64(size) / maxBytesPerSecond * float64(time.Second))
		earliest = time.Now().Add(max(idleFactor*time.Since(start), pace))
	}
}

// refresh lets the file be written although nothing has changed: the control plane
// still stands by what is in it.
func (s *Store) refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.connected) > 0 && len(s.items) > 0 {
		s.dirty = true
	}
}

// expire forgets what nobody has watched for a while, so that it is not held until
// something else is to be written.
func (s *Store) expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, it := range s.items {
		if it.lingers(now) {
			continue
		}
		delete(s.items, key)
		s.dirty = true
	}
	s.items = slim.Fit(s.items, &s.most)
}

// lingers reports whether an item is watched, or was until a moment ago.
func (i *item) lingers(now time.Time) bool {
	return i.live || i.released.IsZero() || now.Sub(i.released) <= linger
}

// write writes the file, if there is something new to say. It returns the size of what
// it tried to write.
func (s *Store) write() (size int64) {
	kept, ok := s.collect(time.Now())
	if !ok {
		return 0
	}
	left := s.leaveOut(kept)
	size, err := s.fit(kept)
	if err == nil {
		err = s.enter()
	}
	if err == nil {
		if err = replace(s.files, s.dir.seat.file, func(w io.Writer) error { return encode(w, kept) }); err != nil {
			s.leave() // it may have been replaced, or be there again later
		}
	}
	s.written(kept, size, err)
	if err == nil {
		s.leftOut(left)
	}
	return size
}

// leaveOut takes out of what is written the live resources of the control plane that has
// most of them, if all together are too many and there are others: it must not be the
// reason that nothing of the others is there at a start. It returns what is left out, nil
// if nothing is.
func (s *Store) leaveOut(kept *snapshot) error {
	live := kept.overhead()
	for i := range kept.resources {
		if r := &kept.resources[i]; r.live {
			live += sizeOf(r)
		}
	}
	if live <= s.config.MaxBytes {
		return nil
	}
	whose := func(r *Resource) string { return strings.Join(s.config.Servers(r.Key), ", ") }
	sizes := make(map[string]int64)
	for i := range kept.resources {
		if r := &kept.resources[i]; r.live {
			sizes[whose(r)] += sizeOf(r)
		}
	}
	var left []string
	for live > s.config.MaxBytes && len(sizes) > 1 {
		most := slices.MaxFunc(slices.Sorted(maps.Keys(sizes)), func(a, b string) int { return cmp.Compare(sizes[a], sizes[b]) })
		left = append(left, most) // not how much it is: that may change all the time
		live -= sizes[most]
		delete(sizes, most)
	}
	if len(left) == 0 {
		return nil // fit says that it is too much
	}
	kept.resources = slices.DeleteFunc(kept.resources, func(r Resource) bool {
		_, stays := sizes[whose(&r)]
		return r.live && !stays
	})
	return fmt.Errorf("file %q is without what comes from %s: with it there would be more than the %d bytes that are allowed",
		s.status.File, strings.Join(left, " and "), s.config.MaxBytes)
}

// leftOut reports what a file that was written is without, each once.
func (s *Store) leftOut(err error) {
	s.mu.Lock()
	s.status.NotWritten = err
	text := ""
	if err != nil {
		text = err.Error()
	}
	again := text == s.toldLeft
	s.toldLeft = text
	s.mu.Unlock()
	if err != nil && !again {
		s.config.Report(observe.LastGoodEvent{Kind: observe.LastGoodNotWritten, Err: err})
	}
}

// enter opens the directory, unless it is open.
func (s *Store) enter() error {
	if s.files != nil {
		return nil
	}
	dir, err := openDirectory(s.config.Dir)
	if err != nil {
		return err
	}
	if err := dir.sit(s.owner); err != nil {
		return errors.Join(err, dir.close())
	}
	s.seated(dir)
	return nil
}

// leave closes the directory, if it is open.
func (s *Store) leave() {
	if s.dir != nil && s.files == files(s.dir) {
		_ = s.dir.close() // it was only held open
		s.dir, s.files = nil, nil
	}
}

// written notes how a write ended, and reports it unless that is known.
func (s *Store) written(kept *snapshot, size int64, err error) {
	if err != nil {
		err = fmt.Errorf("file %q is not written: %w", s.status.File, err)
	}
	s.mu.Lock()
	s.status.NotWritten = err
	again := err != nil && err.Error() == s.told
	switch {
	case err != nil:
		s.told, s.dirty = err.Error(), true // the next change, or a while, tries again
	default:
		s.told, s.status.Written = "", time.Now()
	}
	s.mu.Unlock()
	switch {
	case again:
	case err != nil:
		s.config.Report(observe.LastGoodEvent{Kind: observe.LastGoodNotWritten, Err: err})
	default:
		s.config.Report(observe.LastGoodEvent{Kind: observe.LastGoodWritten, Resources: len(kept.resources), Bytes: size})
	}
}

// collect returns what to write, with the time until which the control plane stands
// by each resource. ok is false if all of it is written.
func (s *Store) collect(now time.Time) (kept *snapshot, ok bool) {
	s.look()
	s.mu.Lock()
	defer s.mu.Unlock()
	saved := s.savedLocked(now)
	if !s.dirty || saved.IsZero() {
		return nil, false
	}
	s.dirty = false
	kept = &snapshot{owner: s.owner, label: s.config.Label, saved: saved, resources: make([]Resource, 0, len(s.items))}
	for key, it := range s.items {
		r := it.resource
		if it.live {
			r.Seen, r.live = s.seenLocked(key, now), true
		}
		switch {
		case it.live && now.Sub(r.Seen) <= s.config.MaxAge:
		case it.live: // it is in use, and would not be at a start
			continue
		case now.Sub(r.Seen) > s.config.MaxAge, !it.lingers(now):
			delete(s.items, key)
			continue
		}
		if it.looked && !it.secret {
			kept.resources = append(kept.resources, r)
		}
		if !it.looked {
			s.dirty = true // it came while the others were looked into
		}
	}
	s.items = slim.Fit(s.items, &s.most)
	return kept, true
}

// look finds out what must not be kept. Resources are looked into once, and not
// with the lock held.
func (s *Store) look() {
	s.mu.Lock()
	var unknown []*item
	for _, it := range s.items {
		if !it.looked {
			unknown = append(unknown, it)
		}
	}
	s.mu.Unlock()
	for i, it := range unknown {
		if i%yieldAfter == yieldAfter-1 {
			runtime.Gosched()
		}
		secret := s.secrets.holds(it.resource.TypeURL, it.resource.Value) // never changed
		s.mu.Lock()
		it.looked, it.secret = true, secret
		s.mu.Unlock()
	}
}

// forget gives up what does not fit.
func (s *Store) forget(key Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if it := s.items[key]; it != nil && !it.live {
		delete(s.items, key)
		s.items = slim.Fit(s.items, &s.most)
	}
}

// fit keeps the file within its bounds. What nobody watches goes first, the oldest before
// the others.
func (s *Store) fit(kept *snapshot) (size int64, err error) {
	size = kept.overhead()
	for i := range kept.resources {
		size += sizeOf(&kept.resources[i])
	}
	slices.SortFunc(kept.resources, func(a, b Resource) int {
		switch {
		case a.live && !b.live:
			return -1
		case b.live && !a.live:
			return 1
		}
		return cmp.Or(b.Seen.Compare(a.Seen), strings.Compare(a.TypeURL, b.TypeURL), strings.Compare(a.Name, b.Name))
	})
	needed := size
	for size > s.config.MaxBytes && len(kept.resources) > 0 {
		last := &kept.resources[len(kept.resources)-1]
		if last.live {
			return 0, fmt.Errorf("it would have %d bytes, more than the %d that are allowed", needed, s.config.MaxBytes)
		}
		size -= sizeOf(last)
		s.forget(last.Key)
		kept.resources = kept.resources[:len(kept.resources)-1]
	}
	return size, nil
}
