package ads

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
)

// handle decodes a response, takes over what is good in it and queues the
// answer.
func (l *link) handle(ctx context.Context, r *response) error {
	c := l.client
	begun := time.Now()
	lt := l.started(r.typeURL)
	if lt == nil {
		l.logger.Debug("ignored an xDS response of a type that was not asked for", "type_url", r.typeURL)
		rest(ctx, begun)
		return nil
	}
	answer, news := l.apply(lt, r, l.decode(lt, r))
	c.mu.Lock()
	lt.sub.nonce = r.nonce
	lt.answerLocked(answer, news)
	waiting := len(lt.sub.replies)
	c.mu.Unlock()
	l.poke()
	switch news {
	case nothing:
		rest(ctx, begun)
	case newReason:
		l.slowDown(ctx)
	case change:
	}
	if waiting > maxReplies {
		return errNotReading
	}
	return nil
}

// rest waits for as long as a response took that brought nothing: however fast they
// come, half of a processor is left, and what stands behind them is not late by more
// than the work that they are.
func rest(ctx context.Context, begun time.Time) { sleep(ctx, time.Since(begun)) }

// slowDown waits for the turn of a response that was rejected.
func (l *link) slowDown(ctx context.Context) {
	if err := l.rejected.Wait(ctx); err != nil {
		// The stream is over; recv says why.
		l.logger.Debug("xDS stream ended while it was held back", "error", err)
	}
}

// started returns a type if it was asked for on the present stream, else nil.
func (l *link) started(typeURL string) *linkType {
	l.client.mu.Lock()
	defer l.client.mu.Unlock()
	if lt := l.types[l.client.types[typeURL]]; lt != nil && lt.sub.started {
		return lt
	}
	return nil
}

// news is what a response brought.
type news uint8

const (
	nothing   news = iota
	newReason      // it is rejected, and is not the one that was rejected last
	change         // of the cache
)

// apply changes the cache and queues what the watchers are told.
func (l *link) apply(lt *linkType, r *response, items []item) (answer reply, brought news) {
	c := l.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return reply{nonce: r.nonce}, change
	}
	rejected := &rejection{total: len(items)}
	present := make(map[string]struct{}, len(items))
	blamed := make(map[string]bool)
	for i := range items {
		if i%yieldAfter == yieldAfter-1 {
			runtime.Gosched() // no call needs the lock
		}
		it := &items[i]
		present[it.name] = struct{}{}
		err := it.err
		e := c.subjectLocked(lt, it)
		if e == nil && it.name != "" && !it.duplicate {
			continue // good or bad, nobody asked for it
		}
		if err == nil && it.heartbeat && e != nil {
			err = c.heartbeatLocked(e, it)
		}
		if err != nil {
			rejected.problems = append(rejected.problems, problem{index: it.index, name: it.name, err: err, digest: it.digest})
			if e != nil && !blamed[it.name] {
				blamed[it.name] = true
				c.rejectLocked(e, l, it, err)
			}
			continue
		}
		if e != nil && !it.heartbeat && c.acceptLocked(e, l, it) {
			brought = change
		}
	}
	for _, failure := range r.failed {
		name := Canonical(failure.GetResourceName().GetName())
		present[name] = struct{}{}
		if e := lt.entries[name]; e != nil && e.authority.usesLocked(l) {
			c.serverFailedLocked(e, l, failure.GetErrorDetail())
		}
	}
	if len(rejected.problems) > 0 {
		// What is missing, or removed, in a rejected response says nothing.
		c.noteRejectionLocked(lt, r, rejected)
		if bytes := rejected.digest(); bytes != lt.rejectedBytes {
			lt.rejectedBytes = bytes
			brought = max(brought, newReason)
		}
		return reply{version: lt.version, nonce: r.nonce, err: rejected}, brought
	}
	lt.unnamed, lt.rejected, lt.rejectedBytes = nil, "", digest{}
	if c.removeAllLocked(lt, r, present) {
		brought = change
	}
	if l.knownLocked(lt.typeState) && c.usedLocked(l) {
		lt.version = r.version
	}
	return reply{version: r.version, nonce: r.nonce}, brought
}

// subjectLocked returns the entry that an item is about, nil if nobody asked
// for it, or nobody asks this server any more. Everything in a watched
// collection is asked for.
func (c *Client) subjectLocked(lt *linkType, it *item) *entry {
	if it.name == "" || it.unasked || it.name == Wildcard {
		return nil
	}
	e := lt.entries[it.name]
	if e == nil && !it.heartbeat && len(lt.collectionsLocked(it.name)) > 0 {
		if parsed, a, err := c.resolve(lt.typeState, it.name); err == nil && a.usesLocked(lt.link) {
			e = lt.addLocked(&parsed, a)
		}
	}
	if e == nil || e.collective() || !e.authority.usesLocked(lt.link) {
		return nil
	}
	return e
}

