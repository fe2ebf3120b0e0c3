package httpmesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/outcome"
)

// replayLimit is how much of a body without GetBody is kept for a retry.
// Linkerd's limit is the same.
const replayLimit = 64 << 10

// errSuperseded ends the reads of an attempt that another has replaced.
var errSuperseded = errors.New("the attempt was given up")

// errTooLarge fails an attempt that cannot have the whole body.
var errTooLarge = errors.New("the body is too large to be sent again: set the request's GetBody")

// errUnkept is why a request whose body was read is not sent again.
var errUnkept = fmt.Errorf("the body is larger than %d KiB and has no GetBody", replayLimit>>10)

// replayBody gives each attempt the whole request body, exactly or not at all.
// With GetBody each attempt gets a body of its own; without, what has been read
// is kept, up to replayLimit. A nil replayBody is a request without a body.
type replayBody struct {
	source  io.ReadCloser
	getBody func() (io.ReadCloser, error)
	length  int64 // of source; 0 or less if it is not known
	// trailer is the caller's, who may set values until its body has ended; nil
	// without trailers. It is read with the turn only.
	trailer http.Header

	// mirrored reports whether copies wait for the body; it spares the lock.
	mirrored atomic.Bool

	mu sync.Mutex
	// reading is whether an attempt has the turn to read what is the caller's,
	// which can take as long as the caller likes. turn is closed when whoever waits
	// for it must look again; nil if nobody waits; both guarded by mu.
	reading bool
	turn    chan struct{}
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
	// declared is trailer as it was before the body was read, final as it was when a
	// body had ended, nil before; guarded by mu. Neither map is changed.
	declared, final http.Header
}

func newReplayBody(req *http.Request) *replayBody {
	if req.Body == nil || req.Body == http.NoBody {
		return nil
	}
	b := &replayBody{source: req.Body, getBody: req.GetBody, length: req.ContentLength}
	if len(req.Trailer) > 0 {
		b.trailer, b.declared = req.Trailer, req.Trailer.Clone()
	}
	return b
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

// unkept reports whether the body cannot be sent again because it was too large.
func (b *replayBody) unkept() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.getBody == nil && b.overflow
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

// next returns the body of the next attempt; the one before reads no more. ctx
// bounds the attempt.
func (b *replayBody) next(ctx context.Context, p *pipeline.Attempt) (*attemptBody, error) {
	a, err := b.begin(ctx, p)
	if err != nil || b.getBody == nil || a.number == 1 {
		return a, err
	}
	// It may take as long as the caller likes: without the lock, so that the call can
	// end meanwhile.
	own, err := b.getBody()
	if err != nil {
		b.fail(err)
		return nil, err
	}
	if !b.adopt(own) {
		return nil, errors.Join(errSuperseded, own.Close())
	}
	a.own = own
	return a, nil
}

// begin makes the body of the next attempt, which has none of its own yet.
func (b *replayBody) begin(ctx context.Context, p *pipeline.Attempt) (*attemptBody, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attempts++
	b.wakeLocked()
	if b.attempts > 1 && b.getBody == nil && b.overflow {
		return nil, errTooLarge // more was read since replayable was asked
	}
	return &attemptBody{shared: b, attempt: p, ctx: ctx, number: b.attempts, trailer: maps.Clone(b.declared)}, nil
}

// adopt has a body closed with the caller's, unless that has been.
func (b *replayBody) adopt(own io.Closer) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.own = own
	}
	return !b.closed
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
	b.wakeLocked()
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

// wakeLocked has those look again who wait for the turn.
func (b *replayBody) wakeLocked() {
	if b.turn != nil {
		close(b.turn)
		b.turn = nil
	}
}

// endTurnLocked gives the turn back.
func (b *replayBody) endTurnLocked() {
	b.reading = false
	b.wakeLocked()
}

