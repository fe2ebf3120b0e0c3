package httpmesh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// complete is the hashes of the bodies that an upstream got to their end.
type complete struct {
	mu     sync.Mutex
	hashes []string
}

// read reads a body and notes it if it was complete.
func (c *complete) read(r *http.Request) {
	hash := sha256.New()
	if _, err := io.Copy(hash, r.Body); err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hashes = append(c.hashes, hex.EncodeToString(hash.Sum(nil)))
}

// BR14, BR15: whatever happens to the attempts, a body that an upstream got to
// its end is the client's, and it is the same in every attempt.
func TestBR14_EveryCompleteBodyIsTheClients(t *testing.T) {
	t.Parallel()
	sizes := []int{1, 1000, replayLimit - 1, replayLimit, replayLimit + 1, 3 * replayLimit}
	spoil := map[string]func(c *complete, rw http.ResponseWriter, r *http.Request, size int){
		"nothing": func(c *complete, _ http.ResponseWriter, r *http.Request, _ int) { c.read(r) },
		"503 after the body": func(c *complete, rw http.ResponseWriter, r *http.Request, _ int) {
			c.read(r)
			rw.WriteHeader(http.StatusServiceUnavailable)
		},
		"503 at once": func(_ *complete, rw http.ResponseWriter, _ *http.Request, _ int) {
			rw.WriteHeader(http.StatusServiceUnavailable)
		},
		"503 in the middle": func(_ *complete, rw http.ResponseWriter, r *http.Request, size int) {
			_, _ = io.CopyN(io.Discard, r.Body, int64(size/2))
			rw.WriteHeader(http.StatusServiceUnavailable)
		},
		"503 in the middle, and reads on": func(c *complete, rw http.ResponseWriter, r *http.Request, _ int) {
			_ = http.NewResponseController(rw).EnableFullDuplex()
			rw.WriteHeader(http.StatusServiceUnavailable)
			_ = http.NewResponseController(rw).Flush()
			c.read(r)
		},
		"reset at once": func(*complete, http.ResponseWriter, *http.Request, int) { panic(http.ErrAbortHandler) },
		"reset in the middle": func(_ *complete, _ http.ResponseWriter, r *http.Request, size int) {
			_, _ = io.CopyN(io.Discard, r.Body, int64(size/2))
			panic(http.ErrAbortHandler)
		},
		"reset after the body": func(c *complete, _ http.ResponseWriter, r *http.Request, _ int) {
			c.read(r)
			panic(http.ErrAbortHandler)
		},
	}
	for name, first := range spoil {
		for _, size := range sizes {
			for _, getBody := range []bool{true, false} {
				for _, known := range []bool{true, false} {
					t.Run(fmt.Sprintf("%s, %d bytes, GetBody %t, length known %t", name, size, getBody, known), func(t *testing.T) {
						t.Parallel()
						onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
							bodyCase{size: size, getBody: getBody, known: known, first: first, clean: name == "nothing"}.run(t, protocol)
						})
					})
				}
			}
		}
	}
}

type bodyCase struct {
	size           int
	getBody, known bool
	first          func(c *complete, rw http.ResponseWriter, r *http.Request, size int)
	clean          bool // first does no harm
}

func (bc bodyCase) run(t *testing.T, protocol func(*discovery.Target)) {
	t.Helper()
	content := make([]byte, bc.size)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	var got complete
	var w *world
	w = newWorld(t, newTarget(protocol, retrying(retry.Policy{MaxRetries: 2, On: retry.On5xx})),
		func(rw http.ResponseWriter, r *http.Request) {
			if w.served.Load() <= 2 {
				bc.first(&got, rw, r, bc.size)
				return
			}
			got.read(r)
		})
	body := &tracked{Reader: bytes.NewReader(content)}
	req := newRequest(t.Context(), t, http.MethodPost, paymentURL, body)
	if bc.known {
		req.ContentLength = int64(bc.size)
	}
	var copies []*tracked
	if bc.getBody {
		req.GetBody = func() (io.ReadCloser, error) {
			c := &tracked{Reader: bytes.NewReader(content)}
			copies = append(copies, c)
			return c, nil
		}
	}
	resp, err := w.transport.RoundTrip(req)
	// A body that is kept, or can be had again, is sent again.
	replayable := bc.getBody || bc.size <= replayLimit
	switch {
	case err == nil && resp.StatusCode == http.StatusOK:
	case replayable:
		t.Errorf("got %v, %v; the body can be sent again", resp, err)
	}
	switch {
	case err != nil:
	case resp.StatusCode == http.StatusOK:
		_ = readAll(t, resp)
	default:
		// Over HTTP/2 net/http ends no body that such a status has cut off: a
		// server that reads on and its client would wait for each other.
		_ = resp.Body.Close()
	}
	synctest.Wait()
	for i, hash := range got.hashes {
		if hash != sum(content) {
			t.Errorf("body %d of %d is not the client's", i+1, len(got.hashes))
		}
	}
	if bc.clean && len(got.hashes) != 1 {
		t.Errorf("the upstream got %d complete bodies, want 1", len(got.hashes))
	}
	for i, b := range append(copies, body) {
		if b.closed.Load() == 0 {
			t.Errorf("body %d of %d was not closed", i+1, len(copies)+1)
		}
	}
	w.idle()
}

