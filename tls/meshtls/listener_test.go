package meshtls_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// bench is a listener in memory that echoes what it accepts, one line per
// connection, behind "tls " or "plain ".
type bench struct {
	network  memnet.Network
	listener *meshtls.Listener
	client   *tls.Config

	mu      sync.Mutex
	policy  meshtls.ListenPolicy // guarded by mu
	err     error                // what the policy fails of; guarded by mu
	refused []error              // guarded by mu
	strict  meshtls.ListenPolicy
}

func newBench(t *testing.T, config meshtls.ListenerConfig) *bench {
	t.Helper()
	ca := tlstest.NewCA(t)
	own := source(t, ca.Workload(t, paymentID), ca)
	b := &bench{
		client: clientConfig(t, meshtls.ClientParams{Identity: own, Roots: own, Authorize: meshtls.AuthorizeAny()}),
		strict: meshtls.ListenPolicy{TLS: strictServer(t, own, meshtls.AuthorizeAny())},
	}
	b.policy = b.strict
	config.Policy = func() (meshtls.ListenPolicy, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.policy, b.err
	}
	config.OnRefused = func(_ net.Addr, err error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.refused = append(b.refused, err)
	}
	inner, err := b.network.Listen("server")
	if err != nil {
		t.Fatal(err)
	}
	b.listener = meshtls.NewListener(inner, config)
	t.Cleanup(func() { _ = b.listener.Close() })
	return b
}

func (b *bench) permissive() {
	b.setPolicy(meshtls.ListenPolicy{TLS: b.strict.TLS, Plaintext: true}, nil)
}
func (b *bench) disabled() { b.setPolicy(meshtls.ListenPolicy{Plaintext: true}, nil) }

func (b *bench) setPolicy(policy meshtls.ListenPolicy, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.policy, b.err = policy, err
}

func (b *bench) refusals() []error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused
}

// echo serves until the listener is closed.
func (b *bench) echo() {
	for {
		conn, err := b.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			kind := "plain "
			if _, ok := conn.(*tls.Conn); ok {
				kind = "tls "
			}
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err == nil {
				_, _ = io.WriteString(conn, kind+line)
			}
		}()
	}
}

func (b *bench) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := b.network.DialContext(t.Context(), "", "server")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// slowly writes one byte at a time.
type slowly struct{ net.Conn }

func (s slowly) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := s.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
		time.Sleep(time.Millisecond)
	}
	return len(p), nil
}

