package mesh

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/discovery/xds"
	"github.com/inboardmesh/inboard/internal/grpcmesh"
	"github.com/inboardmesh/inboard/internal/httpmesh"
	"github.com/inboardmesh/inboard/internal/inbound"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/tcpmesh"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/outcome/meshfail"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// Error is a call that failed because of the mesh, or on its way, and not
// because the peer answered so. Find it with errors.AsType[*mesh.Error].
type Error = meshfail.Error

// Mesh is one process's (or one identity's) part of a service mesh. Make it
// with [New], end it with [Mesh.Close]. Two meshes in one process share
// nothing. Safe for concurrent use.
type Mesh struct {
	settings   *settings
	identities map[string]meshtls.Source
	source     *xds.Source
	upstreams  *upstream.Manager
	outbound   *pipeline.Outbound
	inbound    *inbound.Listeners
	transport  *httpmesh.Transport
	grpc       *grpcmesh.Adapter
	tcp        *tcpmesh.Dialer
	guests     guests

	// closing is set once Close was called.
	closing atomic.Bool
	// closers run in reverse order.
	closers   []func() error
	closeOnce sync.Once
	closeErr  error
}

// New joins the mesh. Without options, the bootstrap is the one that
// GRPC_XDS_BOOTSTRAP or GRPC_XDS_BOOTSTRAP_CONFIG names.
//
// It waits for the workload's certificate, if the bootstrap has a provider for
// it; ctx bounds that wait, without a deadline 30 s do, and not the mesh's life.
// What the provider's attempts fail of is logged. It does not wait for the
// control plane: calls wait for their own configuration. The error names every
// mistake in the options and in the bootstrap. A file with a private key that others
// may read or change is logged.
func New(ctx context.Context, options ...Option) (_ *Mesh, err error) {
	s, err := newSettings(options)
	if err != nil {
		return nil, fmt.Errorf("mesh: %w", err)
	}
	s.warnOfKeys()
	m := &Mesh{settings: s, identities: make(map[string]meshtls.Source)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("mesh: %w", err), m.Close())
		}
	}()
	if s.telemetry != nil {
		m.closers = append(m.closers, s.telemetry.Close)
	}
	if err := m.startIdentities(ctx); err != nil {
		return nil, err
	}
	m.source, err = xds.NewSource(m.withCertificates(s.bootstrap), xds.Options{
		Hooks: *s.hooks, Loads: m.loads, Logger: s.logger, LocalCluster: s.balancing.LocalCluster, Balancers: s.balancing.custom(s.logger), LastKnownGood: *s.lastKnownGood.source(),
	})
	if err != nil {
		return nil, err
	}
	m.closers = append(m.closers, m.source.Close)
	number, numbered := s.balancing.number()
	m.upstreams = upstream.NewManager(upstream.Options{
		Name:   s.bootstrap.Node.ID,
		Number: number, Numbered: numbered,
		Identity: m.identity, Dial: s.network.Dial, Lookup: s.network.Lookup, Transport: s.network.Transport, Hooks: s.hooks,
		LocalCluster: s.balancing.LocalCluster, Locality: s.bootstrap.Node.Locality,
	})
	m.outbound = pipeline.NewOutbound(m.source, m.upstreams, s.hooks)
	m.inbound = inbound.New(inbound.Options{
		Source: m.source, Upstreams: m.upstreams, Identity: m.identity, Hooks: s.hooks,
		Warn: func(listener, text string) {
			s.logger.Warn("a listener allows more than its server does", "listener", listener, "reason", text)
		},
	})
	m.closers = append(m.closers,
		func() error { m.upstreams.Close(); return nil },
		func() error { m.outbound.Close(); return nil },
		m.inbound.Close,
	)
	m.transport = httpmesh.NewTransport(m.outbound, m.around())
	m.transport.DeadlineHeader = s.deadlineHeader
	m.grpc = grpcmesh.New(grpcmesh.Options{
		Outbound: m.outbound, Listeners: m.inbound, Hooks: s.hooks,
		Dial: s.network.Dial, AllowUnknown: s.outboundPolicy == AllowAny,
	})
	var around func(ctx context.Context, network, address string) (net.Conn, error)
	if s.outboundPolicy == AllowAny {
		around = s.network.Dial
	}
	m.tcp = tcpmesh.NewDialer(m.outbound, s.hooks, around)
	m.closers = append(m.closers, m.grpc.Close, m.tcp.Close, m.closeGuests,
		// Before everything else: calls that wait for no peer end, and none begins; and
		// what is in force now is for the next start.
		func() error { m.outbound.Stop(); return nil },
		func() error { m.source.StopKeeping(); return nil },
	)
	return m, nil
}

// identityWait bounds the wait for the first certificates when the caller has
// no deadline of its own.
const identityWait = 30 * time.Second

