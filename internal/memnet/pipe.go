package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeCapacity is how many bytes may be under way in one direction before a
// write waits.
const pipeCapacity = 64 << 10

// Pipe returns the two ends of a connection. Unlike those of net.Pipe they have
// buffers, as TCP has: two ends that write at the same time do not wait for
// each other (one that refuses a TLS handshake, for example, while its peer is
// still sending), and what was written before a Close can be read after it.
func Pipe() (net.Conn, net.Conn) {
	there, back := newStream(), newStream()
	return newEnd(back, there), newEnd(there, back)
}

// stream is one direction of a connection.
type stream struct {
	mu      sync.Mutex
	data    []byte        // guarded by mu
	ended   bool          // the writer closed; guarded by mu
	broken  bool          // the reader closed; guarded by mu
	changed chan struct{} // closed at the next change; guarded by mu
}

func newStream() *stream { return &stream{changed: make(chan struct{})} }

// wakeLocked wakes everybody who waits for a change.
func (s *stream) wakeLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// take moves what there is into p. If there is nothing yet, wait is what to
// wait for.
func (s *stream) take(p []byte) (n int, wait <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.data) > 0 {
		n = copy(p, s.data)
		s.data = s.data[n:]
		s.wakeLocked()
		return n, nil, nil
	}
	if s.ended {
		return 0, nil, io.EOF
	}
	return 0, s.changed, nil
}

// put adds as much of p as there is room for. If there is no room yet, wait is
// what to wait for.
func (s *stream) put(p []byte) (n int, wait <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended || s.broken:
		return 0, nil, io.ErrClosedPipe
	case len(s.data) >= pipeCapacity:
		return 0, s.changed, nil
	}
	n = min(len(p), pipeCapacity-len(s.data))
	s.data = append(s.data, p[:n]...)
	s.wakeLocked()
	return n, nil, nil
}

func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.wakeLocked()
}

func (s *stream) breakOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken, s.data = true, nil
	s.wakeLocked()
}

// end is one end of a connection.
type end struct {
	in, out *stream
	// writing holds a token while a Write runs, so that one Write is one piece.
	// It is a channel because waiting for a mutex stops the time of a bubble.
	writing                     chan struct{}
	readDeadline, writeDeadline deadline
	closed                      chan struct{}
	once                        sync.Once
}

var _ net.Conn = (*end)(nil)

func newEnd(in, out *stream) *end {
	return &end{
		in: in, out: out, writing: make(chan struct{}, 1), closed: make(chan struct{}),
		readDeadline:  deadline{passed: make(chan struct{})},
		writeDeadline: deadline{passed: make(chan struct{})},
	}
}

func (e *end) Read(p []byte) (int, error) {
	for {
		if err := e.stopped(&e.readDeadline); err != nil {
			return 0, err
		}
		n, wait, err := e.in.take(p)
		if wait == nil || len(p) == 0 {
			return n, err
		}
		e.wait(wait, &e.readDeadline)
	}
}

func (e *end) Write(p []byte) (int, error) {
	e.writing <- struct{}{}
	defer func() { <-e.writing }()
	written := 0
	for {
		if err := e.stopped(&e.writeDeadline); err != nil {
			return written, err
		}
		n, wait, err := e.out.put(p[written:])
		written += n
		if err != nil || written == len(p) {
			return written, err
		}
		if wait != nil {
			e.wait(wait, &e.writeDeadline)
		}
	}
}

// stopped returns why nothing can be read or written any more.
func (e *end) stopped(d *deadline) error {
	select {
	case <-e.closed:
		return net.ErrClosed
	case <-d.wait():
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}

func (e *end) wait(change <-chan struct{}, d *deadline) {
	select {
	case <-change:
	case <-e.closed:
	case <-d.wait():
	}
}

// Close ends both directions. The peer can still read what was written.
func (e *end) Close() error {
	e.once.Do(func() {
		close(e.closed)
		e.readDeadline.set(time.Time{})
		e.writeDeadline.set(time.Time{})
		e.out.end()
		e.in.breakOff()
	})
	return nil
}

// CloseWrite tells the peer that nothing more will be written.
func (e *end) CloseWrite() error {
	e.out.end()
	return nil
}

// Readable reports whether a Read would return at once. It always knows.
func (e *end) Readable() (readable, known bool) {
	if err := e.stopped(&e.readDeadline); err != nil {
		return true, true
	}
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	return len(e.in.data) > 0 || e.in.ended, true
}

func (e *end) LocalAddr() net.Addr  { return addr("pipe") }
func (e *end) RemoteAddr() net.Addr { return addr("pipe") }

func (e *end) SetDeadline(t time.Time) error {
	e.readDeadline.set(t)
	e.writeDeadline.set(t)
	return nil
}

func (e *end) SetReadDeadline(t time.Time) error {
	e.readDeadline.set(t)
	return nil
}

func (e *end) SetWriteDeadline(t time.Time) error {
	e.writeDeadline.set(t)
	return nil
}

// deadline is a time that can be moved while somebody waits for it.
type deadline struct {
	mu     sync.Mutex
	timer  *time.Timer   // guarded by mu
	moves  int           // guarded by mu
	passed chan struct{} // closed when the time has come; guarded by mu
	over   bool          // whether passed is closed; guarded by mu
}

// set moves the deadline; the zero time is never.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.moves++
	if d.over {
		d.passed, d.over = make(chan struct{}), false
	}
	if t.IsZero() {
		return
	}
	if left := time.Until(t); left > 0 {
		moves := d.moves
		d.timer = time.AfterFunc(left, func() { d.expire(moves) })
		return
	}
	d.over = true
	close(d.passed)
}

// expire is called by the timer; one that was too late to stop does nothing.
func (d *deadline) expire(moves int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.moves == moves {
		d.over = true
		close(d.passed)
	}
}

// wait returns a channel that is closed when the deadline has passed.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passed
}
