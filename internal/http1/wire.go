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
	conn    net.Conn
	buffer  []byte // what is not written yet; its capacity is the buffer
	written atomic.Bool
	err     atomic.Pointer[error]
}

// begin forgets what earlier requests wrote.
func (w *wireWriter) begin() {
	w.buffer = w.buffer[:0]
	w.written.Store(false)
}

// any reports whether a byte of the request was written.
func (w *wireWriter) any() bool { return w.written.Load() }

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
	n, err := w.conn.Write(p)
	if n > 0 {
		w.written.Store(true)
	}
	if err != nil {
		failed := err // a copy, so that only failures are allocated
		w.err.Store(&failed)
	}
	return n, err
}