func TestBS6_ThePolicyAndTheFirstBytesDecide(t *testing.T) {
	t.Parallel()
	strict, permissive, disabled := (*bench).setStrict, (*bench).permissive, (*bench).disabled
	const hello = "hello\n"
	tests := []struct {
		name   string
		policy func(*bench)
		tls    bool
		slow   bool
		send   string
		want   string
		reason meshtls.Reason
	}{
		{"STRICT takes TLS", strict, true, false, hello, "tls hello\n", 0},
		{"STRICT takes TLS byte by byte", strict, true, true, hello, "tls hello\n", 0},
		{"STRICT refuses plaintext", strict, false, false, hello, "", meshtls.PlaintextRefused},
		{"STRICT refuses plaintext byte by byte", strict, false, true, hello, "", meshtls.PlaintextRefused},
		{"STRICT refuses a single byte", strict, false, false, "x", "", meshtls.PlaintextRefused},
		{"STRICT refuses an SSLv2 hello", strict, false, false, "\x80\x2e\x01\x03\x01" + hello, "", meshtls.PlaintextRefused},
		{"STRICT refuses a PROXY header", strict, false, false, "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n\x16\x03\x01", "", meshtls.PlaintextRefused},
		{"STRICT refuses a binary PROXY header", strict, false, false, "\r\n\r\n\x00\r\nQUIT\n\x21", "", meshtls.PlaintextRefused},
		{"STRICT refuses a record that is no handshake", strict, false, false, "\x17\x03\x03\x00\x05" + hello, "", meshtls.PlaintextRefused},
		{"STRICT refuses a handshake of another version", strict, false, false, "\x16\x02\x00\x00\x05" + hello, "", meshtls.PlaintextRefused},
		{"STRICT refuses a handshake that is junk", strict, false, false, "\x16\x03\x01\x00\x05" + hello, "", meshtls.HandshakeFailed},
		{"PERMISSIVE takes TLS", permissive, true, false, hello, "tls hello\n", 0},
		{"PERMISSIVE takes TLS byte by byte", permissive, true, true, hello, "tls hello\n", 0},
		{"PERMISSIVE takes plaintext", permissive, false, false, hello, "plain hello\n", 0},
		{"PERMISSIVE takes plaintext byte by byte", permissive, false, true, hello, "plain hello\n", 0},
		{"PERMISSIVE takes an empty line", permissive, false, false, "\n", "plain \n", 0},
		{"PERMISSIVE loses no byte of what only begins like TLS", permissive, false, false, "\x16\n", "plain \x16\n", 0},
		{"PERMISSIVE loses no byte of what only begins like TLS, byte by byte", permissive, false, true, "\x16\x03\n", "plain \x16\x03\n", 0},
		{"PERMISSIVE does not pass a bad TLS handshake on as plaintext", permissive, false, false, "\x16\x03\x01\x00\x05" + hello, "", meshtls.HandshakeFailed},
		{"DISABLE takes plaintext", disabled, false, false, hello, "plain hello\n", 0},
		{"DISABLE passes TLS on as it is", disabled, false, false, "\x16\x03\x01\n", "plain \x16\x03\x01\n", 0},
		{"no policy refuses", func(b *bench) { b.setPolicy(meshtls.ListenPolicy{}, nil) }, false, false, "", "", meshtls.NotServed},
		{"a policy that fails refuses", func(b *bench) { b.setPolicy(b.strict, errors.New("no configuration yet")) }, false, false, "", "", meshtls.NotServed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, meshtls.ListenerConfig{})
				test.policy(b)
				go b.echo()
				raw := b.dial(t)
				conn := raw
				if test.slow {
					conn = slowly{conn}
				}
				if test.tls {
					conn = tls.Client(conn, b.client)
				}
				_, _ = io.WriteString(conn, test.send)
				synctest.Wait()
				got, err := io.ReadAll(conn)
				if test.reason != meshtls.HandshakeFailed && string(got) != test.want {
					t.Errorf("got %q, %v, want %q", got, err, test.want)
				}
				// A bad handshake gets an alert, and nothing else.
				if test.reason == meshtls.HandshakeFailed && (len(got) < 1 || got[0] != 0x15) {
					t.Errorf("got %q, want an alert", got)
				}
				_ = raw.Close()
				synctest.Wait()
				refusals := b.refusals()
				if test.reason == 0 && len(refusals) > 0 {
					t.Errorf("refused %v", refusals)
				}
				if test.reason != 0 && (len(refusals) != 1 || reason(refusals[0]) != test.reason) {
					t.Errorf("refused %v, want reason %q once", refusals, test.reason)
				}
				_ = b.listener.Close()
			})
		})
	}
}

func (b *bench) setStrict() { b.setPolicy(b.strict, nil) }

func TestServerFirstProtocolsWorkWhereThereIsNoTLS(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, meshtls.ListenerConfig{})
		b.disabled()
		client := b.dial(t)
		conn, err := b.listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "220 ready")
		_ = conn.Close()
		if got, _ := io.ReadAll(client); string(got) != "220 ready" {
			t.Errorf("got %q", got)
		}
	})
}

func TestASwitchToSTRICTActsOnAConnectionThatWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, meshtls.ListenerConfig{})
		b.permissive()
		go b.echo()
		client := b.dial(t)
		synctest.Wait()
		b.setStrict()
		_, _ = io.WriteString(client, "hello\n")
		if got, _ := io.ReadAll(client); len(got) > 0 {
			t.Errorf("got %q in plaintext", got)
		}
		synctest.Wait()
		if refusals := b.refusals(); len(refusals) != 1 || reason(refusals[0]) != meshtls.PlaintextRefused {
			t.Errorf("refused %v", refusals)
		}
		_ = b.listener.Close()
	})
}

func TestASwitchToDISABLEActsOnAConnectionThatWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, meshtls.ListenerConfig{})
		go b.echo()
		client := b.dial(t)
		synctest.Wait()
		b.disabled()
		_, _ = io.WriteString(client, "hello\n")
		if got, _ := io.ReadAll(client); string(got) != "plain hello\n" {
			t.Errorf("got %q", got)
		}
		_ = b.listener.Close()
	})
}

