package faultproxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/internal/faultproxy"
	"github.com/inboardmesh/inboard/internal/memnet"
)

// world is a server that echoes, behind a proxy, on a network in memory.
type world struct {
	*faultproxy.Proxy

	network memnet.Network
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	ln, err := w.network.Listen("server")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn) // until the client or the proxy ends it
			})
		}
	})
	w.Proxy, err = faultproxy.Start(faultproxy.Config{
		Listen: func() (net.Listener, error) { return w.network.Listen("proxy") },
		Dial: func(ctx context.Context) (net.Conn, error) {
			return w.network.DialContext(ctx, "mem", "server")
		},
		Seed: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = ln.Close()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
	return w
}

func (w *world) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := w.network.DialContext(t.Context(), "mem", "proxy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// echo sends text and returns what comes back until as much has come or the
// connection ends, and how long that took.
func echo(t *testing.T, conn net.Conn, text string) (got string, took time.Duration, err error) {
	t.Helper()
	start := time.Now()
	if _, err := io.WriteString(conn, text); err != nil {
		return "", time.Since(start), err
	}
	b := make([]byte, len(text))
	n, err := io.ReadFull(conn, b)
	return string(b[:n]), time.Since(start), err
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name               string
		toServer, toClient faultproxy.Faults
		text, want         string
		took, atMost       time.Duration // atMost 0 is took
		fails              bool
	}{
		{name: "without faults everything passes at once", text: "hello", want: "hello"},
		{
			name: "latency delays each direction", toServer: faultproxy.Faults{Latency: 50 * time.Millisecond},
			toClient: faultproxy.Faults{Latency: 30 * time.Millisecond}, text: "hello", want: "hello", took: 80 * time.Millisecond,
		},
		{
			name: "jitter adds to it", toServer: faultproxy.Faults{Latency: 10 * time.Millisecond, Jitter: 10 * time.Millisecond},
			text: "hello", want: "hello", took: 10 * time.Millisecond, atMost: 20 * time.Millisecond,
		},
		{
			name: "bandwidth is bytes per second", toServer: faultproxy.Faults{Bandwidth: 1000},
			text: strings.Repeat("x", 500), want: strings.Repeat("x", 500), took: 500 * time.Millisecond,
		},
		{
			name: "slices arrive one by one", toClient: faultproxy.Faults{Slice: 1, SliceDelay: time.Second},
			text: "hello", want: "hello", took: 4 * time.Second,
		},
		{
			name: "a limit cuts the connection after its bytes", toClient: faultproxy.Faults{Limit: 3},
			text: "hello", want: "hel", fails: true,
		},
		{name: "a reset lets nothing pass", toServer: faultproxy.Faults{Reset: true}, text: "hello", fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.Set(c.toServer, c.toClient)
				got, took, err := echo(t, w.dial(t), c.text)
				atMost := max(c.took, c.atMost)
				if got != c.want || took < c.took || took > atMost || (err != nil) != c.fails {
					t.Errorf("got %q after %v, %v", got, took, err)
				}
			})
		})
	}
}

func TestABlackholeSwallowsAndLooksAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.Set(faultproxy.Faults{}, faultproxy.Faults{Blackhole: true})
		conn := w.dial(t)
		if err := conn.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if got, took, err := echo(t, conn, "hello"); got != "" || took != time.Hour {
			t.Errorf("got %q after %v, %v", got, took, err)
		}
		w.Set(faultproxy.Faults{}, faultproxy.Faults{})
		if err := conn.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if got, _, err := echo(t, conn, "again"); got != "again" {
			t.Errorf("once the hole is mended: got %q, %v", got, err)
		}
	})
}

func TestAHalfOpenConnectionDoesNotEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.Set(faultproxy.Faults{HalfOpen: true}, faultproxy.Faults{})
		conn := w.dial(t)
		if _, _, err := echo(t, conn, "hello"); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		synctest.Wait()
		if w.Open() != 1 {
			t.Error("the server was told of the end")
		}
		w.Reset()
		synctest.Wait()
		if w.Open() != 0 {
			t.Error("a reset does not end it")
		}
	})
}

func TestAnEndIsPassedOnAfterTheDataBeforeIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.Set(faultproxy.Faults{Latency: time.Second}, faultproxy.Faults{Latency: time.Second})
		conn := w.dial(t)
		_, _ = io.WriteString(conn, "hello")
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); string(got) != "hello" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestDownRefusesAndUpAcceptsAtTheSameAddress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		conn := w.dial(t)
		if _, _, err := echo(t, conn, "hello"); err != nil {
			t.Fatal(err)
		}
		w.Down()
		if got, _, err := echo(t, conn, "hello"); err == nil {
			t.Errorf("an open connection survived: %q", got)
		}
		if _, err := w.network.DialContext(t.Context(), "mem", "proxy"); err == nil {
			t.Error("a connection was accepted")
		}
		if err := w.Up(); err != nil {
			t.Fatal(err)
		}
		if got, _, err := echo(t, w.dial(t), "again"); got != "again" {
			t.Errorf("got %q, %v", got, err)
		}
		if w.Accepted() != 2 {
			t.Errorf("%d connections were accepted", w.Accepted())
		}
	})
}

// Over TCP a reset is a RST, and down is a port where nobody listens.
func TestOverTCP(t *testing.T) {
	t.Parallel()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.Copy(conn, conn)
	})
	p, err := faultproxy.Start(faultproxy.Config{Listen: faultproxy.ListenTCP(), Dial: faultproxy.DialTCP(ln.Addr().String())})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	dial := func() (net.Conn, error) {
		return (&net.Dialer{}).DialContext(t.Context(), "tcp", p.Addr().String())
	}
	conn, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, _, err := echo(t, conn, "hello"); got != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
	p.Reset()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset: %v", err)
	}
	p.Down()
	if _, err := dial(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("while it is down: %v", err)
	}
	if err := p.Up(); err != nil {
		t.Error(err)
	}
}