// The limit itself: what is larger is sent on, but only once.
func TestBR14_ALargeBodyWithoutGetBodyIsSentOnce(t *testing.T) {
	t.Parallel()
	for size, attempts := range map[int]int64{replayLimit: 3, replayLimit + 1: 1} {
		onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
			var got complete
			w := newWorld(t, newTarget(protocol, retrying(retry.Policy{MaxRetries: 2, On: retry.On5xx})),
				func(rw http.ResponseWriter, r *http.Request) {
					got.read(r)
					rw.WriteHeader(http.StatusServiceUnavailable)
				})
			replays := 0
			w.hooks.Overflowed = func(e observe.OverflowEvent) {
				if e.Resource == "replay" && e.Cluster == "v1" {
					replays++
				}
			}
			content := bytes.Repeat([]byte("x"), size)
			resp := w.do(newRequest(t.Context(), t, http.MethodPost, paymentURL, &tracked{Reader: bytes.NewReader(content)}))
			if resp.StatusCode != http.StatusServiceUnavailable || w.served.Load() != attempts {
				t.Errorf("%d bytes: status %d after %d attempts, want %d", size, resp.StatusCode, w.served.Load(), attempts)
			}
			if told := replays > 0; told != (attempts == 1) || replays > 1 {
				t.Errorf("%d bytes: hooks were told %d times that it is not kept", size, replays)
			}
			_ = readAll(t, resp)
			for _, hash := range got.hashes {
				if hash != sum(content) {
					t.Errorf("%d bytes: a body is not the client's", size)
				}
			}
			w.idle()
		})
	}
}

func TestBR15_TrailersAreReplayed(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		var w *world
		var sums []string
		w = newWorld(t, newTarget(protocol, retrying(retry.Policy{MaxRetries: 2, On: retry.On5xx})),
			func(rw http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				sums = append(sums, r.Trailer.Get("X-Sum"))
				if w.served.Load() < 3 {
					rw.WriteHeader(http.StatusServiceUnavailable)
				}
			})
		req := newRequest(t.Context(), t, http.MethodPost, paymentURL, nil)
		req.Trailer = http.Header{"X-Sum": nil}
		req.Body = &tracked{Reader: io.MultiReader(strings.NewReader("42"), atEnd(func() { req.Trailer.Set("X-Sum", "42") }))}
		resp := w.do(req)
		_ = readAll(t, resp)
		if got := strings.Join(sums, " "); got != "42 42 42" {
			t.Errorf("the trailers were %q", got)
		}
		w.idle()
	})
}

// atEnd is an empty reader that calls a function when it is read.
type atEnd func()

func (f atEnd) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

func TestResponseTrailersReachTheCaller(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		w := newWorld(t, newTarget(protocol), func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(rw, "42")
			rw.Header().Set("X-Sum", "42")
		})
		resp := w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))
		if got := readAll(t, resp); got != "42" || resp.Trailer.Get("X-Sum") != "42" {
			t.Errorf("got %q with trailers %v", got, resp.Trailer)
		}
		w.idle()
	})
}

