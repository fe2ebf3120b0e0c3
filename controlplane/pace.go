package controlplane

import (
	"crypto/sha256"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// linesOfOne is how many lines of a kind one client can have in the log at once;
	// then it is one a minute. linesOfAll is that of all of them together, for clients
	// choose their names; then it is one a second.
	linesOfOne = 10
	linesOfAll = 100
	// maxPaced bounds the clients that are remembered.
	maxPaced = 10_000
)

// paced decides which lines of one kind are logged, whatever streams and connections
// they are about: a client that comes again does not begin anew. The zero paced can be
// used. Safe for concurrent use.
type paced struct {
	// alone is that all clients together have no bound: each line is about something
	// that they may do.
	alone bool

	mu  sync.Mutex
	of  map[[sha256.Size]byte]*pace // guarded by mu; by the digest of who it is
	all *rate.Limiter               // guarded by mu; nil before the first
}

// pace is that of one client.
type pace struct {
	limit    *rate.Limiter
	unlogged uint64 // lines since the last that was logged
}

// allow reports whether a line about who is logged, and how many were not since the
// last one that was.
func (p *paced) allow(who string) (logged bool, unlogged uint64) {
	key := sha256.Sum256([]byte(who))
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = rate.NewLimiter(rate.Every(time.Second), linesOfAll)
	}
	of := p.of[key]
	if of == nil {
		if p.of == nil || len(p.of) == maxPaced {
			p.of = make(map[[sha256.Size]byte]*pace) // that of all holds
		}
		of = &pace{limit: rate.NewLimiter(rate.Every(time.Minute), linesOfOne)}
		p.of[key] = of
	}
	if !of.limit.Allow() || !p.alone && !p.all.Allow() {
		of.unlogged++
		return false, 0
	}
	unlogged, of.unlogged = of.unlogged, 0
	return true, unlogged
}

// hostOf is a peer without its port, which is another one for each connection.
func hostOf(peer string) string {
	if host, _, err := net.SplitHostPort(peer); err == nil {
		return host
	}
	return peer
}