func TestV29_G22_SilentConnectionsAreClosedAndHurtNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, meshtls.ListenerConfig{})
		b.permissive()
		go b.echo()
		start := time.Now()
		var silent []net.Conn
		for i := range 2000 {
			conn := b.dial(t)
			if i%2 == 1 { // half a hello
				_, _ = conn.Write([]byte{0x16, 0x03, 0x01, 0x02})
			}
			silent = append(silent, conn)
		}
		legitimate := tls.Client(b.dial(t), b.client)
		_, _ = io.WriteString(legitimate, "hello\n")
		if got, _ := io.ReadAll(legitimate); string(got) != "tls hello\n" {
			t.Errorf("got %q", got)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("a good client waited for %v", waited)
		}
		for _, conn := range silent {
			_, _ = io.ReadAll(conn)
		}
		if waited := time.Since(start); waited != meshtls.DefaultHandshakeTimeout {
			t.Errorf("the last one was closed after %v, want %v", waited, meshtls.DefaultHandshakeTimeout)
		}
		synctest.Wait()
		for _, err := range b.refusals() {
			if reason(err) != meshtls.TimedOut || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("got %v, want a timeout", err)
			}
		}
		if n := len(b.refusals()); n != 2000 {
			t.Errorf("%d refusals", n)
		}
		_ = b.listener.Close()
	})
}

func TestTheTimeoutEndsWithTheHandshake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, meshtls.ListenerConfig{HandshakeTimeout: time.Second})
		b.permissive()
		go b.echo()
		secure := tls.Client(b.dial(t), b.client)
		plain := b.dial(t)
		if err := secure.Handshake(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(plain, "he")
		time.Sleep(time.Hour)
		_, _ = io.WriteString(secure, "hello\n")
		_, _ = io.WriteString(plain, "llo\n")
		for conn, want := range map[net.Conn]string{secure: "tls hello\n", plain: "plain hello\n"} {
			if got, err := io.ReadAll(conn); string(got) != want {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		}
		_ = b.listener.Close()
	})
}

func TestTheOldestHandshakeMakesRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, meshtls.ListenerConfig{MaxPending: 2})
		go b.echo()
		first, second := b.dial(t), b.dial(t)
		synctest.Wait()
		third := tls.Client(b.dial(t), b.client)
		_, _ = io.WriteString(third, "hello\n")
		if got, _ := io.ReadAll(third); string(got) != "tls hello\n" {
			t.Errorf("got %q", got)
		}
		if _, err := first.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("got %v, want that the oldest was closed", err)
		}
		_ = second.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := second.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v, want that the second is still open", err)
		}
		if refusals := b.refusals(); len(refusals) != 1 || reason(refusals[0]) != meshtls.Overloaded {
			t.Errorf("refused %v", refusals)
		}
		_ = b.listener.Close()
	})
}

func TestConnectionsThatWaitForAcceptAreNotClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, meshtls.ListenerConfig{MaxPending: 2})
		b.disabled()
		for range 2 {
			b.dial(t)
		}
		synctest.Wait()
		// The third waits in the queue of the listener below.
		third := make(chan net.Conn)
		go func() {
			b.dial(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			conn, _ := b.network.DialContext(ctx, "", "server")
			third <- conn
		}()
		if conn := <-third; conn != nil {
			t.Error("more connections were accepted than may be pending")
		}
		for range 3 {
			if _, err := b.listener.Accept(); err != nil {
				t.Error(err)
			}
		}
		if refusals := b.refusals(); len(refusals) != 0 {
			t.Errorf("refused %v", refusals)
		}
		_ = b.listener.Close()
	})
}

func TestAPortProbeIsNotReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, meshtls.ListenerConfig{})
		_ = b.dial(t).Close()
		synctest.Wait()
		if refusals := b.refusals(); len(refusals) != 0 {
			t.Errorf("refused %v", refusals)
		}
		half := b.dial(t)
		_, _ = half.Write([]byte{0x16, 0x03})
		_ = half.Close()
		synctest.Wait()
		if refusals := b.refusals(); len(refusals) != 1 || reason(refusals[0]) != meshtls.PlaintextRefused {
			t.Errorf("refused %v", refusals)
		}
		_ = b.listener.Close()
	})
}

func TestCloseEndsEveryConnectionThatWasNotHandedOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, meshtls.ListenerConfig{})
		silent := b.dial(t)
		ready := tls.Client(b.dial(t), b.client)
		if err := ready.Handshake(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		var accepting sync.WaitGroup
		if err := b.listener.Close(); err != nil {
			t.Error(err)
		}
		if err := b.listener.Close(); err != nil {
			t.Error(err)
		}
		for range 3 {
			accepting.Go(func() {
				if _, err := b.listener.Accept(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("got %v, want net.ErrClosed", err)
				}
			})
		}
		accepting.Wait()
		for _, conn := range []net.Conn{silent, ready.NetConn()} {
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Errorf("got %v, want the end", err)
			}
		}
		if refusals := b.refusals(); len(refusals) != 0 {
			t.Errorf("refused %v", refusals)
		}
	})
}

