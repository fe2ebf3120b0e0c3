package inbound

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"

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
			end: func(l *Listeners) error {
				_, err := l.Drain(context.Background(), atOnce)
				return err
			},
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
