package httpmesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/inboardmesh/inboard/internal/pipeline"
)

// replayLimit is how much of a body without GetBody is kept for a retry.
// Linkerd's limit is the same.
const replayLimit = 64 << 10

// errSuperseded ends the reads of an attempt that another has replaced.
var errSuperseded = errors.New("the attempt was given up")

// errTooLarge fails an attempt that cannot have the whole body.
var errTooLarge = errors.New("the body is too large to be sent again: set the request's GetBody")

// replayBody gives each attempt the whole request body, exactly or not at all.
// With GetBody each attempt gets a body of its own; without, what has been read
// is kept, up to replayLimit. A nil replayBody is a request without a body.
type replayBody struct {
	source  io.ReadCloser
	getBody func() (io.ReadCloser, error)
	length  int64 // of source; 0 or less if it is not known

	// mirrored reports whether copies wait for the body; it spares the lock.
	mirrored atomic.Bool

	// reading is held while source is read, which can take as long as the
	// caller likes. It is locked before mu.
	reading sync.Mutex

	mu sync.Mutex
	// release ends the watch over the call's time, see watch; guarded by mu.
	release  func() bool
	read     int       // guarded by mu; bytes read from source so far
	kept     []byte    // guarded by mu; these bytes, nil once they are too many
	overflow bool      // guarded by mu; more was read than is kept
	ended    error     // guarded by mu; what ended source, io.EOF included
	attempts int       // guarded by mu
	own      io.Closer // guarded by mu; the last one from getBody, or nil
	closed   bool      // guarded by mu
	failed   error     // guarded by mu; the caller's body could not be read
	mirrors  *copies   // guarded by mu; who waits for a copy of the body, or nil
	parallel bool      // attempts read side by side; set before the first
}

func newReplayBody(req *http.Request) *replayBody {
	if req.Body == nil || req.Body == http.NoBody {
		return nil
	}
	return &replayBody{source: req.Body, getBody: req.GetBody, length: req.ContentLength}
}

// replayable reports whether another attempt can send the body from its start.
func (b *replayBody) replayable() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.closed && b.failed == nil && (b.getBody != nil || !b.overflow)
}

// hedgeable reports whether attempts may read the body side by side, and lets
// them: each but the first has one of its own.
func (b *replayBody) hedgeable() bool {
	if b == nil {
		return true
	}
	b.parallel = b.getBody != nil
	return b.parallel
}

// next returns the body of the next attempt; the one before reads no more.
func (b *replayBody) next(p *pipeline.Attempt) (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attempts++
	a := &attemptBody{shared: b, attempt: p, number: b.attempts}
	if b.attempts > 1 && b.getBody == nil && b.overflow {
		return nil, errTooLarge // more was read since replayable was asked
	}
	if b.getBody != nil && b.attempts > 1 {
		own, err := b.getBody()
		if err != nil {
			b.failed = err
			return nil, err
		}
		a.own, b.own = own, own
	}
	return a, nil
}

// failure is why the caller's body could not be read, or nil.
func (b *replayBody) failure() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

// watch closes the caller's body when the call's time is over: net/http does not
// return as long as it waits in the body's Read.
func (b *replayBody) watch(ctx context.Context) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.release == nil {
		b.release = context.AfterFunc(ctx, b.closeSource)
	}
}

// end closes the caller's body when the call is over.
func (b *replayBody) end() {
	if b == nil {
		return
	}
	b.mu.Lock()
	release := b.release
	b.mu.Unlock()
	if release != nil {
		release()
	}
	b.closeSource()
}

// closeSource closes the caller's body, when no attempt will read it any more.
// An attempt that waits for a part of it is woken.
func (b *replayBody) closeSource() {
	b.mu.Lock()
	first, own := !b.closed, b.own
	b.closed = true
	waiting := b.mirrors
	b.mirrors = nil
	b.mu.Unlock()
	if !first {
		return
	}
	waiting.drop(pipeline.DropIncomplete)
	_ = b.source.Close()
	if own != nil {
		_ = own.Close()
	}
}

