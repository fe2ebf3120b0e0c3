package ads

import (
	"errors"
	"fmt"
	"slices"
)

// authority is the servers for some of the names (gRFC A47), in order of
// preference, and which of them are in use (gRFC A71). All of it is guarded by
// Client.mu, but for what never changes.
type authority struct {
	// links never changes and is not empty.
	links []*link
	// active is the index of the last server in use. Those before it have
	// failed, and are tried until one of them returns.
	active int
	// watches is how many are not cancelled.
	watches int
	// kept is how many resources are kept without a watch, see [Client.keepLocked].
	kept int
	// known is how many entries there are of each type.
	known map[*typeState]int
}

func newAuthority(links []*link) *authority {
	return &authority{links: links, known: make(map[*typeState]int)}
}

// inUseLocked returns the servers that are asked.
func (a *authority) inUseLocked() []*link { return a.links[:a.active+1] }

// usesLocked reports whether a server is asked for the names of the authority.
func (a *authority) usesLocked(l *link) bool { return slices.Contains(a.inUseLocked(), l) }

// poke makes the goroutines of all its servers look at the watches.
func (a *authority) poke() {
	for _, l := range a.links {
		l.poke()
	}
}

// offlineLocked returns why no server in use can be reached, nil if one can, or
// has not been tried yet.
func (a *authority) offlineLocked() error {
	var reasons error
	for _, l := range a.inUseLocked() {
		switch {
		case l.connErr == nil:
			return nil
		case reasons == nil:
			reasons = l.connErr
		default:
			reasons = fmt.Errorf("%w; %w", reasons, l.connErr)
		}
	}
	return reasons
}

// fallBackLocked adds the next server if none in use can be reached and
// something is wanted that nobody has answered for (gRFC A71). While everything
// is cached there is no need to.
func (c *Client) fallBackLocked(a *authority) {
	for a.active+1 < len(a.links) && a.offlineLocked() != nil && c.lacksLocked(a) {
		failed := a.links[a.active]
		a.active++
		next := a.links[a.active]
		// The failed server will be asked for everything when it is back: the
		// first resource that it sends is how it is known that it can serve.
		failed.forgetVersionsLocked()
		c.serial.add(func() {
			c.logger.Warn("xDS server cannot be reached, falling back to the next one",
				"xds_server", failed.server.Name, "next", next.server.Name)
		})
		for _, ts := range c.order {
			if a.known[ts] == 0 {
				continue
			}
			lt := next.typeLocked(ts)
			for name, e := range ts.entries {
				if e.authority == a {
					lt.pending[name] = struct{}{}
				}
			}
		}
		next.poke()
	}
}

// lacksLocked reports whether a watched resource of the authority was never
// answered for.
func (c *Client) lacksLocked(a *authority) bool {
	for _, ts := range c.order {
		if a.known[ts] == 0 {
			continue
		}
		for _, e := range ts.entries {
			if e.authority == a && e.lackingLocked() {
				return true
			}
		}
	}
	return false
}

func (e *entry) lackingLocked() bool {
	return len(e.watchers) > 0 && !e.held && (e.state == StateRequested || e.state == StateTimeout) &&
		(!e.collective() || !e.shown)
}

// returnLocked notes that a server has sent a resource of the authority. If it
// is preferred to others in use, these are not needed any more.
func (c *Client) returnLocked(a *authority, l *link) {
	index := slices.Index(a.links, l)
	if index < 0 || index >= a.active {
		return
	}
	left := a.links[index+1 : a.active+1]
	a.active = index
	c.serial.add(func() { c.logger.Info("xDS server is back, leaving the next ones", "xds_server", l.server.Name) })
	for _, other := range left {
		if !c.usedLocked(other) {
			other.connErr = nil
			other.forgetVersionsLocked()
		}
		for _, lt := range other.order {
			for name, e := range lt.entries {
				if e.authority == a {
					lt.pending[name] = struct{}{}
				}
			}
		}
		other.poke()
	}
	for _, ts := range c.order {
		for _, e := range ts.entries {
			if e.authority == a {
				c.onlineLocked(e)
				c.awaitAnyLocked(e)
			}
		}
	}
}

// usedLocked reports whether any authority asks a server.
func (c *Client) usedLocked(l *link) bool {
	return slices.ContainsFunc(l.authorities, func(a *authority) bool { return a.usesLocked(l) })
}

// markLocked makes the servers in use hear of a change of the watches of e.
func (e *entry) markLocked() {
	for _, l := range e.authority.inUseLocked() {
		l.typeLocked(e.ts).pending[e.name] = struct{}{}
	}
}

// resolve finds out whom to ask for a name.
func (c *Client) resolve(ts *typeState, name string) (resourceName, *authority, error) {
	parsed, err := parseName(name)
	if err == nil {
		err = parsed.check(&ts.Type)
	}
	if err != nil {
		return parsed, nil, err
	}
	a := c.authorityOf(&parsed)
	if a == nil {
		return parsed, nil, fmt.Errorf("the bootstrap has no authority %q", parsed.authority)
	}
	return parsed, a, nil
}

// authorityOf returns the authority of a name, nil if it is not configured.
func (c *Client) authorityOf(n *resourceName) *authority {
	if n.federated {
		return c.authorities[n.authority]
	}
	return c.home
}

// errNoCollections is what becomes of a collection at a server of the state of
// the world (xDS TP1).
var errNoCollections = errors.New("collections of resources need the delta variant, which the server does not speak")
