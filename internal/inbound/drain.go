package inbound

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inboardmesh/inboard/observe"
)

// lastRequests is how long Drain leaves open connections to peers that have
// nothing under way: a request may be on its way over one of them, and would be
// lost with it. Peers in the mesh close theirs when they hear that the endpoint
// has left.
const lastRequests = 5 * time.Second

const (
	// defaultListen is about what an orchestrator takes to tell everybody that an
	// endpoint is going.
	defaultListen = 5 * time.Second
	defaultQuiet  = time.Second
	// longestDrain is Envoy's drain time: what a drain takes at most that has no
	// deadline and whose peers do not go.
	longestDrain = 10 * time.Minute
	// settled is how old a connection is at least when its peer is asked to go. A
	// peer that has not heard that it should go elsewhere comes back at once.
	settled = time.Second
	// askInterval is how exactly peers are asked to go.
	askInterval = 100 * time.Millisecond
)

// DrainPolicy is mesh.DrainPolicy.
type DrainPolicy struct {
	Listen, Quiet, Time time.Duration
	Immediate           bool
	Finish              time.Duration
}

// drain is how the listeners drain.
type drain struct {
	begin time.Time
	// listen is until when connections are accepted at least, latest at most, and
	// quiet how long nothing must have come before they are not any more. all is
	// when every peer has been asked to go.
	listen, latest, all time.Time
	quiet               time.Duration
	// closed is when the listeners were closed, in Unix nanoseconds; 0 before.
	closed atomic.Int64
	// moved is when something came last, in Unix nanoseconds.
	moved atomic.Int64
	// poke wakes the one who waits for what ends.
	poke chan struct{}

	ended, late, gone, refused atomic.Int64

	asking sync.WaitGroup

	done    chan struct{} // closed when report and err are there
	report  observe.DrainReport
	counted bool // the requests are in the report
	err     error
}

func newDrain(ctx context.Context, policy DrainPolicy) *drain {
	now := time.Now()
	total := longestDrain
	if deadline, ok := ctx.Deadline(); ok {
		total = max(deadline.Sub(now), 0)
	}
	latest := max(total-orDefault(policy.Finish, total/4), 0)
	all := min(orDefault(policy.Time, total/2), latest)
	if policy.Immediate {
		all = 0
	}
	d := &drain{
		begin: now, latest: now.Add(latest), all: now.Add(all),
		listen: now.Add(min(orDefault(policy.Listen, defaultListen), latest)),
		quiet:  orDefault(policy.Quiet, defaultQuiet),
		poke:   make(chan struct{}, 1), done: make(chan struct{}),
	}
	d.moved.Store(now.UnixNano())
	return d
}

// orDefault is d, the default if it is 0, and 0 if it is negative.
func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		d = otherwise
	}
	return max(d, 0)
}

// came notes that a request has come.
func (d *drain) came() {
	d.late.Add(1)
	d.moved.Store(time.Now().UnixNano())
}

// count counts the requests that have come and ended, for the report, unless it was done.
func (d *drain) count() {
	if !d.counted {
		d.counted = true
		d.report.Finished, d.report.Late = d.ended.Load(), d.late.Load()
	}
}

// wake lets the one who waits look again.
func (d *drain) wake() {
	select {
	case d.poke <- struct{}{}:
	default:
	}
}

// leaves draws when the peer of a connection is asked to go.
func (d *drain) leaves(c *trackedConn) {
	at := d.begin
	if now := time.Now(); now.After(at.Add(askInterval)) {
		at = now
	}
	if left := d.all.Sub(at); left > 0 {
		at = at.Add(rand.N(left))
	}
	if least := c.opened.Add(settled); at.Before(least) {
		at = least
	}
	c.leaves.Store(at.UnixNano())
}

// over reports whether connections need not be accepted any more.
func (d *drain) over(now time.Time) bool {
	switch {
	case now.Before(d.listen):
		return false
	case !now.Before(d.latest):
		return true
	}
	return now.Sub(time.Unix(0, d.moved.Load())) >= d.quiet
}

// Draining reports whether Drain was called.
func (l *Listeners) Draining() bool { return l.drain.Load() != nil }

