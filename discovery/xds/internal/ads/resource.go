package ads

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/slim"
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

// typeState is the cache of one type. All of it is guarded by Client.mu.
type typeState struct {
	Type
	// node is the id of the client's node, for errors.
	node string
	// entries are the resources that are watched or, as part of a collection,
	// known; and the collections.
	entries map[string]*entry
	// accepted finds what is held by its bytes, so that a repetition costs no
	// decoding.
	accepted map[digest]*entry
	// mostEntries and mostAccepted are how many there were, see [slim.Fit].
	mostEntries, mostAccepted int
	// globs is how many of the entries are collections with an xdstp: name.
	globs int
}

func newTypeState(t Type, node string) *typeState {
	return &typeState{
		Type:     t,
		node:     node,
		entries:  make(map[string]*entry),
		accepted: make(map[digest]*entry),
	}
}

// addLocked adds an entry for a name.
func (ts *typeState) addLocked(n *resourceName, a *authority) *entry {
	e := &entry{ts: ts, authority: a, name: n.canonical, glob: n.glob, collection: n.collection, updated: time.Now()}
	ts.entries[e.name] = e
	a.known[ts]++
	if e.collection {
		ts.globs++
	}
	return e
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
	// mostSent is how many there were, see [slim.Fit].
	mostSent int
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
	// due is when it may be sent. Only the last one of a type may have to wait.
	due time.Time
}

// collectionsLocked returns the watched collections that a name is part of: the
// wildcard for names without an authority, and the glob collection of an xdstp:
// name.
func (ts *typeState) collectionsLocked(name string) []*entry {
	collection := Wildcard
	switch {
	case name == Wildcard:
		return nil
	case strings.HasPrefix(name, scheme):
		if ts.globs == 0 {
			return nil
		}
		parsed, err := parseName(name)
		if err != nil || parsed.collection {
			return nil
		}
		collection = parsed.glob
	}
	if e := ts.entries[collection]; e != nil && len(e.watchers) > 0 {
		return []*entry{e}
	}
	return nil
}

// entry is one resource. Everything is guarded by Client.mu.
type entry struct {
	ts        *typeState
	authority *authority
	name      string
	// glob is the collection that an xdstp: name is part of, "" for others.
	glob string
	// collection is true for a glob collection.
	collection bool
	watchers   []*watch

	// resource is what is in force if held is true, and source who sent it.
	resource any
	held     bool
	source   *link
	raw      []byte // what resource was decoded from
	digest   digest
	version  string

	state   State
	updated time.Time
	// err is what is wrong with the resource, the connection apart.
	err             error
	failed          time.Time // when err came
	rejectedVersion string
	rejectedRaw     []byte
	rejections      int
	// reported is the text of the latest rejection that hooks were told.
	reported string
	// omittedBy is the server that listed all there is without it, since it was
	// asked for it. The list may come before the timer of the request is set.
	omittedBy *link

	// told is the text of the error that the watchers heard last, "" if they
	// believe that all is well. offline is true if it was the connection's.
	told    string
	offline bool

	// shown is true for a collection that has shown a resource.
	shown bool

	timer  *alarm // does-not-exist
	awaits *link  // the server whose answer timer is for
	expiry *alarm // time to live
}

// collective reports whether the entry stands for others.
func (e *entry) collective() bool { return e.collection || e.name == Wildcard }

// collectionsLocked returns the watched collections that the entry is part of.
func (e *entry) collectionsLocked() []*entry {
	name := e.glob
	switch {
	case e.collective():
		return nil
	case name == "":
		name = Wildcard
	}
	if all := e.ts.entries[name]; all != nil && len(all.watchers) > 0 {
		return []*entry{all}
	}
	return nil
}

// releaseLocked forgets an entry that nobody needs.
func (c *Client) releaseLocked(e *entry) {
	ts := e.ts
	if len(e.watchers) > 0 || e.toldOfLocked() {
		return
	}
	if e.collective() {
		for _, other := range ts.entries {
			if other != e && len(other.watchers) == 0 && len(other.collectionsLocked()) == 0 && !other.toldOfLocked() && !c.keepLocked(other) {
				c.forgetLocked(other)
			}
		}
	} else if e.held && len(e.collectionsLocked()) > 0 {
		return
	}
	if !c.keepLocked(e) {
		c.forgetLocked(e)
	}
}

