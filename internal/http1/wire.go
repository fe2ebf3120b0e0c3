package http1

import (
	"net"
	"sync/atomic"
)

// wireWriter buffers what is written to the network. Unlike a [bufio.Writer] it
// can be flushed from the Read of a body that is being copied into it, and it
// never hands its buffer to others. One goroutine writes; any may ask what became
// of it.
type wireWriter struct {
	conn   net.Conn
	buffer []byte // what is not written yet; its capacity is the buffer
	state  atomic.Int32
	err    atomic.Pointer[error]
}

// What has become of the request in flight. A write is counted before it is made:
// whoever asks while it is under way must not take it for none.
const (
	untouched int32 = iota
	begun           // a byte was written, or may have been
	given           // nothing was written, nor will be
)

// begin forgets what earlier requests wrote.
func (w *wireWriter) begin() {
	w.buffer = w.buffer[:0]
	w.state.Store(untouched)
}

// giveUp ends the request as far as it is written. It reports whether a byte of it
// may have been; if not, none will be.
func (w *wireWriter) giveUp() (written bool) {
	return !w.state.CompareAndSwap(untouched, given) && w.state.Load() != given
}

// failed is why the connection cannot be written to, or nil.
func (w *wireWriter) failed() error {
	if err := w.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (w *wireWriter) Write(p []byte) (int, error) {
	if len(w.buffer)+len(p) > cap(w.buffer) {
		if err := w.Flush(); err != nil {
			return 0, err
		}
		if len(p) >= cap(w.buffer) {
			return w.send(p)
		}
	}
	w.buffer = append(w.buffer, p...)
	return len(p), nil
}

func (w *wireWriter) WriteString(s string) (int, error) {
	if len(w.buffer)+len(s) > cap(w.buffer) {
		long := []byte(s)
		return w.Write(long)
	}
	w.buffer = append(w.buffer, s...)
	return len(s), nil
}

// WriteByte is what makes [http.Request.Write] add no buffer of its own.
func (w *wireWriter) WriteByte(b byte) error {
	_, err := w.Write([]byte{b})
	return err
}

// Flush sends what is buffered.
func (w *wireWriter) Flush() error {
	if err := w.failed(); err != nil || len(w.buffer) == 0 {
		return err
	}
	_, err := w.send(w.buffer)
	w.buffer = w.buffer[:0]
	return err
}

func (w *wireWriter) send(p []byte) (int, error) {
	if err := w.failed(); err != nil {
		return 0, err
	}
	first := w.state.CompareAndSwap(untouched, begun)
	if !first && w.state.Load() == given {
		return 0, errClosed
	}
	n, err := w.conn.Write(p)
	if first && n == 0 {
		w.state.Store(untouched)
	}
	if err != nil {
		failed := err // a copy, so that only failures are allocated
		w.err.Store(&failed)
	}
	return n, err
}
