package ads

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
)

// How long the server may take to send a resource for the first time (gRFC A57,
// and A88 for a timer whose expiry is transient).
const (
	absenceTimeout          = 15 * time.Second
	absenceTimeoutTransient = 30 * time.Second
)

// digest identifies the bytes of a resource under its name.
type digest [sha256.Size]byte

// typeState is everything about one type: the cache, and what the server and
// the stream know. All of it is guarded by Client.mu.
type typeState struct {
	Type
	// entries are the resources that are watched or, with a wildcard, known.
	entries map[string]*entry
	// accepted finds what is held by its bytes, so that a repetition costs no
	// decoding.
	accepted map[digest]*entry
	// pending are the names that were subscribed or unsubscribed since the
	// server was told.
	pending map[string]struct{}
	// version is that of the last accepted response of the state of the world.
	// It belongs to the server and survives the stream.
	version string
	// unnamed is why the latest response was rejected, if a bad entry of it
	// could be any resource; nil otherwise.
	unnamed error
	// rejected is the text of the latest rejection that was reported.
	rejected string
	// sub is what the server was told on this stream.
	sub subscription
}

func newTypeState(t Type) *typeState {
	return &typeState{
		Type:     t,
		entries:  make(map[string]*entry),
		accepted: make(map[digest]*entry),
		pending:  make(map[string]struct{}),
		sub:      newSubscription(),
	}
}

// subscription is the state of a type on one stream.
type subscription struct {
	// started is set by the first request.
	started bool
	// named is set by the first request with an explicit name. Until then an
	// empty list means everything.
	named bool
	// sent are the names that the server holds as subscribed.
	sent map[string]struct{}
	// nonce is that of the latest response.
	nonce string
	// replies are the ACKs and NACKs that have not been sent, oldest first.
	replies []reply
}

func newSubscription() subscription { return subscription{sent: make(map[string]struct{})} }

// reply is an ACK, or a NACK if err is set.
type reply struct {
	version string
	nonce   string
	err     error
}

// wildcardLocked returns the wildcard's entry if it is watched, else nil.
func (ts *typeState) wildcardLocked() *entry {
	if e := ts.entries[Wildcard]; e != nil && len(e.watchers) > 0 {
		return e
	}
	return nil
}

// entry is one resource. Everything is guarded by Client.mu.
type entry struct {
	ts       *typeState
	name     string
	watchers []*watch

	// resource is what is in force if held is true.
	resource any
	held     bool
	digest   digest
	version  string

	state   State
	updated time.Time
	// err is what is wrong with the resource, the connection apart.
	err             error
	rejectedVersion string
	rejections      int
	// reported is the text of the latest rejection that hooks were told.
	reported string
	// omitted is set if a response that lists all there is did not have it, while
	// it is awaited.
	omitted bool

	// told is the text of the error that the watchers heard last, "" if they
	// believe that all is well. offline is true if it was the connection's.
	told    string
	offline bool

	timer  *alarm // does-not-exist
	expiry *alarm // time to live
}

// releaseLocked forgets an entry that nobody needs.
func (c *Client) releaseLocked(e *entry) {
	ts := e.ts
	if len(e.watchers) > 0 {
		return
	}
	if e.name == Wildcard {
		for _, other := range ts.entries {
			if other != e && len(other.watchers) == 0 {
				c.forgetLocked(other)
			}
		}
	} else if e.held && ts.wildcardLocked() != nil {
		return
	}
	c.forgetLocked(e)
	if len(ts.entries) == 0 {
		// Nothing of the server's version is held any more.
		ts.version = ""
	}
}

func (c *Client) forgetLocked(e *entry) {
	e.timer.stopLocked(c)
	e.dropLocked(c)
	if e.ts.entries[e.name] == e {
		delete(e.ts.entries, e.name)
	}
}

// dropLocked lets go of the value.
func (e *entry) dropLocked(c *Client) {
	e.expiry.stopLocked(c)
	if e.held && e.ts.accepted[e.digest] == e {
		delete(e.ts.accepted, e.digest)
	}
	e.held, e.resource, e.digest, e.version = false, nil, digest{}, ""
}

// acceptLocked takes a valid version over. It reports whether it was new.
func (c *Client) acceptLocked(e *entry, it *item) (changed bool) {
	changed = !e.held || e.digest != it.digest
	e.timer.stopLocked(c)
	c.setTTLLocked(e, it)
	e.state, e.err = StateAcked, nil
	e.rejectedVersion, e.reported = "", ""
	e.version = it.version
	if changed {
		if e.held {
			delete(e.ts.accepted, e.digest)
		}
		e.held, e.digest, e.resource, e.updated = true, it.digest, it.value, time.Now()
		e.ts.accepted[e.digest] = e
		if hook := c.hooks.ResourceAccepted; hook != nil {
			event := observe.ResourceEvent{Server: c.server.Name, Type: e.ts.Name, Name: e.name, Version: e.version}
			c.serial.add(func() { hook(event) })
		}
	}
	if changed || e.told != "" {
		c.tellChangedLocked(e)
	}
	return changed
}

