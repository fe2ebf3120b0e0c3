package ads

import (
	"context"
	"fmt"
	"time"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
)

// handle decodes a response, takes over what is good in it and queues the
// answer.
func (c *Client) handle(ctx context.Context, r *response) error {
	ts := c.types[r.typeURL]
	if ts == nil || !c.started(ts) {
		c.logger.Debug("ignored an xDS response of a type that was not asked for", "type_url", r.typeURL)
		c.slowDown(ctx)
		return nil
	}
	answer, useful := c.apply(ts, r, c.decode(ts, r))
	if !useful {
		c.slowDown(ctx)
	}
	c.mu.Lock()
	ts.sub.nonce = r.nonce
	ts.sub.replies = append(ts.sub.replies, answer)
	waiting := len(ts.sub.replies)
	c.mu.Unlock()
	c.poke()
	if waiting > maxReplies {
		return errNotReading
	}
	return nil
}

// slowDown waits for its turn after a response that brought nothing.
func (c *Client) slowDown(ctx context.Context) {
	if err := c.useless.Wait(ctx); err != nil {
		// The stream is over; recv says why.
		c.logger.Debug("xDS stream ended while it was held back", "error", err)
	}
}

// started reports whether the type was asked for on the present stream.
func (c *Client) started(ts *typeState) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ts.sub.started
}

// apply changes the cache and queues what the watchers are told. useful is
// false if the response changed nothing.
func (c *Client) apply(ts *typeState, r *response, items []item) (answer reply, useful bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return reply{nonce: r.nonce}, true
	}
	rejected := &rejection{total: len(items)}
	present := make(map[string]struct{}, len(items))
	blamed := make(map[string]bool)
	for i := range items {
		it := &items[i]
		present[it.name] = struct{}{}
		err := it.err
		e := c.subjectLocked(ts, it)
		if e == nil && it.name != "" && !it.duplicate {
			continue // good or bad, nobody asked for it
		}
		if err == nil && it.heartbeat && e != nil {
			err = c.heartbeatLocked(e, it)
		}
		if err != nil {
			rejected.problems = append(rejected.problems, problem{index: it.index, name: it.name, err: err})
			if e != nil && !blamed[it.name] {
				blamed[it.name] = true
				c.rejectLocked(e, it.version, err)
			}
			continue
		}
		if e != nil && !it.heartbeat && c.acceptLocked(e, it) {
			useful = true
		}
	}
	for _, failure := range r.failed {
		name := failure.GetResourceName().GetName()
		present[name] = struct{}{}
		if e := ts.entries[name]; e != nil {
			c.failLocked(e, failure.GetErrorDetail())
		}
	}
	if len(rejected.problems) > 0 {
		// What is missing, or removed, in a rejected response says nothing.
		c.noteRejectionLocked(ts, r, rejected)
		return reply{version: ts.version, nonce: r.nonce, err: rejected}, useful
	}
	ts.unnamed, ts.rejected = nil, ""
	if c.removeAllLocked(ts, r, present) {
		useful = true
	}
	if len(ts.entries) > 0 {
		ts.version = r.version
	}
	return reply{version: r.version, nonce: r.nonce}, useful
}

// subjectLocked returns the entry that an item is about, nil if nobody asked
// for it. Under a wildcard everything is asked for.
func (c *Client) subjectLocked(ts *typeState, it *item) *entry {
	if it.name == "" || it.unasked || it.name == Wildcard {
		return nil
	}
	e := ts.entries[it.name]
	if e == nil && !it.heartbeat && ts.wildcardLocked() != nil {
		e = &entry{ts: ts, name: it.name, updated: time.Now()}
		ts.entries[it.name] = e
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

// failLocked notes the server's own error for a resource (xDS TP3, gRFC A88).
func (c *Client) failLocked(e *entry, reason *statuspb.Status) {
	code := codes.Code(reason.GetCode())
	err := fmt.Errorf("xDS server %q: %s (%v)", c.server.Name, reason.GetMessage(), code)
	switch code {
	case codes.NotFound:
		err = fmt.Errorf("%w: %w", discovery.ErrNotFound, err)
		fallthrough
	case codes.PermissionDenied:
		if c.server.FailOnDataErrors {
			e.dropLocked(c)
		}
	}
	e.timer.stopLocked(c)
	e.state, e.err, e.reported, e.updated = StateReceivedError, e.wrap(err), "", time.Now()
	c.tellErrorLocked(e, e.err)
}

// maxNamesLogged bounds the names in one log entry.
const maxNamesLogged = 10

// removeAllLocked removes what an accepted response says, by name or by
// omission, does not exist. It reports whether that changed anything.
func (c *Client) removeAllLocked(ts *typeState, r *response, present map[string]struct{}) bool {
	var removed []string
	for _, name := range r.removed {
		if _, ok := present[name]; ok || name == Wildcard {
			continue
		}
		if e := ts.entries[name]; e != nil && e.state != StateDoesNotExist {
			c.removeLocked(e)
			removed = append(removed, name)
		}
	}
	if r.sotw && ts.FullStateInSotW {
		for name, e := range ts.entries {
			if _, ok := present[name]; ok || name == Wildcard || e.state == StateDoesNotExist {
				continue
			}
			if !e.held && len(e.watchers) > 0 {
				// The server may not have known that it was asked for when it
				// wrote the response. Its timer decides.
				e.omitted = true
				continue
			}
			c.removeLocked(e)
			removed = append(removed, name)
		}
	}
	if len(removed) > 0 {
		c.serial.add(func() {
			c.logger.Info("xDS resources do not exist", "type", ts.Name, "version", r.version, "count", len(removed),
				"names", removed[:min(len(removed), maxNamesLogged)])
		})
	}
	return len(removed) > 0
}

// noteRejectionLocked reports each distinct rejection once.
func (c *Client) noteRejectionLocked(ts *typeState, r *response, rejected *rejection) {
	unnamed := &rejection{total: rejected.total}
	for _, p := range rejected.problems {
		if p.name == "" {
			unnamed.problems = append(unnamed.problems, p)
		}
	}
	ts.unnamed = nil
	if len(unnamed.problems) > 0 {
		ts.unnamed = unnamed
	}
	text := rejected.Error()
	if text == ts.rejected {
		return
	}
	ts.rejected = text
	c.serial.add(func() {
		c.logger.Warn("xDS response rejected", "type", ts.Name, "version", r.version, "error", text)
	})
	if hook := c.hooks.ResourceRejected; hook != nil && ts.unnamed != nil {
		event := observe.ResourceEvent{Server: c.server.Name, Type: ts.Name, Version: r.version, Err: unnamed}
		c.serial.add(func() { hook(event) })
	}
}
