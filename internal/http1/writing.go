package http1

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// writing is a request that is written by a goroutine of its own, because its
// body may keep it waiting, while its response is being waited for. A nil writing
// is a request that the caller has written already.
type writing struct {
	x      *exchange
	result chan error // what became of it, once

	// headWritten is whether the body's turn has come.
	headWritten atomic.Bool
	// answer gets whether to send a body that the peer was asked about; nil if
	// it was not asked.
	answer chan bool
	// unwanted is set by run's goroutine when the answer was no. The error that says so
	// comes back as one of net/http's, which does not unwrap.
	unwanted bool

	mu      sync.Mutex
	bodyErr error // guarded by mu; the body could not be read, or has another length
	ended   bool  // guarded by mu; the response's head has come
	moved   bool  // guarded by mu; the read deadline is not the request's
}

// writeAside starts to write the request. The goroutine ends when the request is
// written, when its body cannot be read, or when the connection is closed.
func (x *exchange) writeAside() {
	w := &writing{x: x, result: make(chan error, 1)}
	x.aside = w
	trace := &httptrace.ClientTrace{WroteHeaders: func() { w.headWritten.Store(true) }}
	req := x.req.WithContext(httptrace.WithClientTrace(x.req.Context(), trace))
	if expectsContinue(req) {
		w.answer = make(chan bool, 1)
	}
	if req.Body != nil {
		req.Body = &requestBody{writing: w, ReadCloser: req.Body, waits: w.answer != nil}
	}
	if x.gzip {
		req.Header = maps.Clone(req.Header) // the caller may go on to use its own
		req.Header["Accept-Encoding"] = acceptGzip
	}
	if x.conn.options.DisableKeepAlives && !isUpgrade(req.Header) {
		req.Close = true
	}
	go w.run(req)
}

func (w *writing) run(req *http.Request) {
	out := &w.x.conn.out
	err := req.Write(out)
	if err == nil {
		err = out.Flush()
	}
	switch {
	case w.unwanted:
		err = nil // all that the peer wants of it is written
	case err != nil && out.failed() == nil:
		// The request is at fault, not the connection, which nobody can use now.
		w.failBody(err)
		_ = w.x.conn.fail(err)
	case err != nil:
		w.boundHead(time.Now().Add(lastWordsTime))
	case w.x.conn.options.ResponseHeaderTimeout > 0:
		w.boundHead(time.Now().Add(w.x.conn.options.ResponseHeaderTimeout))
	}
	w.result <- err
}

// boundHead bounds the wait for the response's head, unless it has come.
func (w *writing) boundHead(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.moved = true
		w.x.headersBy(t)
	}
}

// headEnded reports whether the read deadline was changed for the head.
func (w *writing) headEnded() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	return w.moved
}

func (w *writing) failBody(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bodyErr == nil {
		w.bodyErr = err
	}
}

// bodyFailure is why the request could not be written that is not its peer's
// fault, or nil.
func (w *writing) bodyFailure() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bodyErr
}

// proceed says whether to send the body that the peer was asked about. It reports
// whether that was still a question.
func (w *writing) proceed(send bool) bool {
	if w == nil || w.answer == nil {
		return false
	}
	select {
	case w.answer <- send:
		return true
	default:
		return false
	}
}

// unwrittenTime is how long the end of a response waits for the end of its
// request (net/http's maxWriteWaitBeforeConnReuse).
const unwrittenTime = 50 * time.Millisecond

// done reports whether the request was written whole.
func (w *writing) done() bool {
	if w == nil {
		return true
	}
	select {
	case err := <-w.result:
		return err == nil
	default:
	}
	timer := time.NewTimer(unwrittenTime)
	defer timer.Stop()
	select {
	case err := <-w.result:
		return err == nil
	case <-timer.C:
		return false
	}
}

// requestBody is the body of a request that is written aside. Before each wait
// for more of it what there is goes out.
type requestBody struct {
	io.ReadCloser

	writing *writing
	waits   bool // until the peer has said that it wants the body
}

func (b *requestBody) Read(p []byte) (int, error) {
	// The standard library may read a first byte to see whether there is a body
	// at all, before it has written the headers.
	if b.writing.headWritten.Load() {
		if err := b.writing.x.conn.out.Flush(); err != nil {
			return 0, err
		}
		if b.waits {
			b.waits = false
			if !b.wanted() {
				b.writing.unwanted = true
				return 0, errNoContinue
			}
		}
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.writing.failBody(err)
	}
	return n, err
}

// wanted waits until the peer has said whether it wants the body, or has been
// silent for too long.
func (b *requestBody) wanted() bool {
	if trace := httptrace.ContextClientTrace(b.writing.x.req.Context()); trace != nil && trace.Wait100Continue != nil {
		trace.Wait100Continue()
	}
	timer := time.NewTimer(b.writing.x.conn.options.ExpectContinueTimeout)
	defer timer.Stop()
	select {
	case send := <-b.writing.answer:
		return send
	case <-timer.C:
		return true
	}
}