// startIdentities starts the certificate providers of the bootstrap, side by
// side, and waits for their first certificates.
func (m *Mesh) startIdentities(ctx context.Context) error {
	type started struct {
		name   string
		source meshtls.Source
		closer io.Closer
		err    error
	}
	maps.Copy(m.identities, m.settings.identities)
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, identityWait)
		defer cancel()
	}
	results := make(chan started)
	waiting := 0
	for name, start := range m.settings.providers {
		waiting++
		go func() { // ends with ctx at the latest; the loop below waits for it
			source, closer, err := start(ctx)
			results <- started{name, source, closer, err}
		}()
	}
	var errs []error
	for range waiting {
		r := <-results
		if r.err != nil {
			errs = append(errs, fmt.Errorf("certificate provider %q: %w%s", r.name, r.err, m.settings.withoutCA(r.name)))
			continue
		}
		m.identities[r.name] = r.source
		m.closers = append(m.closers, r.closer.Close)
	}
	return errors.Join(errs...)
}

// withoutCA says why a process with [LastKnownGood] did not start: it has been told to
// do without the control plane, and its certificates are from there. It is "" otherwise.
func (s *settings) withoutCA(provider string) string {
	if s.lastKnownGood.Dir == "" || s.bootstrap.CertificateProviders[provider].Plugin != "istio_ca" {
		return ""
	}
	return " (mesh.LastKnownGood keeps no certificates: a process that is to start while the CA is away has them from elsewhere, by file_watcher, spiffe_workload_api or sds)"
}

// around carries what does not go through the mesh, if the outbound policy
// lets it.
func (m *Mesh) around() http.RoundTripper {
	if m.settings.outboundPolicy != AllowAny {
		return nil
	}
	direct := newDirect(m.settings.network.Transport)
	m.closers = append(m.closers, direct.Close)
	return direct
}

// identity finds a certificate provider instance by its name.
func (m *Mesh) identity(instance string) (meshtls.Source, error) {
	if source := m.identities[instance]; source != nil {
		return source, nil
	}
	known := slices.Sorted(maps.Keys(m.identities))
	if len(known) == 0 {
		return nil, fmt.Errorf("certificate provider instance %q is not configured: add it to the bootstrap's certificate_providers or use mesh.WithIdentity", instance)
	}
	return nil, fmt.Errorf("certificate provider instance %q is not configured: the mesh has %s", instance, strings.Join(known, ", "))
}

// withCertificates is the bootstrap for a client that presents the mesh's own
// certificates to the control plane, if the bootstrap says so.
func (m *Mesh) withCertificates(config *bootstrap.Config) *bootstrap.Config {
	own := *config // the application's is not changed
	own.Servers = m.serversWithCertificates(config.Servers)
	own.Authorities = maps.Clone(config.Authorities)
	for name, authority := range own.Authorities {
		authority.Servers = m.serversWithCertificates(authority.Servers)
		own.Authorities[name] = authority
	}
	return &own
}

func (m *Mesh) serversWithCertificates(servers []bootstrap.Server) []bootstrap.Server {
	own := slices.Clone(servers)
	for i := range own {
		if own[i].Certificate == nil {
			own[i].Certificate = m.certificate
		}
	}
	return own
}

// loads tells of the load of clusters. It is called after New has returned: before,
// nothing is watched.
func (m *Mesh) loads(wanted func(cluster string) bool) []discovery.ClusterLoad {
	return m.upstreams.Loads(wanted)
}

// certificate is the certificate of now of a certificate provider instance.
func (m *Mesh) certificate(instance string) (*tls.Certificate, error) {
	source, err := m.identity(instance)
	if err != nil {
		return nil, err
	}
	identity, err := source.Identity()
	if err != nil {
		return nil, err
	}
	return &identity.Certificate, nil
}

// Transport sends HTTP requests through the mesh, by the host and port of their
// URL: http://payment.shop.svc.cluster.local:8080/charge. The scheme stays
// http; the mesh does TLS. Requests with the scheme https are end-to-end and
// pass round the mesh, as those to hosts that the mesh does not know, if the
// outbound policy is [AllowAny].
//
// A response is what the peer, or the configuration, answered. Every other
// outcome is an [*Error], but for requests that pass round the mesh: their
// errors are those of [http.Transport]. So is the error of a response's body that
// breaks off or does not come in time; a body whose request the application has
// canceled ends with that context's error.
//
// A retry sends the request's body again: by its GetBody, which [http.NewRequest]
// sets for what is in memory, or else from what was kept, up to 64 KiB. A larger
// body without GetBody is sent once, whatever the retry policy; the error, if there
// is one, says so.
//
// The transport is the same at each call,
// may be wrapped and shared, is safe for concurrent use, and ends with the mesh.
func (m *Mesh) Transport() http.RoundTripper { return m.transport }

// HTTPClient returns a new client over [Mesh.Transport]. It has no timeout of
// its own: the route's applies, if it has one. It follows redirects as any
// [http.Client]. Nobody need close it. To bound a call, give its request a context
// with a deadline, or [CallOptions] with a timeout: when Timeout of an [http.Client]
// is over, the client makes an error of its own, in which no [*Error] is found.
func (m *Mesh) HTTPClient() *http.Client { return &http.Client{Transport: m.transport} }

