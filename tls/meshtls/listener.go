package meshtls

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// DefaultHandshakeTimeout is Envoy's listener_filters_timeout.
	DefaultHandshakeTimeout = 15 * time.Second
	// DefaultMaxPending is how many connections may be between accept and
	// hand-over if the configuration does not say.
	DefaultMaxPending = 4096

	minAcceptBackoff = 5 * time.Millisecond
	maxAcceptBackoff = time.Second

	// A refused peer has this long to read the alert before the connection is
	// closed; closing with unread bytes would reset it and lose the alert.
	lingerTime  = 250 * time.Millisecond
	lingerBytes = 64 << 10
)

// ListenPolicy is what a listener speaks.
//
//	PeerAuthentication  TLS  Plaintext
//	STRICT              set  false
//	PERMISSIVE          set  true
//	DISABLE             nil  true
//
// The zero policy refuses every connection.
type ListenPolicy struct {
	// TLS is a configuration from [ServerConfig]; nil speaks no TLS. It must
	// not be changed afterwards.
	TLS *tls.Config
	// Plaintext lets through, as they are, connections that are not TLS. If
	// TLS is nil, it lets every connection through without waiting for its
	// first byte, so that protocols work in which the server speaks first.
	Plaintext bool
}

// ListenerConfig configures [NewListener].
type ListenerConfig struct {
	// Policy is asked for every connection when it is accepted and again when
	// its first bytes are known, so that a change acts at once. An error
	// refuses the connection. It must not block. Required.
	Policy func() (ListenPolicy, error)
	// HandshakeTimeout bounds the time from accept to the end of the TLS
	// handshake, or to the first bytes of plaintext. 0 means
	// DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration
	// MaxPending bounds the connections that were accepted and not yet returned
	// by Accept. When it is reached, the one that has been in its handshake for
	// longest is closed in favour of the new one (so silent connections cannot
	// lock out others); if all of them only wait for Accept, no more are
	// accepted. 0 means DefaultMaxPending.
	MaxPending int
	// OnRefused is told of every connection that is not handed out, and why:
	// err holds a [*HandshakeError]. A connection that ends before its first
	// byte (a port probe) and those that Close ends are not reported. It runs
	// on the connection's goroutine, and must not block or close the listener.
	// nil tells nobody.
	OnRefused func(remote net.Addr, err error)
}

// Listener accepts TLS connections, plaintext connections or both, as the
// policy of the moment says.
//
// TLS connections are handed out as *tls.Conn with the handshake done and the
// peer verified, which is what net/http's Server and grpc-go look for;
// plaintext connections with no byte lost. Accept never waits for a slow peer:
// each connection has its own goroutine until it is handed out. All methods are
// safe for concurrent use.
type Listener struct {
	inner   net.Listener
	config  ListenerConfig
	ready   chan net.Conn
	slots   chan struct{} // one per pending connection
	closing chan struct{} // closed by Close
	// stopping is closed by Shutdown and Close; closeInner closes inner once.
	stopping   chan struct{}
	stopOnce   sync.Once
	closeInner func() error
	ended      chan struct{} // closed when the accept loop ends; acceptErr is set before
	workers    sync.WaitGroup

	closeOnce sync.Once
	closeErr  error
	acceptErr error

	mu         sync.Mutex
	handshakes list.List // of *pending, oldest first; guarded by mu
	closed     bool      // guarded by mu
}

var _ net.Listener = (*Listener)(nil)

// pending is a connection that is not ready to be handed out.
type pending struct {
	conn    net.Conn
	element *list.Element // guarded by Listener.mu; nil once it is out of the list
	evicted bool          // guarded by Listener.mu
}