// attemptBody is the body as one attempt reads it.
type attemptBody struct {
	shared  *replayBody
	attempt *pipeline.Attempt
	ctx     context.Context //nolint:containedctx // it bounds the waits of Read, which has none
	number  int
	own     io.ReadCloser // a body from GetBody; nil reads the shared one
	offset  int           // in the shared body
	closed  atomic.Bool
	// kept is what was read of a body of its own as long as copies wait for it, nil
	// once that is too much.
	kept     []byte
	overflow bool
	// trailer is what the attempt sends after the body: what the caller has declared,
	// with the values that are set when the body has ended. Attempts do not share it,
	// for net/http reads it while another one begins.
	trailer http.Header
}

func (a *attemptBody) Read(p []byte) (int, error) {
	defer a.attempt.Moved() // a slow reader is the caller's, not the peer's
	if a.own != nil {
		return a.readOwn(p)
	}
	return a.readShared(p)
}

// readOwn reads a body of the attempt's own. Bodies whose ends set trailers are read
// by turns: they set the same.
func (a *attemptBody) readOwn(p []byte) (int, error) {
	b := a.shared
	if b.trailer != nil {
		b.mu.Lock()
		err := a.awaitTurnLocked()
		b.mu.Unlock()
		if err != nil {
			return 0, err
		}
		defer func() { // also if the caller's Read panics
			b.mu.Lock()
			defer b.mu.Unlock()
			b.endTurnLocked()
		}()
	}
	n, err := a.own.Read(p)
	ended := errors.Is(err, io.EOF)
	if ended {
		a.finishTrailer()
	}
	if err != nil && !ended && !a.closed.Load() {
		b.fail(err)
	}
	if b.mirrored.Load() {
		a.keep(p[:n])
		b.mirrorWhole(a.kept, ended, a.overflow)
	}
	return n, err
}

// keep remembers what copies need of a body of the attempt's own.
func (a *attemptBody) keep(p []byte) {
	switch {
	case a.overflow:
	case len(a.kept)+len(p) > replayLimit:
		a.overflow, a.kept = true, nil
	default:
		a.kept = append(a.kept, p...)
	}
}

// readShared reads what earlier attempts kept, then the caller's body.
func (a *attemptBody) readShared(p []byte) (int, error) {
	b := a.shared
	b.mu.Lock()
	for b.reading {
		if n, done, err := a.readKeptLocked(p); done {
			b.mu.Unlock()
			return n, err
		}
		if err := a.waitLocked(); err != nil {
			b.mu.Unlock()
			return 0, err
		}
	}
	if n, done, err := a.readKeptLocked(p); done {
		b.mu.Unlock()
		return n, err
	}
	b.reading = true
	b.mu.Unlock()
	n, err := a.readSource(p)
	if b.mirrored.Load() {
		b.mu.Lock()
		kept, ended, overflow := b.kept, errors.Is(b.ended, io.EOF), b.overflow
		b.mu.Unlock()
		b.mirrorWhole(kept, ended, overflow)
	}
	return n, err
}