// Stopping is closed by Drain or Close.
func (l *Listeners) Stopping() <-chan struct{} { return l.stopping }

// Drain lets the peers of this process go: listeners stay open until no more
// come, peers are asked to end their connections, what runs is finished. What
// still runs when ctx ends is cut off, and is an error. It is done once: the
// result of another call is the same, if its own context does not end before.
func (l *Listeners) Drain(ctx context.Context, policy DrainPolicy) (observe.DrainReport, error) {
	d := newDrain(ctx, policy)
	if !l.drain.CompareAndSwap(nil, d) {
		d = l.drain.Load()
		select {
		case <-d.done:
			return d.report, d.err
		case <-ctx.Done():
			return observe.DrainReport{}, fmt.Errorf("drain: it goes on, as it was begun: %w", context.Cause(ctx))
		}
	}
	defer close(d.done)
	l.mu.Lock() // who is about to listen knows, or is known
	open := slices.Collect(maps.Keys(l.open))
	l.mu.Unlock()
	l.stop()
	for _, ln := range open {
		for _, c := range ln.connections() {
			d.leaves(c)
		}
	}
	l.receive(ctx, d)
	d.closed.Store(max(time.Now().UnixNano(), 1))
	err := l.shutdown(ctx)
	l.ask(d)
	d.err = errors.Join(err, l.finish(ctx, d))
	d.asking.Wait()
	d.report.Duration, d.report.Listening = time.Since(d.begin), time.Unix(0, d.closed.Load()).Sub(d.begin)
	d.report.Closed, d.report.Refused = d.gone.Load()-d.report.ConnectionsCut, d.refused.Load()
	if hook := l.options.Hooks.Drained; hook != nil {
		hook(d.report)
	}
	return d.report, d.err
}

// receive returns when the listeners can be closed.
func (l *Listeners) receive(ctx context.Context, d *drain) {
	tick := time.NewTicker(askInterval)
	defer tick.Stop()
	for !d.over(time.Now()) && l.accepting() {
		l.ask(d)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		case <-l.ended:
			return
		}
	}
}

// accepting reports whether a listener is open still: its server may have closed it.
func (l *Listeners) accepting() bool {
	for _, ln := range l.listeners() {
		ln.mu.Lock()
		ending := ln.ending
		ln.mu.Unlock()
		if !ending {
			return true
		}
	}
	return false
}

// listeners are those that accept, or have connections. Close forgets them, however it
// comes between, but not what is under way over them.
func (l *Listeners) listeners() []*Listener {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return l.last
	}
	return slices.Collect(maps.Keys(l.open))
}

