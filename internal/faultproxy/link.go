package faultproxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Sizes of what is under way in one direction: a chunk, and how many of them. A
// sender that is further ahead waits, as it does for TCP's window.
const (
	chunkSize = 32 << 10
	inFlight  = 64
)

// link is one proxied connection: the client's end and the server's.
type link struct {
	proxy *Proxy
	ends  [2]net.Conn
	once  sync.Once
	done  chan struct{} // closed by reset
}

// reset ends both ends at once, with a RST where there is one.
func (l *link) reset() {
	l.once.Do(func() {
		close(l.done)
		for _, end := range l.ends {
			abort(end)
		}
	})
}

// abort closes a connection so that its peer sees a reset and not an end.
func abort(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // else it is an ordinary close, which ends the connection too
	}
	_ = conn.Close()
}

// chunk is what was read at once, and when it is due at the other end. The last
// one has no data: it is the end of the stream, or its breaking off.
type chunk struct {
	data   []byte
	broken bool
	due    time.Time
}

// pump passes on one direction until it ends. Reading and writing are apart, so
// that a delay does not lower the throughput.
func (l *link) pump(direction int, from, to net.Conn) {
	chunks := make(chan chunk, inFlight)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(chunks)
		l.read(direction, from, chunks)
	})
	l.write(direction, to, chunks)
	// The writer has given up or has passed on the end; a reader that still
	// waits for room is not needed.
	for range chunks {
	}
	wg.Wait()
}

// read runs until its end of the connection has no more.
func (l *link) read(direction int, from net.Conn, chunks chan<- chunk) {
	for {
		buffer := make([]byte, chunkSize)
		n, err := from.Read(buffer)
		faults := l.faults(direction)
		due := time.Now().Add(faults.Latency + l.proxy.jitter(faults.Jitter))
		if n > 0 {
			chunks <- chunk{data: buffer[:n], due: due}
		}
		if err != nil {
			chunks <- chunk{broken: !errors.Is(err, io.EOF), due: due}
			return
		}
	}
}

// write runs until the end of the stream or a failure.
func (l *link) write(direction int, to net.Conn, chunks <-chan chunk) {
	passed := int64(0)
	for c := range chunks {
		if !l.wait(time.Until(c.due)) {
			return
		}
		faults := l.faults(direction)
		switch {
		case len(c.data) == 0:
			if faults.Blackhole || faults.HalfOpen {
				<-l.done // the receiver is not told; the link stays until it is reset
				return
			}
			if c.broken {
				l.reset()
				return
			}
			l.end(to)
			return
		case faults.Reset:
			l.reset()
			return
		case faults.Blackhole:
			continue
		}
		data, cut := c.data, false
		if left := faults.Limit - passed; faults.Limit > 0 && int64(len(data)) >= left {
			data, cut = data[:max(left, 0)], true
		}
		if !l.pass(faults, to, data) {
			return
		}
		passed += int64(len(data))
		if cut {
			l.reset()
			return
		}
	}
}

// pass writes data in pieces and reports whether that went well.
func (l *link) pass(faults *Faults, to net.Conn, data []byte) bool {
	for len(data) > 0 {
		piece := data
		if faults.Slice > 0 && len(piece) > faults.Slice {
			piece = piece[:faults.Slice]
		}
		if !l.wait(faults.pause(len(piece))) {
			return false
		}
		if _, err := to.Write(piece); err != nil {
			l.reset() // the receiver has gone, so the sender is told
			return false
		}
		data = data[len(piece):]
		if len(data) > 0 && !l.wait(faults.SliceDelay) {
			return false
		}
	}
	return true
}

// end passes on the end of a stream.
func (l *link) end(to net.Conn) {
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // it has ended already
		return
	}
	_ = to.Close()
}

// wait waits for d; it reports false if the link was reset meanwhile.
func (l *link) wait(d time.Duration) bool {
	if d <= 0 {
		select {
		case <-l.done:
			return false
		default:
			return true
		}
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.done:
		return false
	}
}

func (l *link) faults(direction int) *Faults { return l.proxy.faults[direction].Load() }