// toldOfLocked reports whether a server believes that the entry is wanted, or
// is about to hear of a change.
func (e *entry) toldOfLocked() bool {
	for _, l := range e.authority.inUseLocked() {
		if l.stream == nil {
			continue
		}
		if lt := l.types[e.ts]; lt != nil {
			_, pending := lt.pending[e.name]
			_, sent := lt.sub.sent[e.name]
			if pending || sent {
				return true
			}
		}
	}
	return false
}

func (c *Client) forgetLocked(e *entry) {
	e.timer.stopLocked(c)
	c.unkeepLocked(e)
	e.dropLocked(c)
	if e.ts.entries[e.name] != e {
		return
	}
	delete(e.ts.entries, e.name)
	e.ts.entries = slim.Fit(e.ts.entries, &e.ts.mostEntries)
	if e.collection {
		e.ts.globs--
	}
	if e.authority.known[e.ts]--; e.authority.known[e.ts] == 0 {
		for _, l := range e.authority.links {
			// Nothing of the server's version is held any more.
			if lt := l.types[e.ts]; lt != nil && !l.knownLocked(e.ts) {
				lt.version = ""
			}
		}
	}
}

// knownLocked reports whether there are entries of a type that the server may
// be asked for.
func (l *link) knownLocked(ts *typeState) bool {
	return slices.ContainsFunc(l.authorities, func(a *authority) bool { return a.known[ts] > 0 })
}

// dropLocked lets go of the value.
func (e *entry) dropLocked(c *Client) {
	e.expiry.stopLocked(c)
	e.expiry = nil
	if e.held && e.ts.accepted[e.digest] == e {
		delete(e.ts.accepted, e.digest)
		e.ts.accepted = slim.Fit(e.ts.accepted, &e.ts.mostAccepted)
	}
	e.held, e.resource, e.source, e.raw, e.digest, e.version = false, nil, nil, nil, digest{}, ""
}

