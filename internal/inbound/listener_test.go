package inbound

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

func TestS33_PoliciesAndConnections(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name                          string
		policy                        func() *discovery.Inbound
		mutual, anonymous, plain, any bool
	}{
		{name: "STRICT", policy: strict, mutual: true},
		{name: "PERMISSIVE", policy: permissive, mutual: true, plain: true},
		{name: "DISABLE", policy: disabled, plain: true},
		{
			name: "TLS without client certificates",
			policy: func() *discovery.Inbound {
				return inbound(chain("tls", "tls", &discovery.DownstreamTLS{IdentityInstance: "default"}))
			},
			mutual: true, anonymous: true,
		},
		{
			name: "the default chain, if no other matches",
			policy: func() *discovery.Inbound {
				in := inbound(chain("mtls", "tls", mutualTLS()))
				plaintext := chain("rest", "", nil)
				in.Default = &plaintext
				return in
			},
			mutual: true, plain: true,
		},
		{
			name: "a default chain with TLS is not for plaintext",
			policy: func() *discovery.Inbound {
				rest := chain("rest", "", mutualTLS())
				return &discovery.Inbound{Default: &rest}
			},
			mutual: true,
		},
		{
			name: "peers that are not listed are refused",
			policy: func() *discovery.Inbound {
				settings := mutualTLS()
				settings.SANs = []discovery.StringMatch{{Value: paymentID}}
				return inbound(chain("mtls", "tls", settings))
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.listen(tt.policy())
				clients := []struct {
					name   string
					config *tls.Config
					want   bool
				}{
					{"a client of the mesh", b.client(customerID), tt.mutual},
					{"a client without a certificate", b.anonymous(), tt.anonymous},
					{"a plaintext client", nil, tt.plain},
				}
				for _, client := range clients {
					if _, err := b.dial(client.config); (err == nil) != client.want {
						t.Errorf("%s: got %v, want success: %t", client.name, err, client.want)
					}
				}
			})
		})
	}
}

func TestAcceptedTLSConnectionsTellWhoThePeerIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		result := b.start()
		b.source.publish(address, discovery.Update[*discovery.Inbound]{Value: strict()})
		ln := (<-result).ln
		go func() { _, _ = b.dial(b.client(customerID)) }()
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if id, ok := meshtls.PeerID(conn.(*tls.Conn).ConnectionState()); !ok || id.String() != customerID {
			t.Errorf("the peer is %v, %t", id, ok)
		}
	})
}

func TestBA13_APolicyAppliesFromItsUpdateOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ln := b.listen(permissive())
		before, err := b.dial(nil)
		if err != nil {
			t.Fatal(err)
		}
		if plainChain(ln) == nil || tlsChain(ln) == nil {
			t.Fatal("PERMISSIVE has no chain for a kind of connection")
		}
		b.source.publish(address, discovery.Update[*discovery.Inbound]{Value: strict()})
		if _, err := b.dial(nil); err == nil {
			t.Error("STRICT accepted plaintext")
		}
		if _, err := b.dial(b.client(customerID)); err != nil {
			t.Errorf("STRICT refused a client of the mesh: %v", err)
		}
		// The open connection stays, but what comes over it has no chain.
		if err := hello(before); err != nil {
			t.Errorf("the connection from before: %v", err)
		}
		if got := plainChain(ln); got != nil {
			t.Errorf("plaintext has chain %q under STRICT", got.Config.Name)
		}
		if got := tlsChain(ln); got == nil || got.Config.Name != "mtls" {
			t.Errorf("TLS has chain %+v under STRICT", got)
		}
		b.source.publish(address, discovery.Update[*discovery.Inbound]{Value: disabled()})
		if _, err := b.dial(nil); err != nil {
			t.Errorf("DISABLE refused plaintext: %v", err)
		}
		if got := tlsChain(ln); got != nil {
			t.Errorf("TLS has chain %q under DISABLE", got.Config.Name)
		}
	})
}

