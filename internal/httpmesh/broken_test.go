package httpmesh

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
	"github.com/inboardmesh/inboard/retry"
)

// A body that breaks off while it is read says where in the mesh that happened, as
// the call would have said before its headers.
func TestTheErrorOfABodyThatBreaksOffIsTheMeshs(t *testing.T) {
	t.Parallel()
	hangs := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for _, tt := range []struct {
		name     string
		route    time.Duration
		call     pipeline.CallOptions
		deadline time.Duration // the caller's
		then     http.HandlerFunc
		kind     outcome.Kind
		reason   string
	}{
		{name: "the route's timeout", route: time.Second, then: hangs, kind: outcome.Timeout, reason: "route timeout"},
		{name: "the call's timeout", route: 5 * time.Second, call: pipeline.CallOptions{Timeout: time.Second}, then: hangs, kind: outcome.Timeout, reason: "the call's own timeout"},
		{name: "the call's timeout, which is the longer", route: time.Second, call: pipeline.CallOptions{Timeout: 5 * time.Second}, then: hangs, kind: outcome.Timeout, reason: "route timeout"},
		{name: "the caller's deadline", deadline: time.Second, then: hangs, kind: outcome.Timeout, reason: context.DeadlineExceeded.Error()},
		{name: "a server that dies", route: time.Second, then: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, kind: outcome.Reset},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				w := newWorld(t, newTarget(protocol, limited(tt.route)), func(rw http.ResponseWriter, r *http.Request) {
					_, _ = io.WriteString(rw, "half")
					_ = http.NewResponseController(rw).Flush()
					tt.then(rw, r)
				})
				ctx := pipeline.WithOptions(t.Context(), tt.call)
				if tt.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.deadline)
					defer cancel()
				}
				resp := w.do(newRequest(ctx, t, http.MethodGet, paymentURL, nil))
				content, err := io.ReadAll(resp.Body)
				_, again := resp.Body.Read(make([]byte, 1))
				_ = resp.Body.Close()
				w.idle()
				failure, ok := errors.AsType[*meshfail.Error](err)
				if !ok || string(content) != "half" || !errors.Is(again, err) {
					t.Fatalf("got %q, %v (%T), then %v", content, err, err, again)
				}
				if failure.Kind != tt.kind || failure.Target != "payment.shop:80" || failure.Cluster != "v1" || failure.Endpoint != paymentAddress || !failure.Sent {
					t.Errorf("got %+v", failure)
				}
				if errors.Is(err, context.DeadlineExceeded) != (tt.kind == outcome.Timeout) || !strings.HasSuffix(err.Error(), tt.reason) {
					t.Errorf("got %v, want %q", err, tt.reason)
				}
				if tt.kind == outcome.Reset && resp.ProtoMajor == 1 && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("the cause of %v is lost", err)
				}
			})
		})
	}
}

// Those who pass a body on compare the error with context.Canceled.
func TestABodyWhoseRequestWasCanceledEndsWithThat(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		w := newWorld(t, newTarget(protocol), func(rw http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(rw).Flush()
			<-r.Context().Done()
		})
		ctx, cancel := context.WithCancel(t.Context())
		resp := w.do(newRequest(ctx, t, http.MethodGet, paymentURL, nil))
		cancel()
		if _, err := io.ReadAll(resp.Body); err != context.Canceled {
			t.Errorf("got %v (%T)", err, err)
		}
		_ = resp.Body.Close()
		w.idle()
	})
}

func TestAnErrorSaysThatTheBodyWasTooLargeForARetry(t *testing.T) {
	t.Parallel()
	const reason = "(not retried: the body is larger than 64 KiB and has no GetBody)"
	for _, tt := range []struct {
		name string
		size int
		on   retry.Conditions
		want bool
	}{
		{"a body that is kept", replayLimit, retry.OnReset, false},
		{"a body that is too large", replayLimit + 1, retry.OnReset, true},
		{"a failure that is not retried", replayLimit + 1, retry.OnConnectFailure, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				w := newWorld(t, newTarget(protocol, retrying(retry.Policy{MaxRetries: 2, On: tt.on})), func(_ http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					panic(http.ErrAbortHandler)
				})
				body := &tracked{Reader: bytes.NewReader(make([]byte, tt.size))}
				resp, err := w.transport.RoundTrip(newRequest(t.Context(), t, http.MethodPost, paymentURL, body))
				e := failed(t, resp, err, outcome.Reset)
				if strings.HasSuffix(e.Error(), reason) != tt.want {
					t.Errorf("after %d attempts: %v", w.served.Load(), e)
				}
				w.idle()
			})
		})
	}
}

// A server that obeys the time that it was told ends its response properly when that is
// over. A part of a response whose length is not known is never taken for the whole;
// one that is as long as it says is whole, and so is one whose end was in time, however
// late it is read once more.
func TestBT1_BT7_APartOfAResponseIsNotTakenForTheWhole(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name            string
		route, deadline time.Duration
		lasts           time.Duration // of the response
	}{
		{name: "the route's timeout", route: time.Second, lasts: time.Second},
		{name: "the caller's deadline", deadline: time.Second, lasts: time.Second},
		{name: "a response in time", route: time.Second, lasts: time.Second - time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				w := newWorld(t, newTarget(protocol, limited(tt.route)), func(rw http.ResponseWriter, _ *http.Request) {
					_, _ = io.WriteString(rw, "half")
					_ = http.NewResponseController(rw).Flush()
					time.Sleep(tt.lasts)
				})
				for range 50 { // whose timer is first is chance
					ctx, cancel := context.WithCancel(t.Context())
					if tt.deadline > 0 {
						ctx, cancel = context.WithTimeout(t.Context(), tt.deadline)
					}
					resp := w.do(newRequest(ctx, t, http.MethodGet, paymentURL, nil))
					content, err := io.ReadAll(resp.Body)
					time.Sleep(time.Second)
					_, again := resp.Body.Read(make([]byte, 1))
					_ = resp.Body.Close()
					cancel()
					if string(content) != "half" {
						t.Fatalf("got %q", content)
					}
					if tt.lasts < time.Second {
						if err != nil || !errors.Is(again, io.EOF) {
							t.Fatalf("got %v, then %v", err, again)
						}
						continue
					}
					failure, ok := errors.AsType[*meshfail.Error](err)
					if !ok || failure.Kind != outcome.Timeout || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(again, err) {
						t.Fatalf("got %v, then %v", err, again)
					}
				}
				w.idle()
			})
		})
	}
}