// attemptBody is the body as one attempt reads it.
type attemptBody struct {
	shared  *replayBody
	attempt *pipeline.Attempt
	number  int
	own     io.ReadCloser // a body from GetBody; nil reads the shared one
	offset  int           // in the shared body
	closed  atomic.Bool   // of a body of its own
}

func (a *attemptBody) Read(p []byte) (int, error) {
	defer a.attempt.Moved() // a slow reader is the caller's, not the peer's
	if a.own != nil {
		n, err := a.own.Read(p)
		if err != nil && !errors.Is(err, io.EOF) && !a.closed.Load() {
			a.shared.fail(err)
		}
		return n, err
	}
	return a.readShared(p)
}

// readShared reads what earlier attempts kept, then the caller's body.
func (a *attemptBody) readShared(p []byte) (int, error) {
	n, err := a.readSource(p)
	if a.shared.mirrored.Load() {
		a.shared.mirrorWhole()
	}
	return n, err
}

func (a *attemptBody) readSource(p []byte) (int, error) {
	b := a.shared
	b.reading.Lock()
	defer b.reading.Unlock()
	if n, done, err := a.readKept(p); done {
		return n, err
	}
	n, err := b.source.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read += n
	a.offset = b.read
	// What comes after the attempt was given up belongs to the next one, which
	// needs it whatever its size; there is no more than this one piece.
	b.keepLocked(p[:n], a.number != b.attempts)
	if err != nil {
		b.ended = err
		if !errors.Is(err, io.EOF) && !b.closed {
			b.failed = err
		}
	}
	return n, err
}

// readKept reads what needs no read of the caller's body. done is false if
// there is nothing of that kind left.
func (a *attemptBody) readKept(p []byte) (n int, done bool, err error) {
	b := a.shared
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed || a.number != b.attempts && !b.parallel:
		return 0, true, errSuperseded
	case a.offset < b.read && b.overflow:
		// replayable forbids it; but never a body with a gap, or a part of it.
		return 0, true, errSuperseded
	case a.offset < b.read:
		n := copy(p, b.kept[a.offset:])
		a.offset += n
		return n, true, nil
	case b.ended != nil:
		return 0, true, b.ended
	}
	return 0, false, nil
}

// keepLocked remembers what was read, as long as a replay may need it: up to
// replayLimit, or more if it must be kept.
func (b *replayBody) keepLocked(p []byte, must bool) {
	if b.overflow {
		return
	}
	if b.getBody != nil && b.mirrors == nil || len(b.kept)+len(p) > replayLimit && !must {
		b.overflow, b.kept = true, nil
		return
	}
	b.kept = append(b.kept, p...)
}

func (b *replayBody) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed = err
}

// InMemory reports whether a Read never waits, so that the request can be written
// at once: [http.NewRequest] sets GetBody for what is in memory.
func (a *attemptBody) InMemory() bool { return a.shared.getBody != nil }

// Close ends this attempt's use. The caller's body stays open for another.
func (a *attemptBody) Close() error {
	if a.own != nil {
		a.closed.Store(true)
		return a.own.Close()
	}
	return nil
}

// responseBody is an exchange whose response is being read: it ends the call
// when that has been read or closed.
type responseBody exchange

func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.received.Read(p)
	if n > 0 {
		b.call.Last().Moved()
	}
	if err != nil {
		b.end(err)
	}
	return n, err
}

func (b *responseBody) Close() error {
	err := b.received.Close()
	b.end(nil)
	return err
}

func (b *responseBody) end(err error) {
	b.ended.Do(func() {
		x := (*exchange)(b)
		x.finish(x.bodyOutcome(x.outcome, err))
	})
}

// upgradedBody is the body of a 101 response: it can be written to.
type upgradedBody struct {
	*responseBody
	io.Writer
}

// CloseWrite ends the sending side, if the connection has sides.
func (b *upgradedBody) CloseWrite() error {
	if half, ok := b.Writer.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return fmt.Errorf("close write: %w", http.ErrNotSupported)
}