func TestX73_AConfigurationThatIsGoneClosesTheListenerToEverybody(t *testing.T) {
	t.Parallel()
	for name, u := range map[string]discovery.Update[*discovery.Inbound]{
		"it was removed":       {Err: discovery.ErrNotFound},
		"it cannot be used":    {Value: inbound(chain("mtls", "tls", &discovery.DownstreamTLS{IdentityInstance: "missing"}))},
		"it allows nothing":    {Value: inbound()},
		"it cannot be carried": {Value: inbound(discovery.FilterChain{Name: "a", Match: discovery.ChainMatch{ApplicationProtocols: []string{"h2"}}, Routes: localRoutes()})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				ln := b.listen(permissive())
				b.source.publish(address, u)
				if _, err := b.dial(nil); err == nil {
					t.Error("plaintext was accepted")
				}
				if _, err := b.dial(b.client(customerID)); err == nil {
					t.Error("TLS was accepted")
				}
				if tlsChain(ln) != nil || plainChain(ln) != nil {
					t.Error("there is a chain for requests")
				}
				b.source.publish(address, discovery.Update[*discovery.Inbound]{Value: permissive()})
				if _, err := b.dial(nil); err != nil {
					t.Errorf("after it came back: %v", err)
				}
			})
		})
	}
}

func TestAnAmbientErrorChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		in := permissive()
		ln := b.listen(in)
		chain := plainChain(ln)
		b.source.publish(address, discovery.Update[*discovery.Inbound]{Value: in, Err: errors.New("the control plane is away")})
		if plainChain(ln) != chain {
			t.Error("the chain is another")
		}
		if _, err := b.dial(nil); err != nil {
			t.Error(err)
		}
	})
}

func TestListenRefusesWhatCannotBeEnforced(t *testing.T) {
	t.Parallel()
	withFilter := chain("plaintext", "", nil)
	withFilter.Filters = []discovery.HTTPFilter{{Name: "jwt"}}
	withALPN := chain("h2 only", "", nil)
	withALPN.Match.ApplicationProtocols = []string{"h2"}
	otherPort := chain("other port", "", nil)
	otherPort.Match.DestinationPort = 9
	tests := []struct {
		name string
		in   *discovery.Inbound
		want string
	}{
		{
			name: "no chain at all", in: inbound(),
			want: `listen "10.0.0.1:8080": no filter chain matches any connection`,
		},
		{
			name: "chains for another port only", in: inbound(otherPort),
			want: `listen "10.0.0.1:8080": no filter chain matches any connection`,
		},
		{
			name: "a chain for TLS without TLS settings", in: inbound(chain("mtls", "tls", nil)),
			want: `listen "10.0.0.1:8080": filter chain "mtls": matches TLS connections but has no TLS settings`,
		},
		{
			name: "a chain for plaintext with TLS settings", in: inbound(chain("plaintext", "raw_buffer", mutualTLS())),
			want: `listen "10.0.0.1:8080": filter chain "plaintext": matches plaintext connections but has TLS settings`,
		},
		{
			name: "an identity that is not there", in: inbound(chain("mtls", "tls", &discovery.DownstreamTLS{IdentityInstance: "other"})),
			want: `listen "10.0.0.1:8080": filter chain "mtls": no instance "other"`,
		},
		{
			name: "roots that are not there",
			in:   inbound(chain("mtls", "tls", &discovery.DownstreamTLS{IdentityInstance: "default", RootInstance: "other"})),
			want: `listen "10.0.0.1:8080": filter chain "mtls": no instance "other"`,
		},
		{
			name: "application protocols in plaintext", in: inbound(withALPN),
			want: `listen "10.0.0.1:8080": no filter chain matches any connection`,
		},
		{
			name: "a filter that the mesh does not have", in: inbound(withFilter),
			want: `listen "10.0.0.1:8080": filter chain "plaintext": http_filters[0] "jwt": not supported`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				result := b.start()
				b.source.publish(address, discovery.Update[*discovery.Inbound]{Value: tt.in})
				if got := <-result; got.err == nil || got.err.Error() != tt.want {
					t.Errorf("got  %v\nwant %s", got.err, tt.want)
				}
				if _, err := b.network.DialContext(t.Context(), "", address); err == nil {
					t.Error("the inner listener is open")
				}
			})
		})
	}
}

