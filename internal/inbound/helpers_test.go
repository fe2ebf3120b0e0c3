package inbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

const (
	address    = "10.0.0.1:8080"
	customerID = "spiffe://cluster.local/ns/shop/sa/customer"
	paymentID  = "spiffe://cluster.local/ns/shop/sa/payment"
)

// source publishes what the test says, on a goroutine of its own.
type source struct {
	mu       sync.Mutex
	watchers map[string]map[*watcher]struct{} // guarded by mu
	stops    int                              // guarded by mu
}

type watcher struct {
	notify  func(discovery.Update[*discovery.Inbound])
	updates chan discovery.Update[*discovery.Inbound]
	ended   chan struct{}
}

func (s *source) WatchTarget(string, func(discovery.Update[*discovery.Target])) func() {
	return func() {}
}

func (s *source) WatchInbound(name string, notify func(discovery.Update[*discovery.Inbound])) func() {
	w := &watcher{notify: notify, updates: make(chan discovery.Update[*discovery.Inbound]), ended: make(chan struct{})}
	go func() { // ends with stop
		defer close(w.ended)
		for u := range w.updates {
			notify(u)
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchers == nil {
		s.watchers = map[string]map[*watcher]struct{}{}
	}
	if s.watchers[name] == nil {
		s.watchers[name] = map[*watcher]struct{}{}
	}
	s.watchers[name][w] = struct{}{}
	return sync.OnceFunc(func() {
		s.mu.Lock()
		delete(s.watchers[name], w)
		s.stops++
		s.mu.Unlock()
		close(w.updates)
		<-w.ended
	})
}

func (s *source) Close() error { return nil }

// publish updates everybody who watches name, and waits until they know.
func (s *source) publish(name string, u discovery.Update[*discovery.Inbound]) {
	s.mu.Lock()
	var all []*watcher
	for w := range s.watchers[name] {
		all = append(all, w)
	}
	s.mu.Unlock()
	for _, w := range all {
		w.updates <- u
	}
	synctest.Wait()
}

func (s *source) watching(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.watchers[name])
}

// bench is listeners on a network in memory.
type bench struct {
	t         *testing.T
	network   memnet.Network
	source    *source
	listeners *Listeners
	ca        *tlstest.CA
	own       *meshtls.Static // the payment's identity

	mu      sync.Mutex
	refused []observe.HandshakeEvent // guarded by mu
	opened  int                      // guarded by mu
	closed  int                      // guarded by mu
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, source: &source{}, ca: tlstest.NewCA(t)}
	own := meshtls.NewStatic(b.identity(paymentID))
	b.own = own
	b.listeners = New(Options{
		Source: b.source,
		Identity: func(instance string) (meshtls.Source, error) {
			if instance == "default" {
				return own, nil
			}
			return nil, errors.New("no instance " + strconv.Quote(instance))
		},
		Hooks: &observe.Hooks{
			HandshakeFailed: func(e observe.HandshakeEvent) { b.count(func() { b.refused = append(b.refused, e) }) },
			ConnOpened:      func(observe.ConnEvent) { b.count(func() { b.opened++ }) },
			ConnClosed:      func(observe.ConnEvent) { b.count(func() { b.closed++ }) },
		},
	})
	t.Cleanup(func() {
		if err := b.listeners.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		synctest.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.opened != b.closed {
			t.Errorf("%d connections were opened, %d closed", b.opened, b.closed)
		}
		if n := b.source.watching(address); n != 0 {
			t.Errorf("%d watches are left", n)
		}
	})
	return b
}

