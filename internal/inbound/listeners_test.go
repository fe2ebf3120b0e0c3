package inbound

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

func TestFindGoesByTheLocalAddress(t *testing.T) {
	t.Parallel()
	tcp := func(ip string, port int) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: port} }
	l := New(Options{})
	add := func(addr net.Addr) *Listener {
		ln := newListener(l, stub{addr})
		l.open[ln], l.byAddress[ln.name] = struct{}{}, ln
		return ln
	}
	v4, v6 := add(tcp("0.0.0.0", 8080)), add(tcp("::", 8081))
	specific, specific6 := add(tcp("10.0.0.1", 9090)), add(tcp("2001:db8::1", 9090))
	unix := add(&net.UnixAddr{Name: "/run/payment.sock", Net: "unix"})
	if v6.Name() != "0.0.0.0:8081" {
		t.Errorf("a wildcard is known as %q", v6.Name())
	}
	tests := []struct {
		name  string
		local net.Addr
		want  *Listener
	}{
		{"a wildcard, over IPv4", tcp("10.0.0.1", 8080), v4},
		{"a wildcard, over IPv6", tcp("2001:db8::1", 8080), v4},
		{"a wildcard of IPv6, over IPv4", tcp("127.0.0.1", 8081), v6},
		{"a wildcard of IPv6, over mapped IPv4", tcp("::ffff:127.0.0.1", 8081), v6},
		{"a specific address", tcp("10.0.0.1", 9090), specific},
		{"a specific address, mapped", tcp("::ffff:10.0.0.1", 9090), specific},
		{"a specific address of IPv6", tcp("2001:db8::1", 9090), specific6},
		{"another address", tcp("10.0.0.2", 9090), nil},
		{"another port", tcp("10.0.0.1", 7070), nil},
		{"a Unix socket", &net.UnixAddr{Name: "/run/payment.sock", Net: "unix"}, unix},
		{"another Unix socket", &net.UnixAddr{Name: "/run/other.sock", Net: "unix"}, nil},
		{"no address", nil, nil},
	}
	for _, tt := range tests {
		if got := l.Find(tt.local); got != tt.want {
			t.Errorf("%s: Find(%v) = %p, want %p", tt.name, tt.local, got, tt.want)
		}
	}
}

// A server closes its listener first, and its connections when their requests
// have ended: until then they belong to the mesh.
func TestAClosedListenerIsFoundUntilItsLastConnectionIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ln := b.listen(permissive())
		first, err := b.dial(nil)
		if err != nil {
			t.Fatal(err)
		}
		second, err := b.dial(b.client(customerID))
		if err != nil {
			t.Fatal(err)
		}
		_ = ln.Close()
		_ = ln.Close()
		for i, conn := range []net.Conn{first, second} {
			if b.listeners.Find(ln.Addr()) != ln {
				t.Fatalf("%d connections are open, and the listener is not found", 2-i)
			}
			if err := hello(conn); err != nil {
				t.Error(err)
			}
			if i == 0 {
				b.source.publish(address, discovery.Update[*discovery.Inbound]{Value: strict()})
				if plainChain(ln) != nil {
					t.Error("a change of policy does not apply to what is still open")
				}
			}
			_ = conn.Close()
			synctest.Wait()
		}
		if b.listeners.Find(ln.Addr()) != nil {
			t.Error("the listener is found although nothing is open")
		}
		if n := b.source.watching(address); n != 0 {
			t.Errorf("%d watches are left", n)
		}
	})
}

func TestAnAddressMayBeListenedOnAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		first := b.listen(permissive())
		open, err := b.dial(nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = first.Close()
		second := b.listen(permissive())
		if got := b.listeners.Find(second.Addr()); got != second {
			t.Error("the second listener is not found")
		}
		_ = open.Close()
		synctest.Wait()
		if got := b.listeners.Find(second.Addr()); got != second {
			t.Error("the second listener is not found after the first has ended")
		}
		if _, err := b.dial(nil); err != nil {
			t.Error(err)
		}
	})
}

func TestCloseEndsEverything(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ln := b.listen(permissive())
		conn, err := b.dial(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.listeners.Close(); err != nil {
			t.Error(err)
		}
		if err := b.listeners.Close(); err != nil {
			t.Errorf("the second Close: %v", err)
		}
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept after Close: %v", err)
		}
		if _, err := b.dial(nil); err == nil {
			t.Error("a connection was accepted after Close")
		}
		if err := hello(conn); err != nil {
			t.Errorf("an open connection belongs to its server: %v", err)
		}
		if b.listeners.Find(ln.Addr()) != nil {
			t.Error("the listener is found after Close")
		}
		inner, err := b.network.Listen(address)
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.listeners.Listen(t.Context(), inner)
		if want := `listen "10.0.0.1:8080": mesh closed`; err == nil || err.Error() != want || !errors.Is(err, ErrClosed) {
			t.Errorf("Listen after Close: %v, want %s", err, want)
		}
	})
}