// failing fails its first accepts.
type failing struct {
	net.Listener
	mu   sync.Mutex
	errs []error // guarded by mu
}

func (f *failing) Accept() (net.Conn, error) {
	f.mu.Lock()
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		f.mu.Unlock()
		return nil, err
	}
	f.mu.Unlock()
	return f.Listener.Accept()
}

type temporaryError struct{}

func (temporaryError) Error() string   { return "too many open files" }
func (temporaryError) Temporary() bool { return true }

func TestTemporaryAcceptErrorsAreRetriedWithGrowingPauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var network memnet.Network
		inner, err := network.Listen("server")
		if err != nil {
			t.Fatal(err)
		}
		temporary := &net.OpError{Op: "accept", Err: temporaryError{}}
		broken := &failing{Listener: inner, errs: []error{temporary, temporary, temporary}}
		l := meshtls.NewListener(broken, meshtls.ListenerConfig{Policy: func() (meshtls.ListenPolicy, error) {
			return meshtls.ListenPolicy{Plaintext: true}, nil
		}})
		defer l.Close()
		start := time.Now()
		if _, err := network.DialContext(t.Context(), "", "server"); err != nil {
			t.Fatal(err)
		}
		if waited, want := time.Since(start), (5+10+20)*time.Millisecond; waited != want {
			t.Errorf("waited %v, want %v", waited, want)
		}
		if _, err := l.Accept(); err != nil {
			t.Error(err)
		}
	})
}

func TestAcceptReturnsWhyTheListenerBelowBroke(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var network memnet.Network
		inner, err := network.Listen("server")
		if err != nil {
			t.Fatal(err)
		}
		broken := errors.New("device gone")
		l := meshtls.NewListener(&failing{Listener: inner, errs: []error{broken}}, meshtls.ListenerConfig{
			Policy: func() (meshtls.ListenPolicy, error) { return meshtls.ListenPolicy{}, nil },
		})
		defer l.Close()
		for range 2 {
			if _, err := l.Accept(); err != broken {
				t.Errorf("got %v, want %v", err, broken)
			}
		}
	})
}

// TestARefusedClientIsTold runs over TCP, where closing a connection with
// unread bytes resets it: the client must read the alert all the same.
func TestARefusedClientIsTold(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	own := source(t, ca.Workload(t, paymentID), ca)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 1)
	server := strictServer(t, own, meshtls.AuthorizeIDs(meshtls.MustID(customerID)))
	l := meshtls.NewListener(inner, meshtls.ListenerConfig{
		Policy:    func() (meshtls.ListenPolicy, error) { return meshtls.ListenPolicy{TLS: server}, nil },
		OnRefused: func(_ net.Addr, err error) { refused <- err },
	})
	defer l.Close()
	client, err := tls.Dial("tcp", l.Addr().String(), clientConfig(t, meshtls.ClientParams{Identity: own, Roots: own, Authorize: meshtls.AuthorizeAny()}))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, _ = client.Write(make([]byte, 10_000))
	if _, err := client.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "tls: bad certificate") {
		t.Errorf("got %v, want the alert", err)
	}
	_ = client.Close()
	if err := <-refused; reason(err) != meshtls.NotAuthorized || !strings.Contains(err.Error(), `peer "`+paymentID+`": peer not authorized: want one of ["`+customerID+`"]`) {
		t.Errorf("got %v", err)
	}
}

func TestPlaintextOverTCPKeepsItsBytesAndItsHalfClose(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	own := source(t, ca.Workload(t, paymentID), ca)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := strictServer(t, own, meshtls.AuthorizeAny())
	l := meshtls.NewListener(inner, meshtls.ListenerConfig{Policy: func() (meshtls.ListenPolicy, error) {
		return meshtls.ListenPolicy{TLS: server, Plaintext: true}, nil
	}})
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, _ = io.WriteString(client, "hello")
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = client.(*net.TCPConn).CloseWrite()
	var got strings.Builder
	// io.Copy takes the connection's WriteTo, which must not skip the prefix.
	if _, err := io.Copy(&got, conn); err != nil || got.String() != "hello" {
		t.Errorf("got %q, %v", got.String(), err)
	}
	if _, ok := conn.(io.ReaderFrom); !ok {
		t.Error("sendfile is lost")
	}
	_, _ = io.WriteString(conn, "bye")
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(client); err != nil || string(got) != "bye" {
		t.Errorf("got %q, %v", got, err)
	}
}