func (b *bench) count(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func (b *bench) identity(id string) *meshtls.Identity {
	b.t.Helper()
	i, err := meshtls.NewIdentity(b.ca.Workload(b.t, id), []*x509.Certificate{b.ca.Certificate})
	if err != nil {
		b.t.Fatal(err)
	}
	return i
}

// start begins to listen; the result comes through the channel.
func (b *bench) start() <-chan listened {
	b.t.Helper()
	inner, err := b.network.Listen(address)
	if err != nil {
		b.t.Fatal(err)
	}
	result := make(chan listened, 1)
	go func() { // ends with Listen
		ln, err := b.listeners.Listen(b.t.Context(), inner)
		result <- listened{ln, err}
	}()
	synctest.Wait()
	return result
}

type listened struct {
	ln  *Listener
	err error
}

// listen listens under a configuration and answers every connection with an
// echo.
func (b *bench) listen(in *discovery.Inbound) *Listener {
	b.t.Helper()
	result := b.start()
	b.source.publish(address, discovery.Update[*discovery.Inbound]{Value: in})
	got := <-result
	if got.err != nil {
		b.t.Fatal(got.err)
	}
	b.echo(got.ln)
	return got.ln
}

func (b *bench) echo(ln *Listener) {
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() { // ends with the listener
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			wg.Go(func() { // ends with the connection
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
				stop()
			})
		}
	})
	b.t.Cleanup(func() {
		_ = ln.Close()
		cancel()
		wg.Wait()
	})
}

// dial opens a connection, with TLS if config is not nil, and says hello.
func (b *bench) dial(config *tls.Config) (net.Conn, error) {
	b.t.Helper()
	conn, err := b.network.DialContext(b.t.Context(), "", address)
	if err != nil {
		return nil, err
	}
	b.t.Cleanup(func() { _ = conn.Close() })
	if config != nil {
		conn = tls.Client(conn, config)
	}
	return conn, hello(conn)
}

// hello says hello and expects it back.
func hello(conn net.Conn) error {
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return err
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != "hello" {
		return errors.New("the echo was " + string(got))
	}
	return nil
}

func (b *bench) client(id string) *tls.Config {
	b.t.Helper()
	identity := meshtls.NewStatic(b.identity(id))
	config, err := meshtls.ClientConfig(meshtls.ClientParams{
		Identity: identity, Roots: identity, Authorize: meshtls.AuthorizeAny(), NextProtos: []string{"http/1.1"},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return config
}

// anonymous is a client without a certificate, which trusts the mesh's roots.
func (b *bench) anonymous() *tls.Config {
	b.t.Helper()
	config := b.client(customerID)
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &tls.Certificate{}, nil
	}
	return config
}

func mutualTLS() *discovery.DownstreamTLS {
	return &discovery.DownstreamTLS{IdentityInstance: "default", RootInstance: "default", RequireClientCertificate: true}
}

func localRoutes() *discovery.RouteTable {
	return &discovery.RouteTable{VirtualHosts: []*discovery.VirtualHost{{
		Name: "inbound", Domains: []string{"*"}, Routes: []*discovery.Route{{Name: "default", Local: true}},
	}}}
}

// chain is a filter chain for connections of a transport protocol.
func chain(name, transport string, settings *discovery.DownstreamTLS) discovery.FilterChain {
	return discovery.FilterChain{
		Name: name, Match: discovery.ChainMatch{TransportProtocol: transport}, TLS: settings, Routes: localRoutes(),
	}
}

func inbound(chains ...discovery.FilterChain) *discovery.Inbound {
	return &discovery.Inbound{Name: "inbound", Address: address, Chains: chains}
}

func strict() *discovery.Inbound { return inbound(chain("mtls", "tls", mutualTLS())) }

func permissive() *discovery.Inbound {
	return inbound(chain("mtls", "tls", mutualTLS()), chain("plaintext", "raw_buffer", nil))
}

func disabled() *discovery.Inbound { return inbound(chain("plaintext", "", nil)) }

// plainChain is the chain for plaintext.
func plainChain(ln *Listener) *Chain { return ln.Chain("nobody", nil) }

// tlsChain is the chain for TLS, whoever the peer is; nil if there is none.
func tlsChain(ln *Listener) *Chain {
	if secure := ln.state.Load().secure(nil); secure != nil {
		return secure.Chain
	}
	return nil
}