// setTTLLocked lets the resource expire as the version says.
func (c *Client) setTTLLocked(e *entry, it *item) {
	e.expiry.stopLocked(c)
	e.expiry = nil
	if it.ttl > 0 {
		ttl := it.ttl
		e.expiry = c.alarmLocked(ttl, func() {
			e.dropLocked(c)
			e.state, e.updated = StateDoesNotExist, time.Now()
			e.err = e.wrap(fmt.Errorf("%w: its time to live of %v is over", discovery.ErrNotFound, ttl))
			c.tellErrorLocked(e, e.err)
			c.releaseLocked(e)
		})
	}
}

// rejectLocked notes an invalid version.
func (c *Client) rejectLocked(e *entry, version string, reason error) {
	e.timer.stopLocked(c)
	e.rejections++
	e.rejectedVersion = version
	e.state = StateNacked
	e.err = e.wrap(fmt.Errorf("version %q is rejected: %w", version, reason))
	text := reason.Error()
	if text == e.reported {
		return
	}
	e.reported = text
	e.updated = time.Now()
	if c.server.FailOnDataErrors {
		e.dropLocked(c)
	}
	if hook := c.hooks.ResourceRejected; hook != nil {
		event := observe.ResourceEvent{Server: c.server.Name, Type: e.ts.Name, Name: e.name, Version: version, Err: e.err}
		c.serial.add(func() { hook(event) })
	}
	c.tellErrorLocked(e, e.err)
}

// removeLocked notes that the server has no such resource.
func (c *Client) removeLocked(e *entry) {
	e.timer.stopLocked(c)
	if len(e.watchers) == 0 {
		// Known by the wildcard alone: nobody uses it by name.
		e.err = e.wrap(fmt.Errorf("%w: removed by xDS server %q", discovery.ErrNotFound, c.server.Name))
		e.dropLocked(c)
		c.tellErrorLocked(e, e.err)
		c.releaseLocked(e)
		return
	}
	e.updated = time.Now()
	e.state, e.reported = StateDoesNotExist, ""
	switch {
	case !e.held:
		e.err = e.wrap(fmt.Errorf("%w: xDS server %q says that it does not exist", discovery.ErrNotFound, c.server.Name))
	case c.server.FailOnDataErrors:
		e.err = e.wrap(fmt.Errorf("%w: removed by xDS server %q", discovery.ErrNotFound, c.server.Name))
		e.dropLocked(c)
	default:
		e.err = e.wrap(fmt.Errorf("%w: removed by xDS server %q, its last version stays in force", discovery.ErrNotFound, c.server.Name))
	}
	c.tellErrorLocked(e, e.err)
}

// awaitLocked starts the timer of a resource that was asked for on a live
// stream and has never been answered for.
func (c *Client) awaitLocked(e *entry) {
	if e.name == Wildcard || e.held || e.state != StateRequested || e.timer.setLocked() {
		return
	}
	wait := absenceTimeout
	if c.server.ResourceTimerIsTransientError {
		wait = absenceTimeoutTransient
	}
	e.omitted = false
	e.timer = c.alarmLocked(wait, func() {
		e.updated = time.Now()
		switch {
		case e.ts.unnamed != nil:
			// The answer may have been among what could not be read. That it
			// does not exist must not be concluded from a rejected response.
			e.state = StateNacked
			e.err = e.wrap(e.ts.unnamed)
		case c.server.ResourceTimerIsTransientError:
			e.state = StateTimeout
			e.err = e.wrap(fmt.Errorf("xDS server %q did not answer within %v", c.server.Name, wait))
		case e.omitted:
			e.state = StateDoesNotExist
			e.err = e.wrap(fmt.Errorf("%w: xDS server %q lists the others and did not answer within %v",
				discovery.ErrNotFound, c.server.Name, wait))
		default:
			e.state = StateDoesNotExist
			e.err = e.wrap(unanswered{fmt.Errorf("%w: xDS server %q did not answer within %v", discovery.ErrNotFound, c.server.Name, wait)})
		}
		c.tellErrorLocked(e, e.err)
	})
}

func (e *entry) wrap(err error) error { return &Error{Type: e.ts.Name, Name: e.name, Err: err} }
