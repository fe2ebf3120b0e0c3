package upstream

import "math"

// anticipateLocked makes connections for calls to come, if the cluster asks for
// that: as many as leave room for its ratio of the calls that run, are about to,
// and wait. As in Envoy it is asked by each call, so that an endpoint without calls
// gets none, and one that cannot be reached is not tried again for nobody.
func (p *pool) anticipateLocked() {
	config := p.endpoint.cluster.Config()
	if config == nil || config.PreconnectRatio <= 1 || p.ended || p.draining {
		return
	}
	running, room := 0, 0
	for c := range p.conns {
		if c.removed || c.cc.Err() != nil {
			continue
		}
		if c.http2 {
			running += max(c.promised, c.cc.InFlight())
		} else if c.busyLocked() {
			running++
		}
		if !c.draining {
			room += max(c.cc.Available()-c.promised, 0)
		}
	}
	want := int(math.Ceil(float64(running+len(p.waiters))*config.PreconnectRatio)) - running - room
	if p.key.protocol != wireHTTP1 {
		want = max(p.missingLocked(), min(want, 1)) // one HTTP/2 connection serves many
	}
	for p.dialing < want {
		if limit := p.hostLimit(); limit > 0 && p.openLocked() >= limit {
			return
		}
		if !p.gate.TryConnection() {
			return
		}
		if !p.startLocked() {
			return
		}
	}
}