// heartbeatLocked extends the time to live of what is held.
func (c *Client) heartbeatLocked(e *entry, it *item) error {
	if !e.held {
		return nil
	}
	if it.version != e.version {
		return fmt.Errorf("resource: not set, and version %q is not the one in force (%q)", it.version, e.version)
	}
	c.setTTLLocked(e, it)
	return nil
}

// serverFailedLocked notes the server's own error for a resource (xDS TP3, gRFC
// A88).
func (c *Client) serverFailedLocked(e *entry, l *link, reason *statuspb.Status) {
	code := codes.Code(reason.GetCode())
	err := fmt.Errorf("xDS server %q: %s (%v)", l.server.Name, reason.GetMessage(), code)
	switch code {
	case codes.NotFound:
		err = fmt.Errorf("%w: %w", discovery.ErrNotFound, err)
	case codes.PermissionDenied:
		err = marked{err, ErrRefused}
	default:
		err = marked{err, ErrTransient}
	}
	if !errors.Is(err, ErrTransient) && l.maySayLocked(e) && l.server.FailOnDataErrors {
		e.dropLocked(c)
	}
	c.failLocked(e, err)
}

// failLocked notes an error that is not of a version.
func (c *Client) failLocked(e *entry, err error) {
	e.timer.stopLocked(c)
	e.state, e.err, e.reported, e.updated = StateReceivedError, e.wrap(err), "", time.Now()
	e.failed = e.updated
	c.tellErrorLocked(e, e.err)
}

// How many names, and how much of a reason, one log entry has.
const (
	maxNamesLogged  = 10
	maxReasonLogged = 4 << 10
)

// removeAllLocked removes what an accepted response says, by name or by
// omission, does not exist. It reports whether that changed anything.
func (c *Client) removeAllLocked(lt *linkType, r *response, present map[string]struct{}) bool {
	var removed []string
	remove := func(e *entry) {
		if e.state != StateDoesNotExist && e.authority.usesLocked(lt.link) && lt.link.maySayLocked(e) {
			c.removeLocked(e, lt.link)
			removed = append(removed, e.name)
		}
	}
	for _, name := range r.removed {
		name = Canonical(name)
		e := lt.entries[name]
		if _, ok := present[name]; ok || name == Wildcard || e == nil || !e.authority.usesLocked(lt.link) {
			continue
		}
		if e.collection {
			// There is nothing in it (xDS TP1).
			e.shown = false
			for _, other := range lt.entries {
				if _, ok := present[other.name]; !ok && other.glob == e.name {
					remove(other)
				}
			}
		}
		remove(e)
	}
	if r.sotw && lt.FullStateInSotW {
		for name, e := range lt.entries {
			if _, ok := present[name]; ok || e.collective() {
				continue
			}
			switch {
			case !e.held && len(e.watchers) > 0:
				// The server may not have known that it was asked for when it
				// wrote the response. Its timer decides.
				e.omittedBy = lt.link
			case e.held && e.source != lt.link && len(e.watchers) > 0:
				c.omittedLocked(e, lt.link) // nor of what another one has sent meanwhile
			default:
				remove(e)
			}
		}
	}
	if len(removed) > 0 {
		c.serial.add(func() {
			lt.link.logger.Info("xDS resources do not exist", "type", lt.Name, "version", r.version, "count", len(removed),
				"names", removed[:min(len(removed), maxNamesLogged)])
		})
	}
	return len(removed) > 0
}

// noteRejectionLocked reports each distinct rejection once.
func (c *Client) noteRejectionLocked(lt *linkType, r *response, rejected *rejection) {
	unnamed := &rejection{total: rejected.total}
	for _, p := range rejected.problems {
		if p.name == "" {
			unnamed.problems = append(unnamed.problems, p)
		}
	}
	lt.unnamed = nil
	if len(unnamed.problems) > 0 {
		lt.unnamed = unnamed
	}
	text := rejected.Error()
	if text == lt.rejected {
		return
	}
	lt.rejected = text
	logged := clip(text, maxReasonLogged)
	c.serial.add(func() {
		lt.link.logger.Warn("xDS response rejected", "type", lt.Name, "version", r.version, "error", logged)
	})
	if hook := c.hooks.ResourceRejected; hook != nil && lt.unnamed != nil {
		event := observe.ResourceEvent{Server: lt.link.server.Name, Type: lt.Name, Version: r.version, Err: unnamed}
		c.serial.add(func() { hook(event) })
	}
}
