package ads

import (
	"errors"
	"slices"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/slim"
)

// What is bound for those who ask again while no server can be asked. Nothing new
// comes in the meantime: what is kept was in use when the servers went away.
const (
	maxKept    = 1 << 16
	maxKeptFor = 24 * time.Hour
)

// keepLocked keeps a resource that nobody watches any more if it cannot be asked for
// anew. A channel that idles, or a listener that is closed, and begins again while the
// control plane is away goes on with what it had. It reports whether it is kept. What
// the control plane has taken away is not: who comes later has no use of it to go on
// with.
func (c *Client) keepLocked(e *entry) bool {
	if _, ok := c.kept[e]; ok {
		return e.authority.awayLocked() && e.held
	}
	if !e.held || !e.authority.awayLocked() || errors.Is(e.err, discovery.ErrNotFound) || errors.Is(e.err, ErrRefused) ||
		len(c.kept) >= maxKept {
		return false
	}
	c.kept[e] = c.alarmLocked(maxKeptFor, func() { c.forgetLocked(e) })
	e.authority.kept++
	return true
}

// unkeepLocked notes that a resource is watched again, by its name or as part of a
// collection, or is forgotten.
func (c *Client) unkeepLocked(e *entry) {
	until, ok := c.kept[e]
	if !ok {
		return
	}
	until.stopLocked(c)
	delete(c.kept, e)
	c.kept = slim.Fit(c.kept, &c.mostKept)
	e.authority.kept--
}

// awayLocked reports whether nobody has answered who can be asked, since the streams
// to the servers broke.
func (a *authority) awayLocked() bool {
	return !slices.ContainsFunc(a.inUseLocked(), func(l *link) bool { return l.answers })
}

// answered notes that the server is there: who asks again asks it. What was kept until
// then is forgotten.
func (l *link) answered() {
	c := l.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.answers || l.stream == nil {
		return
	}
	l.answers = true
	for e := range c.kept {
		if e.authority.usesLocked(l) {
			c.releaseLocked(e)
		}
	}
}
