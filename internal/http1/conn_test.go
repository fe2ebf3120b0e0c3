package http1_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/internal/deadline"
	"github.com/inboardmesh/inboard/internal/http1"
	"github.com/inboardmesh/inboard/internal/memnet"
)

func newRequest(ctx context.Context, t *testing.T) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://payment/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// answer serves one request after another until the connection ends.
func answer(conn net.Conn, text string) {
	br := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		if _, err := io.WriteString(conn, text); err != nil {
			return
		}
	}
}

func TestAReservationIsForOneRequest(t *testing.T) {
	t.Parallel()
	client, server := memnet.Pipe()
	go answer(server, ok2)
	c := http1.New(client, new(http1.Options))
	defer c.Close()
	changes := 0
	c.SetStateHook(func(*http1.Conn) { changes++ })
	if c.Available() != 1 || c.InFlight() != 0 {
		t.Error("a new connection is not available")
	}
	if err := c.Reserve(); err != nil {
		t.Fatal(err)
	}
	if c.Available() != 0 || c.InFlight() != 1 || c.Reserve() == nil {
		t.Error("it was reserved twice")
	}
	c.Release()
	c.Release()
	if changes != 1 || c.Available() != 1 {
		t.Errorf("%d changes, available %d", changes, c.Available())
	}
	resp, err := c.RoundTrip(newRequest(t.Context(), t))
	if err != nil {
		t.Fatal(err)
	}
	if c.InFlight() != 1 {
		t.Error("an unread response leaves the connection free")
	}
	if b, err := io.ReadAll(resp.Body); string(b) != "ok" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if changes != 2 || c.Available() != 1 {
		t.Errorf("after the response: %d changes, available %d", changes, c.Available())
	}
	_ = c.Close()
	if changes != 3 || c.Err() == nil || c.Reserve() == nil || c.Available() != 0 {
		t.Errorf("after Close: %d changes, %v", changes, c.Err())
	}
}

// Over TCP the end is looked for on the socket, without reading.
func TestAPeerThatHasClosedIsNoticedOverTCP(t *testing.T) {
	t.Parallel()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		if conn, err := ln.Accept(); err == nil {
			accepted <- conn
		}
	}()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if !http1.Usable(conn) {
		t.Skip("this system cannot look at a socket")
	}
	c := http1.New(conn, new(http1.Options))
	defer c.Close()
	server := <-accepted
	go answer(server, ok2)
	for range 3 {
		if err := c.Reserve(); err != nil {
			t.Fatal(err)
		}
		resp, err := c.RoundTrip(newRequest(t.Context(), t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(resp.Body); err != nil {
			t.Fatal(err)
		}
	}
	_ = server.Close()
	// The end takes a moment to arrive, over loopback too.
	for deadline := time.Now().Add(10 * time.Second); c.Check() == nil; {
		if time.Now().After(deadline) {
			t.Fatal("the end was not noticed")
		}
	}
	if err := c.Reserve(); err == nil || !strings.Contains(err.Error(), "closed the idle connection") {
		t.Errorf("got %v", err)
	}
}

// The deadline of a call needs no timer, and ends the wait for all that.
func TestADeadlineEndsTheExchange(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"before the head": "", "in the head": "HTTP/1.1 200", "in the body": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client, server := memnet.Pipe()
				defer server.Close()
				go answer(server, text)
				c := http1.New(client, new(http1.Options))
				defer c.Close()
				var ctx deadline.Context
				start := time.Now()
				ctx.Start(context.Background(), start.Add(time.Second), nil)
				defer ctx.Stop()
				resp, err := c.RoundTrip(newRequest(&ctx, t))
				if err == nil {
					_, err = io.ReadAll(resp.Body)
				}
				if classOf(err) != "deadline" || time.Since(start) != time.Second {
					t.Errorf("%v after %v", err, time.Since(start))
				}
				if c.Err() == nil {
					t.Error("the connection is kept")
				}
			})
		})
	}
}