// Listen opens a listener whose connections are accepted as the control plane
// says for its address: mutual TLS (STRICT), TLS and plaintext by their first
// bytes (PERMISSIVE), or plaintext (DISABLE). It waits for the configuration,
// until ctx ends: no connection is accepted without a policy. Afterwards ctx has
// no meaning for the listener, which follows changes of its configuration until
// it is closed.
//
// The address is the one that the endpoint has in the control plane's
// configuration. Without a host it stands for all of this host, as
// "0.0.0.0:8080".
//
// Serve it with [net/http.Server] and [Mesh.Handler], or with a gRPC server that
// has [Mesh.ServerOptions]. The server, or the caller, closes it.
func (m *Mesh) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	inner, err := listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return m.Serve(ctx, inner)
}

func listen(ctx context.Context, network, address string) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("mesh: %w", err)
	}
	return ln, nil
}

// Serve is [Mesh.Listen] for a listener that is open already: one that was
// inherited, or is in memory. It is closed if Serve fails.
func (m *Mesh) Serve(ctx context.Context, inner net.Listener) (net.Listener, error) {
	ln, err := m.inbound.Listen(ctx, inner)
	if err != nil {
		return nil, fmt.Errorf("mesh: %w", err)
	}
	return ln, nil
}

// Handler serves requests that arrive at a listener of [Mesh.Listen]: it applies
// the listener's filters and deadlines and reports the call. A request from any
// other listener is refused with 503, because no policy can be said to hold for
// it. Without Handler a listener of [Mesh.Listen] still does its mutual TLS, but
// no filters, no deadlines and no telemetry, and [PeerID] finds nobody. A connection
// over which nothing is under way, or that next takes over (an upgrade), is closed within
// 6 s when its peer is not trusted any more, see [Mesh.ListenTCP]. A nil next
// is [http.DefaultServeMux], as for [http.Server].
func (m *Mesh) Handler(next http.Handler) http.Handler {
	if next == nil {
		next = http.DefaultServeMux //nolint:forbidigo // as net/http has it
	}
	return &httpmesh.Handler{
		Listeners: m.inbound, Hooks: m.settings.hooks, Next: next, DeadlineHeader: m.settings.deadlineHeader,
	}
}

// DialOptions are the options of a gRPC channel through the mesh:
//
//	grpc.NewClient("mesh:///payment.shop.svc.cluster.local:9090", m.DialOptions()...)
//
// The scheme "xds" is taken over as well. Options of the application follow
// them; its interceptors run above the mesh's if they come first. The status of
// a failure of the mesh is UNAVAILABLE, or DEADLINE_EXCEEDED, or CANCELLED;
// errors.AsType[*mesh.Error] finds the details. The application closes the
// channel, before the mesh.
func (m *Mesh) DialOptions() []grpc.DialOption { return m.grpc.DialOptions() }

// ServerOptions are the options of a gRPC server that serves on listeners of
// [Mesh.Listen]. Connections from any other listener are closed, because no
// policy can be said to hold for them. A connection has 1024 streams at most, ends after
// an hour without a call, and a call has 64 KiB of headers, or what
// max_request_headers_kb of the listeners that are open already allows, if that is more:
// open the listener first, or add grpc.MaxHeaderListSize. Calls run on goroutines that
// are kept, eight for each processor and 128 at most, and on ones of their own if none of
// these is free: what a handler sets for its goroutine, such as a profiler's labels, it must set back.
// Options of the application may follow, and override that (grpc.NumStreamWorkers(0)
// keeps none), or precede them, but for its credentials: TLS is the listener's.
func (m *Mesh) ServerOptions() []grpc.ServerOption { return m.grpc.ServerOptions() }

// String names the mesh by its node. It keeps fmt from the keys, which it would
// print with the unexported fields.
func (m *Mesh) String() string { return "mesh of " + strconv.Quote(m.settings.bootstrap.Node.ID) }

// Close leaves the mesh: listeners and connections are closed, calls in flight
// fail, those included that wait for a connection, and every goroutine of the mesh has
// ended when it returns. It waits for no answer of a peer, of the control plane or of a
// certificate provider, and for no request that is being served: for those [Mesh.Drain]
// comes before. It does wait for functions of the application that the mesh has called,
// such as hooks, GetBody of a hedged request, and a [Network] that does not heed its
// context; and for the disk, if configuration is kept there. A call that fails tells
// hooks so on the goroutine of its caller, which may be a moment later.
//
// It must not be called by a hook. It may be called at any time and more than once;
// the result is that of the first call, for which others wait.
func (m *Mesh) Close() error {
	m.closing.Store(true)
	m.closeOnce.Do(func() {
		var errs []error
		for _, closer := range slices.Backward(m.closers) {
			errs = append(errs, closer())
		}
		m.closeErr = errors.Join(errs...)
	})
	return m.closeErr
}

// PeerID returns the verified identity of the caller whose request is served
// under ctx, by a server of the mesh or by a native one with the options of package
// nativegrpc. It is false for plaintext.
func PeerID(ctx context.Context) (meshtls.ID, bool) { return inbound.Peer(ctx) }
