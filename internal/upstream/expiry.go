package upstream

import "time"

// expiry is the timer of a pool that retires connections which were idle for
// too long or are too old.
type expiry struct {
	timer *time.Timer // nil if nothing is due
	at    time.Time   // when it fires
}

func (e *expiry) stop() {
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
}

// dueLocked is when a connection is to be retired as things are; zero means
// never.
func (p *pool) dueLocked(c *conn) time.Time {
	config := p.endpoint.cluster.Config()
	if config == nil || c.draining {
		return time.Time{}
	}
	due := c.expires
	if age := config.MaxConnectionDuration; age > 0 {
		if old := c.opened.Add(age); due.IsZero() || old.Before(due) {
			due = old
		}
	}
	if limit := config.IdleTimeout; limit > 0 && !c.idleSince.IsZero() && !c.busyLocked() {
		if idle := c.idleSince.Add(limit); due.IsZero() || idle.Before(due) {
			due = idle
		}
	}
	return due
}

// expireLaterLocked sees to it that a connection that has changed is retired in
// time. It looks at that one only, because every call gets here.
func (p *pool) expireLaterLocked(c *conn) {
	due := p.dueLocked(c)
	if due.IsZero() || p.ended || p.draining || p.expiry.timer != nil && !due.Before(p.expiry.at) {
		return
	}
	p.expiry.stop()
	p.expiry.at = due
	p.expiry.timer = time.AfterFunc(time.Until(due), p.expire)
}

// expire retires what is due and sets the timer for what will be.
func (p *pool) expire() {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expiry.stop()
	for c := range p.conns {
		due := p.dueLocked(c)
		if !due.IsZero() && !now.Before(due) {
			p.retireLocked(c)
			continue
		}
		p.expireLaterLocked(c)
	}
}

// reconfigure applies new limits and times to what waits and to what is open.
func (p *pool) reconfigure() {
	p.mu.Lock()
	p.dialMissingLocked()
	p.mu.Unlock()
	p.expire()
}