func TestWhoWaitsToListenIsToldOfTheEnd(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end  func(l *Listeners) error
		want string
	}{
		"Close": {end: (*Listeners).Close, want: `listen "10.0.0.1:8080": mesh closed`},
		"Drain": {
			end:  func(l *Listeners) error { return l.Drain(context.Background()) },
			want: `listen "10.0.0.1:8080": the mesh drains`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				result := b.start()
				if err := tt.end(b.listeners); err != nil {
					t.Error(err)
				}
				if got := <-result; got.err == nil || got.err.Error() != tt.want {
					t.Errorf("got %v, want %s", got.err, tt.want)
				}
				if got := <-b.start(); got.err == nil || got.err.Error() != tt.want {
					t.Errorf("the next got %v, want %s", got.err, tt.want)
				}
			})
		})
	}
}

func TestDrainStopsAcceptingAndWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ln := b.listen(permissive())
		if b.listeners.Draining() {
			t.Error("it drains before Drain")
		}
		b.listeners.Begin()
		b.listeners.Begin()
		drained := make(chan error, 2)
		for range 2 {
			go func() { drained <- b.listeners.Drain(t.Context()) }()
		}
		accepted := make(chan error, 1)
		go func() {
			_, err := ln.Accept()
			accepted <- err
		}()
		synctest.Wait()
		if !b.listeners.Draining() {
			t.Error("it does not drain after Drain")
		}
		if _, err := b.dial(nil); err == nil {
			t.Error("a connection was accepted")
		}
		b.listeners.End()
		b.listeners.Begin() // one that came over an open connection
		b.listeners.End()
		synctest.Wait()
		select {
		case err := <-drained:
			t.Fatalf("Drain returned %v while a request runs", err)
		case err := <-accepted:
			t.Fatalf("Accept returned %v while a request runs: its server would end", err)
		default:
		}
		b.listeners.End()
		for range 2 {
			if err := <-drained; err != nil {
				t.Error(err)
			}
		}
		_ = ln.Close()
		if err := <-accepted; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept after Close: %v", err)
		}
		if err := b.listeners.Drain(t.Context()); err != nil {
			t.Errorf("Drain once more: %v", err)
		}
	})
}

// What is lost with a connection is the request that is on its way.
func TestDrainWaitsForTheConnections(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		closed time.Duration // by the peer; 0 is never
		call   time.Duration // when a last request comes, for a second; 0 is never
		ctx    time.Duration
		want   time.Duration
	}{
		{name: "until the peer closes", closed: 2 * time.Second, ctx: time.Minute, want: 2 * time.Second},
		{name: "not for a peer that stays", ctx: time.Minute, want: lastRequests},
		{name: "no longer than its context, without an error", ctx: time.Second, want: time.Second},
		{name: "for a request that comes at last", call: lastRequests - time.Millisecond, ctx: time.Minute, want: lastRequests - time.Millisecond + time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.listen(permissive())
				client, err := b.dial(nil)
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				if _, err := client.Write([]byte("GET / HTTP/1.1\r\n")); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if tt.closed > 0 {
					time.AfterFunc(tt.closed, func() { _ = client.Close() })
				}
				if tt.call > 0 {
					time.AfterFunc(tt.call, b.listeners.Begin)
					time.AfterFunc(tt.call+time.Second, b.listeners.End)
				}
				ctx, cancel := context.WithTimeout(t.Context(), tt.ctx)
				defer cancel()
				begin := time.Now()
				if err := b.listeners.Drain(ctx); err != nil {
					t.Error(err)
				}
				if took := time.Since(begin); took != tt.want {
					t.Errorf("it took %v, want %v", took, tt.want)
				}
			})
		})
	}
}

func TestDrainGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for range 3 {
			b.listeners.Begin()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		err := b.listeners.Drain(ctx)
		if want := "drain: 3 requests still run: context deadline exceeded"; err == nil || err.Error() != want || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %s", err, want)
		}
		if took := time.Since(begin); took != time.Second {
			t.Errorf("it took %v", took)
		}
		for range 3 {
			b.listeners.End()
		}
		if err := b.listeners.Drain(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestDrainMissesNoEnd(t *testing.T) {
	t.Parallel()
	for range 200 {
		l := New(Options{})
		var wg sync.WaitGroup
		for range 8 {
			l.Begin()
			wg.Go(l.End)
		}
		if err := l.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
	}
}

func TestPeerIsWhatWithPeerSaid(t *testing.T) {
	t.Parallel()
	if id, ok := Peer(t.Context()); ok {
		t.Errorf("a context without a peer has %v", id)
	}
	id := meshtls.MustID(customerID)
	if got, ok := Peer(WithPeer(t.Context(), id)); !ok || got != id {
		t.Errorf("Peer() = %v, %t", got, ok)
	}
}
