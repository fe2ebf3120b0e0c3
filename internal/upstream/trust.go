package upstream

import (
	"maps"
	"slices"
	"time"
)

// trustCheck is for how long at most a connection that no call asks for outlives the trust
// in its peer: one that is idle, or that an upgrade took over.
const trustCheck = 5 * time.Second

// tookOver looks after a connection that an upgrade took over.
func (m *Manager) tookOver(c *conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c.upgraded = true
	m.watchLocked()
}

// watchLocked starts to look after the connections that no call asks for, unless
// somebody does.
func (m *Manager) watchLocked() {
	if !m.checking && !m.closed {
		m.checking = true
		m.wg.Go(m.checkTrust)
	}
}

// checkTrust closes what would not be made any more. It ends with the last connection
// that could be such a one, or with the manager.
func (m *Manager) checkTrust() {
	tick := time.NewTicker(trustCheck)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-m.ctx.Done():
			return
		}
		upgraded, pools := m.watched()
		if len(upgraded)+len(pools) == 0 {
			return
		}
		for _, c := range upgraded {
			if c.check(c.pool.endpoint) != nil {
				_ = c.raw.Close() // the application's reads and writes end with it
			}
		}
		for p := range pools {
			p.distrust()
		}
	}
}

// watched are the connections that upgrades took over, and the pools of those with TLS.
// Without any, the next one needs another round.
func (m *Manager) watched() (upgraded []*conn, pools map[*pool]struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	pools = make(map[*pool]struct{})
	for c := range m.conns {
		switch {
		case c.upgraded:
			upgraded = append(upgraded, c)
		case c.secured != nil:
			pools[c.pool] = struct{}{}
		}
	}
	m.checking = len(upgraded)+len(pools) > 0
	return upgraded, pools
}

// distrust lets the connections go that the next call would let go: those made under
// other settings or roots. What is under way over them ends where it is.
func (p *pool) distrust() {
	p.mu.Lock()
	conns := slices.Collect(maps.Keys(p.conns))
	p.mu.Unlock()
	for _, c := range conns {
		if p.endpoint.Distrusts(c.security) { // asks sources, hence without the lock
			p.mu.Lock()
			p.retireLocked(c)
			p.mu.Unlock()
		}
	}
}

// Distrusts reports whether the next call to the endpoint would not use a connection that
// was made under s. A source that has no identity at the moment has withdrawn nothing.
func (e *Endpoint) Distrusts(s Security) bool {
	t := e.cluster.state.Load().tlsOf(e)
	if t != nil && (t.own() == nil && t.identity != nil || t.rootsKey() == "") {
		return false
	}
	return !s.Same(t.security())
}