// acceptLocked takes a valid version over. It reports whether it was new.
func (c *Client) acceptLocked(e *entry, l *link, it *item) (changed bool) {
	c.returnLocked(e.authority, l)
	changed = !e.held || e.digest != it.digest
	e.timer.stopLocked(c)
	c.setTTLLocked(e, it)
	e.state, e.err = StateAcked, nil
	e.rejectedVersion, e.rejectedRaw, e.reported = "", nil, ""
	if e.held && e.source != l && c.moved != nil {
		c.serial.add(c.moved)
	}
	e.version, e.source = it.version, l
	for _, all := range e.collectionsLocked() {
		all.shown, all.state, all.err, all.told = true, StateAcked, nil, ""
		all.timer.stopLocked(c)
	}
	if changed {
		if e.held {
			delete(e.ts.accepted, e.digest)
		}
		e.held, e.digest, e.resource, e.raw, e.updated = true, it.digest, it.value, it.raw, time.Now()
		e.ts.accepted[e.digest] = e
		if hook := c.hooks.ResourceAccepted; hook != nil {
			event := observe.ResourceEvent{Server: l.server.Name, Type: e.ts.Name, Name: e.name, Version: e.version}
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
	had := e.expiry != nil
	e.expiry.stopLocked(c)
	e.expiry = nil
	if it.ttl > 0 {
		ttl := it.ttl
		e.expiry = c.alarmLocked(ttl, func() {
			e.dropLocked(c)
			e.state, e.updated = StateDoesNotExist, time.Now()
			e.failed = e.updated
			e.err = e.wrap(fmt.Errorf("%w: its time to live of %v is over", discovery.ErrNotFound, ttl))
			c.tellErrorLocked(e, e.err)
			c.releaseLocked(e)
		})
	}
	if had != (e.expiry != nil) {
		c.tellExpiryLocked(e)
	}
}

// maxRejectedKept bounds the bytes that are kept of what was rejected.
const maxRejectedKept = 1 << 20

// rejectLocked notes an invalid version.
func (c *Client) rejectLocked(e *entry, l *link, it *item, reason error) {
	version := it.version
	e.timer.stopLocked(c)
	e.rejections++
	e.rejectedVersion, e.rejectedRaw, e.failed = version, nil, time.Now()
	if len(it.raw) <= maxRejectedKept {
		e.rejectedRaw = it.raw
	}
	e.state = StateNacked
	e.err = e.wrap(fmt.Errorf("version %q is rejected: %w", version, reason))
	text := reason.Error()
	if text == e.reported {
		return
	}
	e.reported = text
	e.updated = time.Now()
	if l.maySayLocked(e) && l.server.FailOnDataErrors {
		e.dropLocked(c)
	}
	if hook := c.hooks.ResourceRejected; hook != nil {
		// Without the node: whoever observes has it, and what many processes say is one text.
		plain := &Error{Type: e.ts.Name, Name: e.name, Err: errors.Unwrap(e.err)}
		event := observe.ResourceEvent{Server: l.server.Name, Type: e.ts.Name, Name: e.name, Version: version, Err: plain}
		c.serial.add(func() { hook(event) })
	}
	c.tellErrorLocked(e, e.err)
}

// removeLocked notes that the server has no such resource.
func (c *Client) removeLocked(e *entry, l *link) {
	e.timer.stopLocked(c)
	if len(e.watchers) == 0 {
		// Known by a collection alone: nobody uses it by name.
		e.err = e.wrap(fmt.Errorf("%w: removed by xDS server %q", discovery.ErrNotFound, l.server.Name))
		e.dropLocked(c)
		c.tellErrorLocked(e, e.err)
		c.releaseLocked(e)
		return
	}
	e.updated = time.Now()
	e.failed = e.updated
	e.state, e.reported = StateDoesNotExist, ""
	switch {
	case !e.held:
		e.err = e.wrap(fmt.Errorf("%w: xDS server %q says that it does not exist", discovery.ErrNotFound, l.server.Name))
	case l.server.FailOnDataErrors:
		e.err = e.wrap(fmt.Errorf("%w: removed by xDS server %q", discovery.ErrNotFound, l.server.Name))
		e.dropLocked(c)
	default:
		e.err = e.wrap(fmt.Errorf("%w: removed by xDS server %q, its last version stays in force", discovery.ErrNotFound, l.server.Name))
	}
	c.tellErrorLocked(e, e.err)
}

// omittedLocked notes that a preferred server, which is back, lists all there is
// without what is in force from another one. It may not have been asked for that yet
// when it wrote the list (gRFC A71): if it has nothing to say of it for as long as it
// may take for a first answer, it has none.
func (c *Client) omittedLocked(e *entry, l *link) {
	if !l.maySayLocked(e) || !e.authority.usesLocked(l) || e.state == StateDoesNotExist || e.timer.setLocked() {
		return
	}
	e.awaits = l
	e.timer = c.alarmLocked(absenceTimeout, func() {
		if e.held && e.source != l && e.authority.usesLocked(l) {
			c.removeLocked(e, l)
		}
	})
}

// maySayLocked reports whether a server may take away what is in force: it sent
// it, or is preferred to the one that did.
func (l *link) maySayLocked(e *entry) bool {
	links := e.authority.links
	return !e.held || slices.Index(links, l) <= slices.Index(links, e.source)
}

// awaitLocked starts the timer of a resource that was asked for on a live
// stream and has never been answered for.
func (c *Client) awaitLocked(e *entry, lt *linkType) {
	if e.name == Wildcard || e.held || e.shown || e.state != StateRequested || e.timer.setLocked() {
		return
	}
	server := &lt.link.server
	wait := absenceTimeout
	if server.ResourceTimerIsTransientError {
		wait = absenceTimeoutTransient
	}
	e.awaits = lt.link
	e.timer = c.alarmLocked(wait, func() {
		e.updated = time.Now()
		e.failed = e.updated
		switch {
		case lt.unnamed != nil:
			// The answer may have been among what could not be read. That it
			// does not exist must not be concluded from a rejected response.
			e.state = StateNacked
			e.err = e.wrap(lt.unnamed)
		case server.ResourceTimerIsTransientError:
			e.state = StateTimeout
			e.err = e.wrap(marked{fmt.Errorf("xDS server %q did not answer within %v", server.Name, wait), ErrTransient})
		case e.omittedBy == lt.link:
			e.state = StateDoesNotExist
			e.err = e.wrap(fmt.Errorf("%w: xDS server %q lists the others and did not answer within %v",
				discovery.ErrNotFound, server.Name, wait))
		default:
			e.state = StateDoesNotExist
			e.err = e.wrap(marked{fmt.Errorf("%w: xDS server %q did not answer within %v", discovery.ErrNotFound, server.Name, wait), ErrUnanswered})
		}
		c.tellErrorLocked(e, e.err)
	})
}

// awaitAnyLocked starts the timer again if another server was asked as well.
func (c *Client) awaitAnyLocked(e *entry) {
	for _, l := range e.authority.inUseLocked() {
		if lt := l.types[e.ts]; lt != nil && l.stream != nil {
			if _, told := lt.sub.sent[e.name]; told {
				c.awaitLocked(e, lt)
			}
		}
	}
}

func (e *entry) wrap(err error) error {
	return &Error{Type: e.ts.Name, Name: e.name, Err: err, Node: e.ts.node}
}