// NewListener starts to accept from inner, which it owns from now on. The
// listener must be closed. It panics if config.Policy is nil.
func NewListener(inner net.Listener, config ListenerConfig) *Listener {
	if config.Policy == nil {
		panic("meshtls: ListenerConfig.Policy is nil") //nolint:forbidigo // misuse that no input can cause
	}
	if config.HandshakeTimeout <= 0 {
		config.HandshakeTimeout = DefaultHandshakeTimeout
	}
	if config.MaxPending <= 0 {
		config.MaxPending = DefaultMaxPending
	}
	l := &Listener{
		inner:   inner,
		config:  config,
		ready:   make(chan net.Conn),
		slots:   make(chan struct{}, config.MaxPending),
		closing: make(chan struct{}),
		ended:   make(chan struct{}),

		stopping: make(chan struct{}), closeInner: sync.OnceValue(inner.Close),
	}
	l.workers.Go(l.acceptLoop)
	return l
}

// Accept returns the next connection that the policy lets through. After Close
// it returns net.ErrClosed; if the inner listener broke, its error.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	case <-l.closing:
		return nil, &net.OpError{Op: "accept", Net: l.Addr().Network(), Addr: l.Addr(), Err: net.ErrClosed}
	case <-l.ended:
		return nil, l.acceptErr
	}
}

// Addr returns the address of the inner listener.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// Shutdown closes the inner listener, lets the connections that were accepted
// finish their handshakes, and returns when Accept has handed them out, or ctx
// ends. Nothing that a peer has sent over them is lost. Close must follow.
func (l *Listener) Shutdown(ctx context.Context) error {
	l.stopOnce.Do(func() { close(l.stopping) })
	err := l.closeInner()
	select {
	case <-l.ended:
		return err
	case <-ctx.Done():
		return errors.Join(err, context.Cause(ctx))
	}
}

// Close closes the inner listener and every connection that was not handed
// out, and returns when their goroutines have ended. Connections that were
// handed out stay open.
func (l *Listener) Close() error {
	l.closeOnce.Do(func() {
		close(l.closing)
		l.stopOnce.Do(func() { close(l.stopping) })
		l.closeErr = l.closeInner()
		l.mu.Lock()
		l.closed = true
		var open []net.Conn
		for e := l.handshakes.Front(); e != nil; e = e.Next() {
			open = append(open, e.Value.(*pending).conn)
		}
		l.mu.Unlock()
		for _, conn := range open {
			_ = conn.Close()
		}
	})
	l.workers.Wait()
	return l.closeErr
}

// acceptLoop ends when Close closes the inner listener, or when that breaks.
func (l *Listener) acceptLoop() {
	defer close(l.ended)
	backoff := minAcceptBackoff
	for {
		conn, err := l.inner.Accept()
		if err != nil {
			// Out of file descriptors, a connection that was reset in the
			// queue: net/http waits and tries again, too.
			if temporary, ok := errors.AsType[interface {
				error
				Temporary() bool
			}](err); ok && temporary.Temporary() && l.wait(backoff) {
				backoff = min(2*backoff, maxAcceptBackoff)
				continue
			}
			l.acceptErr = err
			l.awaitPending()
			return
		}
		backoff = minAcceptBackoff
		p := l.reserve(conn)
		if p == nil {
			_ = conn.Close()
			l.acceptErr = net.ErrClosed
			return
		}
		l.workers.Go(func() {
			defer func() { <-l.slots }()
			l.serve(p)
		})
	}
}

// awaitPending returns when no connection waits to be handed out, if the listener
// was shut down.
func (l *Listener) awaitPending() {
	select {
	case <-l.stopping:
	default:
		return // it broke: Accept is to say so
	}
	for range cap(l.slots) {
		select {
		case l.slots <- struct{}{}:
		case <-l.closing:
			return
		}
	}
}

// wait reports whether d has passed before the listener was closed.
func (l *Listener) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.closing:
		return false
	}
}