func TestABodyThatCannotBeReadFailsTheCallAndNobodyElse(t *testing.T) {
	t.Parallel()
	broken := errors.New("disk on fire")
	for _, size := range []int{0, 1, 1000, replayLimit, 2 * replayLimit} {
		onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
			var got complete
			w := newWorld(t, newTarget(protocol, retrying(retry.Policy{MaxRetries: 3, On: retry.On5xx})),
				func(_ http.ResponseWriter, r *http.Request) { got.read(r) })
			body := &tracked{Reader: io.MultiReader(bytes.NewReader(make([]byte, size)), iotest.ErrReader(broken))}
			resp, err := w.transport.RoundTrip(newRequest(t.Context(), t, http.MethodPost, paymentURL, body))
			e := failed(t, resp, err, outcome.BodyFailure)
			if !errors.Is(e, broken) || e.Attempts != 1 {
				t.Errorf("%d bytes: got %v after %d attempts", size, e, e.Attempts)
			}
			synctest.Wait()
			if len(got.hashes) != 0 {
				t.Errorf("%d bytes: the upstream took a broken body for a complete one", size)
			}
			if body.closed.Load() == 0 {
				t.Errorf("%d bytes: the body was not closed", size)
			}
			w.idle()
			if c := w.lastCall(); c.Outcome.Verdict() != outcome.Ignored {
				t.Errorf("%d bytes: the outcome counts as %v for the endpoint", size, c.Outcome.Verdict())
			}
		})
	}
}

func TestAGetBodyThatFailsEndsTheCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newTarget(retrying(retry.Policy{MaxRetries: 3, On: retry.On5xx})), func(rw http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			rw.WriteHeader(http.StatusServiceUnavailable)
		})
		gone := errors.New("file is gone")
		req := newRequest(t.Context(), t, http.MethodPost, paymentURL, strings.NewReader("42"))
		req.GetBody = func() (io.ReadCloser, error) { return nil, gone }
		resp, err := w.transport.RoundTrip(req)
		e := failed(t, resp, err, outcome.BodyFailure)
		if !errors.Is(e, gone) || w.served.Load() != 1 {
			t.Errorf("got %v after %d attempts", e, w.served.Load())
		}
		w.idle()
	})
}

// trickle is a body without end that comes in pieces. wait returns when it has
// been closed.
func trickle(size int, pause time.Duration) (body io.Reader, wait func()) {
	body, write := io.Pipe()
	done := make(chan struct{})
	go func() { // ends when the body is closed
		defer close(done)
		for {
			time.Sleep(pause)
			if _, err := write.Write(make([]byte, size)); err != nil {
				return
			}
		}
	}()
	return body, func() { <-done }
}

func TestBT1_ASlowBodyIsBoundedByTheCallsTime(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		w := newWorld(t, newTarget(protocol, limited(time.Second)), func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
		})
		source, wait := trickle(1, 300*time.Millisecond)
		defer wait()
		begin := time.Now()
		resp, err := w.transport.RoundTrip(newRequest(t.Context(), t, http.MethodPost, paymentURL, source))
		e := failed(t, resp, err, outcome.Timeout)
		if took := time.Since(begin); took != time.Second || !errors.Is(e, context.DeadlineExceeded) {
			t.Errorf("got %v after %v", e, took)
		}
		w.idle()
	})
}

// An answer that comes before the body is sent is the answer.
func TestAnEarlyResponseIsDelivered(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		w := newWorld(t, newTarget(protocol), func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(http.StatusRequestEntityTooLarge)
			_, _ = io.WriteString(rw, "too large")
		})
		source, wait := trickle(1000, time.Millisecond)
		defer wait()
		resp := w.do(newRequest(t.Context(), t, http.MethodPost, paymentURL, source))
		if got := readAll(t, resp); resp.StatusCode != http.StatusRequestEntityTooLarge || got != "too large" {
			t.Errorf("got %d %q", resp.StatusCode, got)
		}
		w.idle()
	})
}

// A stream in both directions: the response begins before the body has ended.
func TestTheBodyIsSentOnWhileTheResponseIsRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newTarget(over(discovery.HTTP2)), func(rw http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(rw)
			_ = rc.Flush()
			buffer := make([]byte, 1)
			for {
				n, err := r.Body.Read(buffer)
				if n > 0 {
					_, _ = rw.Write(buffer[:n])
					_ = rc.Flush()
				}
				if err != nil {
					return
				}
			}
		})
		source, write := io.Pipe()
		resp := w.do(newRequest(t.Context(), t, http.MethodPost, paymentURL, source))
		echo := make([]byte, 1)
		for _, c := range []byte("hello") {
			if _, err := write.Write([]byte{c}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(resp.Body, echo); err != nil || echo[0] != c {
				t.Fatalf("got %q, %v, want %q", echo, err, c)
			}
		}
		_ = write.Close()
		_ = readAll(t, resp)
		w.idle()
	})
}