// shutdown closes the listeners. What they had accepted is still handed out.
func (l *Listeners) shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lastRequests)
	defer cancel()
	open := l.listeners()
	errs := make([]error, len(open))
	var all sync.WaitGroup
	for i, ln := range open {
		all.Go(func() {
			_ = ln.mesh.Shutdown(ctx) // Close has the error
			if err := ln.mesh.Close(); !isClosed(err) {
				errs[i] = err
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// ask asks the peers to go whose time has come, as their protocol has it. Those
// whose protocol can only do that in a response are asked by the responses.
func (l *Listeners) ask(d *drain) {
	now := time.Now().UnixNano()
	for _, ln := range l.listeners() {
		for _, c := range ln.connections() {
			f := c.farewell.Load()
			if f == nil || d.closed.Load() == 0 && c.leaves.Load() > now || !c.asked.CompareAndSwap(false, true) {
				continue
			}
			d.asking.Go(*f) // ends within its own time
		}
	}
}

// finish waits until nothing runs and no peer has anything under way, or cuts off
// what does.
func (l *Listeners) finish(ctx context.Context, d *drain) error {
	defer d.count() // what is cut off is counted before, and ends after that
	idle := time.NewTimer(lastRequests)
	idle.Stop()
	defer idle.Stop()
	for waits, over := false, false; ; {
		calls, busy, conns := l.calls.n.Load(), l.busy(), l.conns.n.Load()
		if calls == 0 && busy == 0 {
			if conns == 0 || over {
				d.report.Idle = conns
				return nil
			}
			if !waits {
				idle.Reset(lastRequests)
				waits = true
			}
		}
		var cause error
		select {
		case <-d.poke:
			continue
		case <-idle.C:
			over = true
			continue
		case <-ctx.Done():
			cause = context.Cause(ctx)
		case <-l.ended:
			cause = ErrClosed
		}
		if calls, busy = l.calls.n.Load(), l.busy(); calls == 0 && busy == 0 {
			d.report.Idle = l.conns.n.Load()
			return nil
		}
		d.count()
		d.report.Cut = calls
		if errors.Is(cause, ErrClosed) {
			return fmt.Errorf("drain: %d requests and %d connections still open: %w", calls, busy, cause)
		}
		d.report.ConnectionsCut = l.cut()
		return fmt.Errorf("drain: %d requests and %d connections cut off: %w", calls, d.report.ConnectionsCut, cause)
	}
}

// busy is how many connections do something that is no request: those that were
// upgraded, and those of applications that use a listener by themselves. One to a server
// of HTTP over which nothing was asked yet is idle: peers make some before they call.
func (l *Listeners) busy() int64 {
	n := l.upgraded.Load()
	for _, ln := range l.listeners() {
		if !ln.serves.Load() && !ln.follows.Load() {
			n += int64(len(ln.connections()))
		}
	}
	return n
}

// cut closes every connection.
func (l *Listeners) cut() (n int64) {
	for _, ln := range l.listeners() {
		for _, c := range ln.connections() {
			n++
			_ = c.Close() // the peer's request is lost in any case
		}
	}
	return n
}

// Begin counts a request in; the caller must call End once.
func (l *Listeners) Begin() {
	l.calls.begin()
	if d := l.drain.Load(); d != nil {
		d.came()
	}
}

// End counts a request out.
func (l *Listeners) End() {
	l.calls.end()
	if d := l.drain.Load(); d != nil {
		d.ended.Add(1)
		d.wake()
	}
}

// Serves notes that requests are served over the listener: its connections are idle
// between them. It is quick.
func (ln *Listener) Serves() {
	if !ln.serves.Load() {
		ln.serves.Store(true)
	}
}

// Leaving reports whether a response over the connection of a peer is to end it. One of
// HTTP/2 is ended by a response only if its peer was asked to go, and does not answer.
func (ln *Listener) Leaving(remote string) bool {
	d := ln.owner.drain.Load()
	if d == nil {
		return false
	}
	c := ln.known.find(remote)
	if c != nil {
		if p := c.parting.Load(); p != nil {
			return p.overdue()
		}
	}
	return d.closed.Load() != 0 || c == nil || time.Now().UnixNano() >= c.leaves.Load()
}

// Upgraded notes that a connection is not for requests any more. As no request asks for
// it from now on, the connection is looked after as one of TCP: it is closed when its
// peer is not trusted any more.
func (ln *Listener) Upgraded(conn net.Conn, known *Connection) {
	c := trackedOf(conn)
	if c == nil {
		if c = ln.known.find(known.Remote); c == nil {
			return
		}
	}
	if c.upgraded.CompareAndSwap(false, true) {
		ln.owner.upgraded.Add(1)
		if c.closed.Load() {
			c.downgrade()
		}
	}
	c.stream.Store(known)
	if !ln.watchStreams() {
		_ = c.Close()
	}
}

// downgrade counts an upgraded connection out.
func (c *trackedConn) downgrade() {
	if c.upgraded.CompareAndSwap(true, false) {
		c.listener.owner.upgraded.Add(-1)
	}
}

// SetFarewell sets what asks the peer of a connection to go, below what TLS was laid
// over it. It is called once at most, and must not take longer than a moment.
func SetFarewell(conn net.Conn, ask func()) {
	c := trackedOf(conn)
	if c == nil {
		return
	}
	c.farewell.Store(&ask)
	if d := c.listener.owner.drain.Load(); d != nil && d.closed.Load() != 0 {
		c.askToGo() // it was the last to come
	}
}

// askToGo asks the peer to go, unless it was asked or its protocol has nothing for that
// but a response.
func (c *trackedConn) askToGo() {
	if ask := c.farewell.Load(); ask != nil && c.asked.CompareAndSwap(false, true) {
		(*ask)()
	}
}