// reserve takes a slot for a new connection, at the cost of the oldest
// handshake if there is none left, and enters it into the list. It returns nil
// when the listener is closed.
func (l *Listener) reserve(conn net.Conn) *pending {
	select {
	case l.slots <- struct{}{}:
	default:
		l.evictOldest()
		select {
		case l.slots <- struct{}{}:
		case <-l.closing:
			return nil
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	p := &pending{conn: conn}
	p.element = l.handshakes.PushBack(p)
	return p
}

func (l *Listener) evictOldest() {
	l.mu.Lock()
	oldest := l.handshakes.Front()
	if oldest == nil {
		l.mu.Unlock()
		return
	}
	p := oldest.Value.(*pending)
	l.handshakes.Remove(oldest)
	p.element, p.evicted = nil, true
	l.mu.Unlock()
	_ = p.conn.Close()
}

// finish takes a connection out of the list. It reports whether the connection
// had been evicted, and whether the listener is closed.
func (l *Listener) finish(p *pending) (evicted, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.element != nil {
		l.handshakes.Remove(p.element)
		p.element = nil
	}
	return p.evicted, l.closed
}

// serve brings one connection to the point where it can be handed out. It ends
// at the latest when the handshake timeout has passed and Accept was called, or
// when Close closes the connection.
func (l *Listener) serve(p *pending) {
	conn := p.conn
	usable, err := l.open(conn)
	evicted, closed := l.finish(p)
	switch {
	case closed:
		err = net.ErrClosed
	case evicted:
		err = &HandshakeError{Reason: Overloaded, Err: err}
	}
	if err != nil {
		_ = conn.Close()
		if !closed && !errors.Is(err, errNothingSent) && l.config.OnRefused != nil {
			l.config.OnRefused(conn.RemoteAddr(), err)
		}
		return
	}
	select {
	case l.ready <- usable:
	case <-l.closing:
		_ = conn.Close()
	}
}

// errNothingSent is a peer that connected and left without a word.
var errNothingSent = errors.New("connection closed before its first byte")

// open applies the policy to a new connection and returns what to hand out. Of
// a connection that it refuses, the caller closes conn.
func (l *Listener) open(conn net.Conn) (net.Conn, error) {
	policy, err := l.policy()
	if err != nil {
		return nil, err
	}
	if policy.TLS == nil {
		return conn, nil
	}
	if err := conn.SetDeadline(time.Now().Add(l.config.HandshakeTimeout)); err != nil {
		return nil, handshakeFailure(err)
	}
	prefix, isTLS, err := sniff(conn)
	if errors.Is(err, io.EOF) {
		return nil, errNothingSent
	}
	if err != nil {
		return nil, handshakeFailure(err)
	}
	// The first bytes may have taken their time; what counts is the policy of now.
	policy, err = l.policy()
	if err != nil {
		return nil, err
	}
	usable := withPrefix(conn, prefix)
	switch {
	case isTLS && policy.TLS != nil:
		secure := tls.Server(usable, policy.TLS)
		// The deadline bounds it, and Close closes the connection.
		if err := secure.HandshakeContext(context.Background()); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				linger(conn)
			}
			return nil, handshakeFailure(err)
		}
		usable = secure
	case !policy.Plaintext:
		return nil, &HandshakeError{Reason: PlaintextRefused}
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, handshakeFailure(err)
	}
	return usable, nil
}

func (l *Listener) policy() (ListenPolicy, error) {
	policy, err := l.config.Policy()
	if err != nil {
		return ListenPolicy{}, &HandshakeError{Reason: NotServed, Err: err}
	}
	if policy.TLS == nil && !policy.Plaintext {
		return ListenPolicy{}, &HandshakeError{Reason: NotServed}
	}
	return policy, nil
}

// handshakeFailure makes sure that the reason of a refusal is typed.
func handshakeFailure(err error) error {
	if _, ok := errors.AsType[*HandshakeError](err); ok {
		return err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &HandshakeError{Reason: TimedOut, Err: err}
	}
	return &HandshakeError{Reason: HandshakeFailed, Err: err}
}

// linger lets a refused peer read the alert: it ends the sending side and
// reads what is left, for a short time.
func linger(conn net.Conn) {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || conn.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, conn, lingerBytes)
}
