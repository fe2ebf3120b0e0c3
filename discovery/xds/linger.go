package xds

import (
	"slices"
	"sync"
	"time"
)

const (
	// lingerTime is how long a destination, or an address, that nobody watches any more
	// is followed.
	lingerTime = 5 * time.Minute
	// maxLingering bounds how many are.
	maxLingering = 64
)

// lingering are the followers of what nobody watches any more. A channel that is dialled
// for each call, or a listener that is closed and opened again, leaves and comes back. If
// the control plane went away in between, there would be nobody to ask; so what was in
// use is followed for a while longer. It is followed, not kept: what the control plane
// changes or tightens meanwhile is that, and when it takes a part of it away, the stay is
// over: there is no use that must not be broken off. One destination is one, however often
// it comes and goes.
type lingering struct {
	mu     sync.Mutex
	closed bool    // guarded by mu
	stays  []*stay // guarded by mu; the oldest first
}

// stay is one follower.
type stay struct {
	name  string
	timer *time.Timer // guarded by lingering.mu
	stop  func()
}

// add lets a follower stay, which stop ends.
func (l *lingering) add(name string, stop func()) {
	s := &stay{name: name, stop: stop}
	over := []func(){stop}
	l.mu.Lock()
	if !l.closed {
		over = nil
		if at := slices.IndexFunc(l.stays, func(other *stay) bool { return other.name == name }); at >= 0 {
			over = append(over, l.removeLocked(at))
		}
		if len(l.stays) == maxLingering {
			over = append(over, l.removeLocked(0))
		}
		s.timer = time.AfterFunc(lingerTime, func() { l.end(s) })
		l.stays = append(l.stays, s)
	}
	l.mu.Unlock()
	for _, stop := range over {
		stop()
	}
}

// end ends one stay, unless it is over.
func (l *lingering) end(s *stay) {
	stop := func() {}
	l.mu.Lock()
	if at := slices.Index(l.stays, s); at >= 0 {
		stop = l.removeLocked(at)
	}
	l.mu.Unlock()
	stop()
}

func (l *lingering) removeLocked(at int) (stop func()) {
	s := l.stays[at]
	s.timer.Stop()
	l.stays = slices.Delete(l.stays, at, at+1)
	return s.stop
}

// close ends all stays, and those that begin later.
func (l *lingering) close() {
	l.mu.Lock()
	stays := l.stays
	l.closed, l.stays = true, nil
	l.mu.Unlock()
	for _, s := range stays {
		s.timer.Stop() // nobody changes it any more
		s.stop()
	}
}
