package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// scheme begins the names that have an authority (gRFC A47).
const scheme = "xdstp:"

// address is the relay's in its own network in memory.
const address = "relay"

// Options are what a [Relay] needs.
type Options struct {
	// Config is the mesh's bootstrap.
	Config *bootstrap.Config
	// Source is where the configuration comes from. The relay does not close it.
	Source discovery.Source
	// Identity finds a certificate provider instance, of which Instances are the
	// names.
	Identity  func(instance string) (meshtls.Source, error)
	Instances []string
	// Hooks is told of what guests reject, and Logger of what they do not get.
	Hooks  *observe.Hooks
	Logger *slog.Logger
}

// Relay is the xDS server of the guests. Make it with [New] and end it with
// [Relay.Close]. Safe for concurrent use.
type Relay struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	options Options
	network memnet.Network
	server  *grpc.Server
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu        sync.Mutex
	closed    bool                // guarded by mu
	onClose   []func()            // guarded by mu
	guests    map[*guest]struct{} // guarded by mu
	joined    uint64              // guarded by mu; numbers the guests
	plaintext map[uint32]*follow  // guarded by mu; by port: where connections without TLS are accepted beside those with it
}

// New starts a relay.
func New(options Options) (*Relay, error) {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Relay{options: options, cancel: cancel, guests: make(map[*guest]struct{}), plaintext: make(map[uint32]*follow)}
	ln, err := r.network.Listen(address)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("relay: %w", err)
	}
	for _, instance := range options.Instances {
		if source, err := options.Identity(instance); err == nil {
			r.wg.Go(func() { r.watchDomain(ctx, source) }) // ends with Close
		}
	}
	r.server = grpc.NewServer(
		grpc.WaitForHandlers(true), // so that Close leaves nothing behind
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Minute, PermitWithoutStream: true}),
	)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(r.server, r)
	r.wg.Go(func() { // ends with Close
		if err := r.server.Serve(ln); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			options.Logger.Error("the relay for native gRPC ended", "error", err)
		}
	})
	return r, nil
}

// watchDomain has everything written anew when the trust domain of an identity
// changes, or is known for the first time: it is in what guests get.
func (r *Relay) watchDomain(ctx context.Context, source meshtls.Source) {
	last := ""
	for {
		changed := source.Changed()
		if identity, err := source.Identity(); err == nil && identity.ID.TrustDomain() != last {
			last = identity.ID.TrustDomain()
			r.mu.Lock()
			guests := slices.Collect(maps.Keys(r.guests))
			r.mu.Unlock()
			for _, g := range guests {
				g.renew()
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// DialContext connects a guest, whatever the network and the address.
func (r *Relay) DialContext(ctx context.Context, network, _ string) (net.Conn, error) {
	return r.network.DialContext(ctx, network, address)
}

// Config is the mesh's bootstrap, which is not to be changed.
func (r *Relay) Config() *bootstrap.Config { return r.options.Config }

// ServerTemplate names, for guests, the Listener of an address. It is the
// bootstrap's or, if that has none, Istio's, for guests need a name to ask for.
func (r *Relay) ServerTemplate() string {
	return cmp.Or(r.options.Config.ServerListenerTemplate, "xds.istio.io/grpc/lds/inbound/%s")
}

// ClientTemplate names, for guests, the Listener of a destination.
func (r *Relay) ClientTemplate() string { return cmp.Or(r.options.Config.ClientListenerTemplate, "%s") }

// Authorities have, for guests, the template of each authority (gRFC A47). The relay is
// the server of them all.
func (r *Relay) Authorities() map[string]string {
	templates := make(map[string]string, len(r.options.Config.Authorities))
	for name, authority := range r.options.Config.Authorities {
		templates[name] = cmp.Or(authority.ClientListenerTemplate, scheme+"//"+name+"/envoy.config.listener.v3.Listener/%s")
	}
	return templates
}

// Identity finds a certificate provider instance.
func (r *Relay) Identity(instance string) (meshtls.Source, error) {
	return r.options.Identity(instance)
}

// Instances are the names of the certificate provider instances.
func (r *Relay) Instances() []string { return r.options.Instances }

// AcceptsPlaintext reports whether connections without TLS to a port of this
// process are accepted beside those with TLS (PERMISSIVE).
func (r *Relay) AcceptsPlaintext(port uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.plaintext[port] != nil
}

// setPlaintext notes whether a follow's address accepts plaintext.
func (r *Relay) setPlaintext(f *follow, accepts bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case accepts:
		r.plaintext[f.port] = f
	case r.plaintext[f.port] == f:
		delete(r.plaintext, f.port)
	}
}

// OnClose runs f when the relay is closed, at once if it is.
func (r *Relay) OnClose(f func()) {
	r.mu.Lock()
	closed := r.closed
	if !closed {
		r.onClose = append(r.onClose, f)
	}
	r.mu.Unlock()
	if closed {
		f()
	}
}

// Close ends the connections of all guests, which go on with what they have, and
// waits for the relay's goroutines. Later calls wait as well.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.closed = true
	var run []func()
	run, r.onClose = r.onClose, nil
	r.mu.Unlock()
	for _, f := range run {
		f()
	}
	r.cancel()
	r.server.Stop()
	r.wg.Wait()
	return nil
}

// StreamAggregatedResources serves one guest until it goes away.
func (r *Relay) StreamAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	g := r.join()
	defer r.leave(g)
	sent := make(chan struct{})
	go func() { // ends with ctx; waited for below
		defer close(sent)
		g.sendAll(ctx, stream)
	}()
	err := g.receiveAll(stream)
	cancel()
	<-sent
	return err
}

func (r *Relay) join() *guest {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.joined++
	g := newGuest(r, r.joined)
	r.guests[g] = struct{}{}
	return g
}

func (r *Relay) leave(g *guest) {
	g.stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.guests, g)
}

// destination returns what a Listener name of a guest stands for: an address of
// this process or the name of a destination.
func (r *Relay) destination(name string) (of string, server bool) {
	if of, ok := within(name, r.ServerTemplate()); ok {
		return of, true
	}
	of = name
	least := len(name) + 1 // the template that says most of the name is meant
	if rest, ok := within(name, r.ClientTemplate()); ok {
		of, least = rest, len(rest)
	}
	for authority, template := range r.Authorities() {
		if rest, ok := within(name, template); ok && len(rest) < least {
			of, least = "//"+authority+"/"+rest, len(rest)
		}
	}
	return of, false
}

// within finds what stands for "%s" of a template in a name.
func within(name, template string) (of string, ok bool) {
	before, after, ok := strings.Cut(template, "%s")
	if !ok {
		return "", false
	}
	if name, ok = strings.CutPrefix(name, before); !ok {
		return "", false
	}
	of, ok = strings.CutSuffix(name, after)
	if plain, err := url.PathUnescape(of); err == nil && strings.HasPrefix(template, scheme) {
		of = plain // it is escaped in these names (gRFC A47)
	}
	return of, ok && of != ""
}