// readSource reads the caller's body and ends the turn.
func (a *attemptBody) readSource(p []byte) (n int, err error) {
	b := a.shared
	defer func() { // also if the caller's Read panics
		b.mu.Lock()
		defer b.mu.Unlock()
		b.endTurnLocked()
	}()
	n, err = b.source.Read(p)
	if errors.Is(err, io.EOF) {
		a.finishTrailer()
	}
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

// awaitTurnLocked takes the turn, or says why the attempt gets it no more.
func (a *attemptBody) awaitTurnLocked() error {
	b := a.shared
	for b.reading {
		if err := a.waitLocked(); err != nil {
			return err
		}
	}
	if b.closed || a.supersededLocked() {
		return errSuperseded
	}
	b.reading = true
	return nil
}

// waitLocked waits, without the lock, until something has changed for those who
// want the turn. The wait ends with the attempt.
func (a *attemptBody) waitLocked() error {
	b := a.shared
	if a.closed.Load() {
		return errSuperseded
	}
	if b.turn == nil {
		b.turn = make(chan struct{})
	}
	turn := b.turn
	b.mu.Unlock()
	defer b.mu.Lock()
	select {
	case <-turn:
		return nil
	case <-a.ctx.Done():
		return context.Cause(a.ctx)
	}
}

// supersededLocked reports whether another attempt has taken the place of this one.
func (a *attemptBody) supersededLocked() bool {
	return a.number != a.shared.attempts && !a.shared.parallel
}

// readKeptLocked reads what needs no read of the caller's body. done is false if
// there is nothing of that kind left.
func (a *attemptBody) readKeptLocked(p []byte) (n int, done bool, err error) {
	b := a.shared
	switch {
	case b.closed || a.supersededLocked():
		return 0, true, errSuperseded
	case a.offset < b.read && b.overflow:
		// replayable forbids it; but never a body with a gap, or a part of it.
		return 0, true, errSuperseded
	case a.offset < b.read:
		n := copy(p, b.kept[a.offset:])
		a.offset += n
		return n, true, nil
	case b.ended != nil:
		maps.Copy(a.trailer, b.final) // nil, both of them, without trailers
		return 0, true, b.ended
	}
	return 0, false, nil
}

// finishTrailer takes over what the caller has set until the end of the body. The
// attempt has the turn, if there are trailers.
func (a *attemptBody) finishTrailer() {
	b := a.shared
	if b.trailer == nil {
		return
	}
	final := b.trailer.Clone()
	maps.Copy(a.trailer, final)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.final = final
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
// at once.
func (a *attemptBody) InMemory() bool {
	switch b := a.shared; {
	case b.trailer != nil:
		return false // the readers of its attempts take turns
	case a.own != nil:
		return inMemory(a.own)
	default:
		return inMemory(b.source)
	}
}

// Close ends this attempt's use. The caller's body stays open for another.
func (a *attemptBody) Close() error {
	a.closed.Store(true)
	b := a.shared
	b.mu.Lock()
	b.wakeLocked()
	b.mu.Unlock()
	if a.own != nil {
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
		if b.outcome.Err != nil && (b.outcome.Kind == outcome.Timeout || !errors.Is(err, io.EOF)) {
			err = b.outcome.Err
		}
	}
	return n, err
}

// Close may be called while a Read runs.
func (b *responseBody) Close() error {
	defer b.end(nil)
	return b.received.Close()
}

func (b *responseBody) end(err error) {
	b.ended.Do(func() {
		x := (*exchange)(b)
		if errors.Is(err, io.EOF) && x.isTooLate() {
			err = context.DeadlineExceeded
		}
		x.endBody(err)
		x.finish(x.outcome)
	})
}

// endBody finds out how the call has ended when its response body ended with err.
func (x *exchange) endBody(err error) {
	x.outcome = x.bodyOutcome(x.outcome, err)
	// The application's own cancellation is given back as it is: those who pass
	// bodies on, such as httputil.ReverseProxy, compare it.
	if x.outcome.Err != nil && !errors.Is(x.request.Context().Err(), context.Canceled) {
		x.outcome = x.call.Failed(x.outcome)
	}
}

// Expire ends the call of a response that nobody closes. The caller may be reading it
// at the same time, and then has its trailers for itself.
func (x *exchange) Expire(cause error) {
	x.ended.Do(func() {
		defer func() { _ = x.received.Close() }() // who reads is told how the call has ended
		x.endBody(cause)
		x.close(x.outcome)
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

// isTooLate reports whether a response ends at the end of the call's time or after it,
// and does not say how long it is. Its server may have ended it because the time that
// it was told was over, as any handler does that returns with its context: nobody can
// tell such a part from the whole. It then waits until the context has noticed.
func (x *exchange) isTooLate() bool {
	deadline := x.call.Deadline
	if x.resp == nil || x.resp.ContentLength >= 0 || deadline.IsZero() || time.Now().Before(deadline) {
		return false
	}
	<-x.call.Context().Done()
	return true
}
