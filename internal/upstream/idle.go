package upstream

import (
	"slices"
	"time"
)

// idleCheckInterval is how long an idle HTTP/1.1 connection that its peer has
// closed may go unnoticed. Nobody reads from it meanwhile; before it is used
// again it is looked at anyway.
const idleCheckInterval = time.Second

// checkIdleLaterLocked sees to it that idle connections are looked at.
func (p *pool) checkIdleLaterLocked() {
	if p.checking == nil && !p.ended {
		p.checking = time.AfterFunc(idleCheckInterval, p.checkIdle)
	}
}

func (p *pool) stopCheckingLocked() {
	if p.checking != nil {
		p.checking.Stop()
		p.checking = nil
	}
}

// checkIdle looks at the idle connections, and will again while there are any.
func (p *pool) checkIdle() {
	p.mu.Lock()
	p.checking = nil
	idle := slices.Clone(p.idle)
	p.mu.Unlock()
	for _, c := range idle {
		c.cc.check() // runs the connection's hook, which takes the lock
	}
	p.mu.Lock()
	if len(p.idle) > 0 {
		p.checkIdleLaterLocked()
	}
	p.mu.Unlock()
}