// The limit of an attempt is that of the head; the body has the time of the call.
func TestTheLimitOfAnAttemptEndsWithTheHead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		head, end time.Duration // when the head comes, and the end of the body
		want      string
		took      time.Duration
	}{
		{name: "a head that is late", head: 2 * time.Second, want: "canceled", took: time.Second},
		{name: "a body that takes longer than a head may", head: time.Second / 2, end: 5 * time.Second, took: 5 * time.Second},
		{name: "a body that is late", head: time.Second / 2, end: time.Minute, want: "deadline", took: 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client, peer := memnet.Pipe()
				defer peer.Close()
				go func() {
					s := &server{conn: peer, br: bufio.NewReader(peer)}
					_ = head(s) && pause(c.head)(s) && say(ok2[:len(ok2)-1])(s) && pause(c.end-c.head)(s) && say("k")(s)
				}()
				conn := http1.New(client, new(http1.Options))
				defer conn.Close()
				var call deadline.Context
				start := time.Now()
				call.Start(context.Background(), start.Add(10*time.Second), nil)
				defer call.Stop()
				var attempt deadline.Attempt
				attempt.Start(&call, start.Add(time.Second), errBody)
				defer attempt.Stop()
				resp, err := conn.RoundTrip(newRequest(&attempt, t))
				if err == nil {
					attempt.Lift()
					_, err = io.ReadAll(resp.Body)
				}
				if c.want == "canceled" {
					if !errors.Is(err, errBody) { // the cause
						t.Errorf("got %v", err)
					}
				} else if classOf(err) != c.want {
					t.Errorf("got %v", err)
				}
				if took := time.Since(start); took != c.took {
					t.Errorf("it took %v", took)
				}
				time.Sleep(time.Hour) // the server has said what it had to say
			})
		})
	}
}

// What a deadline did to one request must not touch the next.
func TestADeadlineEndsWithItsRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, server := memnet.Pipe()
		defer server.Close()
		go answer(server, ok2)
		c := http1.New(client, new(http1.Options))
		defer c.Close()
		for _, limit := range []time.Duration{time.Second, 0, time.Minute, 0} {
			ctx := t.Context()
			if limit > 0 {
				bounded := new(deadline.Context)
				bounded.Start(ctx, time.Now().Add(limit), nil)
				defer bounded.Stop()
				ctx = bounded
			}
			resp, err := c.RoundTrip(newRequest(ctx, t))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(resp.Body); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
	})
}

func TestWhetherTheRequestWasSeenIsSaid(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		script []step
		before int // requests that went well
		idle   time.Duration
		want   http1.Error
	}{
		{name: "a new connection that ends without an answer", script: []step{head, hangUp}, want: http1.Error{Written: true}},
		{name: "a used connection that ends without an answer", script: []step{head, say(ok2), head, hangUp}, before: 1, want: http1.Error{Written: true, Stale: true}},
		{name: "an unused connection that ends without an answer, after a while", script: []step{head, hangUp}, idle: 2 * time.Second, want: http1.Error{Written: true, Stale: true}},
		{name: "a used connection that ends in the midst of an answer", script: []step{head, say(ok2), head, say("HTTP"), hangUp}, before: 1, want: http1.Error{Written: true}},
		{name: "a connection that cannot be written to", script: []step{hangUp}, want: http1.Error{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client, peer := memnet.Pipe()
				s := &server{conn: peer, br: bufio.NewReader(peer)}
				go func() {
					for _, next := range c.script {
						if !next(s) {
							return
						}
					}
				}()
				conn := http1.New(client, new(http1.Options))
				defer conn.Close()
				for range c.before {
					resp, err := conn.RoundTrip(newRequest(t.Context(), t))
					if err != nil {
						t.Fatal(err)
					}
					_, _ = io.Copy(io.Discard, resp.Body)
				}
				time.Sleep(c.idle)
				synctest.Wait()
				_, err := conn.RoundTrip(newRequest(t.Context(), t))
				e, ok := err.(*http1.Error)
				if !ok || e.Written != c.want.Written || e.Stale != c.want.Stale || e.Unsendable {
					t.Errorf("got %#v", err)
				}
			})
		})
	}
}