// A chain that names more of a connection is chosen before one that names less.
func TestTheMostSpecificChainIsChosen(t *testing.T) {
	t.Parallel()
	settings := &discovery.DownstreamTLS{}
	named := func(name, transport string, port uint32, tls *discovery.DownstreamTLS) discovery.FilterChain {
		return discovery.FilterChain{Name: name, Match: discovery.ChainMatch{TransportProtocol: transport, DestinationPort: port}, TLS: tls}
	}
	in := &discovery.Inbound{Chains: []discovery.FilterChain{
		named("any", "", 0, nil),
		named("any tls", "", 0, settings),
		named("tls", "tls", 0, settings),
		named("plaintext", "raw_buffer", 0, nil),
		named("8080", "", 8080, nil),
		named("8080 tls", "tls", 8080, settings),
		named("8080 tls again", "tls", 8080, settings),
		named("9090 plaintext", "raw_buffer", 9090, nil),
	}}
	for _, tt := range []struct {
		port           int
		tls, plaintext string
	}{
		{8080, "8080 tls", "8080"},
		{9090, "tls", "9090 plaintext"},
		{7070, "tls", "plaintext"},
	} {
		ln := &Listener{inner: stub{&net.TCPAddr{IP: net.IPv4zero, Port: tt.port}}}
		if got := ln.choose(in, "tls")[0].Name; got != tt.tls {
			t.Errorf("port %d: TLS has chain %q, want %q", tt.port, got, tt.tls)
		}
		if got := ln.choose(in, "raw_buffer")[0].Name; got != tt.plaintext {
			t.Errorf("port %d: plaintext has chain %q, want %q", tt.port, got, tt.plaintext)
		}
	}
}

// stub is a listener with an address.
type stub struct{ addr net.Addr }

func (stub) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (stub) Close() error              { return nil }
func (s stub) Addr() net.Addr          { return s.addr }

func TestListenWaitsForItsConfiguration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		result := b.start()
		time.Sleep(time.Hour)
		b.source.publish(address, discovery.Update[*discovery.Inbound]{Err: errors.New("no connection")})
		select {
		case got := <-result:
			t.Fatalf("Listen returned %+v without a configuration", got)
		default:
		}
		// Who connects meanwhile waits, as in any listener's queue.
		waiting := make(chan error, 1)
		go func() {
			_, err := b.dial(nil)
			waiting <- err
		}()
		synctest.Wait()
		b.source.publish(address, discovery.Update[*discovery.Inbound]{Value: permissive()})
		got := <-result
		if got.err != nil {
			t.Fatal(got.err)
		}
		b.echo(got.ln)
		if err := <-waiting; err != nil {
			t.Error(err)
		}
		if got.ln.Name() != address || got.ln.Addr().String() != address {
			t.Errorf("Name() = %q, Addr() = %v", got.ln.Name(), got.ln.Addr())
		}
	})
}

func TestListenGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		publish *discovery.Update[*discovery.Inbound]
		want    string
	}{
		"nothing came": {want: `listen "10.0.0.1:8080": no configuration yet (context deadline exceeded)`},
		"only errors came": {
			publish: &discovery.Update[*discovery.Inbound]{Err: errors.New("no connection")},
			want:    `listen "10.0.0.1:8080": no connection (context deadline exceeded)`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				inner, err := b.network.Listen(address)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if tt.publish != nil {
					time.AfterFunc(time.Millisecond, func() { b.source.publish(address, *tt.publish) })
				}
				_, err = b.listeners.Listen(ctx, inner)
				if err == nil || err.Error() != tt.want || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got  %v\nwant %s", err, tt.want)
				}
				if _, err := b.network.DialContext(t.Context(), "", address); err == nil {
					t.Error("the inner listener is open")
				}
			})
		})
	}
}

func TestListenFailsAtOnceForAnUnknownListener(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		result := b.start()
		b.source.publish(address, discovery.Update[*discovery.Inbound]{Err: discovery.ErrNotFound})
		got := <-result
		if want := `listen "10.0.0.1:8080": not known to the control plane`; got.err == nil || got.err.Error() != want || !errors.Is(got.err, discovery.ErrNotFound) {
			t.Errorf("got  %v\nwant %s", got.err, want)
		}
	})
}

func TestARefusedHandshakeIsReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.listen(strict())
		if _, err := b.dial(nil); err == nil {
			t.Fatal("STRICT accepted plaintext")
		}
		synctest.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.refused) != 1 || b.refused[0].Listener != address || b.refused[0].PeerAddress == "" || b.refused[0].Err == nil {
			t.Errorf("reported %+v", b.refused)
		}
	})
}
