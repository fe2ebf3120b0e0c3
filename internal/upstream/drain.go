package upstream

// drain closes idle connections now and the others when their calls end. Calls
// that still come are served by connections that are closed behind them.
func (p *pool) drain() {
	p.mu.Lock()
	p.draining = true
	for c := range p.conns {
		p.retireLocked(c)
	}
	p.expiry.stop()
	p.stopCheckingLocked()
	p.mu.Unlock()
}

// leftLocked follows when somebody does not wait any more. Behind the last one the
// connections of a pool that drains go, of which those had no room that are idle.
func (p *pool) leftLocked() {
	if p.draining && len(p.waiters) == 0 {
		for c := range p.conns {
			p.retireLocked(c)
		}
	}
}
