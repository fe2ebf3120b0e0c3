package ads

import "slices"

// audienceLocked returns who hears of an entry: its watchers and those of the
// collections that it is part of.
func (e *entry) audienceLocked() []*watch {
	audience := slices.Clone(e.watchers)
	for _, all := range e.collectionsLocked() {
		audience = append(audience, all.watchers...)
	}
	return audience
}

// tellChangedLocked tells the value, which also means that all is well.
func (c *Client) tellChangedLocked(e *entry) {
	e.told, e.offline = "", false
	for _, w := range e.audienceLocked() {
		c.serial.add(w.changedLocked(e))
	}
}

// tellErrorLocked tells an error, unless it was the last thing told.
func (c *Client) tellErrorLocked(e *entry, err error) {
	e.offline = false
	c.tellOnceLocked(e, err, e.audienceLocked())
}

func (c *Client) tellOnceLocked(e *entry, err error, audience []*watch) {
	text := e.toldLocked(err)
	if text == e.told {
		return
	}
	e.told = text
	for _, w := range audience {
		c.serial.add(w.failed(err, e.held))
	}
}

// toldLocked is what telling err amounts to: whether there is still a value is
// part of it.
func (e *entry) toldLocked(err error) string {
	if e.held {
		return "ambient: " + err.Error()
	}
	return err.Error()
}

// greetLocked tells a new watcher what is known.
func (c *Client) greetLocked(e *entry, w *watch) {
	if e.collective() {
		for _, other := range e.ts.entries {
			if other.held && slices.Contains(other.collectionsLocked(), e) {
				c.unkeepLocked(other)
				c.greetOneLocked(other, w)
				e.shown = true
			}
		}
	}
	c.greetOneLocked(e, w)
	reason := e.authority.offlineLocked()
	if reason == nil || !e.concernedLocked() {
		return
	}
	err := e.wrap(reason)
	c.serial.add(w.failed(err, e.held))
	if e.told == "" {
		e.told, e.offline = e.toldLocked(err), true
	}
}

// concernedLocked reports whether the watchers of an entry should hear that the
// server is away. What is known of a resource that does not exist or is invalid
// is not replaced by that; and a collection that has shown something has no
// value of its own to worry about.
func (e *entry) concernedLocked() bool {
	if e.collective() {
		return !e.shown
	}
	return e.held || e.state == StateRequested
}

func (c *Client) greetOneLocked(e *entry, w *watch) {
	if e.held {
		c.serial.add(w.changedLocked(e))
	}
	if e.err != nil {
		c.serial.add(w.failed(e.err, e.held))
	}
}

// offlineLocked tells the watchers of an entry that no server can be reached.
func (c *Client) offlineLocked(e *entry, reason error) {
	if len(e.watchers) == 0 || !e.concernedLocked() {
		return
	}
	c.tellOnceLocked(e, e.wrap(reason), e.watchers)
	e.offline = true
}

// onlineLocked takes back what offlineLocked told.
func (c *Client) onlineLocked(e *entry) {
	if !e.offline {
		return
	}
	e.offline, e.told = false, ""
	switch {
	case e.held && e.err == nil:
		for _, w := range e.watchers {
			c.serial.add(w.changedLocked(e))
		}
	case e.err != nil:
		c.tellOnceLocked(e, e.err, e.watchers)
	}
}

// tellExpiryLocked tells whether the resource has a time to live.
func (c *Client) tellExpiryLocked(e *entry) {
	expires := e.expiry != nil
	for _, w := range e.watchers {
		c.serial.add(func() {
			if !w.cancelled.Load() {
				w.expires(expires)
			}
		})
	}
}

func (w *watch) expires(expires bool) {
	if watcher, ok := w.watcher.(ExpiryWatcher); ok {
		watcher.Expires(expires)
	}
}

func (w *watch) changedLocked(e *entry) func() {
	resource, expires := e.resource, e.expiry != nil
	return func() {
		if !w.cancelled.Load() {
			w.expires(expires)
			w.watcher.Changed(resource)
		}
	}
}

func (w *watch) failed(err error, held bool) func() {
	if held {
		return func() {
			if !w.cancelled.Load() {
				w.watcher.AmbientError(err)
			}
		}
	}
	return w.resourceError(err)
}

func (w *watch) resourceError(err error) func() {
	return func() {
		if !w.cancelled.Load() {
			w.watcher.ResourceError(err)
		}
	}
}
