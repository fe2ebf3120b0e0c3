package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/net/http/httpguts"
	"golang.org/x/time/rate"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/httpmesh"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/otel/meshotel"
	"github.com/inboardmesh/inboard/tls/filesource"
	"github.com/inboardmesh/inboard/tls/istioca"
	"github.com/inboardmesh/inboard/tls/meshtls"
	"github.com/inboardmesh/inboard/tls/sds"
	"github.com/inboardmesh/inboard/tls/spiffe"
)

// Option configures [New].
type Option interface{ apply(*settings) }

type option func(*settings)

func (o option) apply(s *settings) { o(s) }

// settings is what options build. It is frozen when New has validated it.
type settings struct {
	bootstrap      *bootstrap.Config
	identities     map[string]meshtls.Source
	providers      map[string]provider // of the bootstrap, without those that identities replace
	hooks          *observe.Hooks
	telemetry      *meshotel.Telemetry // nil if hooks are the application's
	services       *services
	streams        *streams
	tracers        trace.TracerProvider
	meters         metric.MeterProvider
	logger         *slog.Logger
	network        Network
	outboundPolicy OutboundPolicy
	balancing      Balancing
	deadlineHeader string
	lastKnownGood  LastKnownGood
}

// WithBootstrap sets the bootstrap. The default is the environment's
// (GRPC_XDS_BOOTSTRAP, GRPC_XDS_BOOTSTRAP_CONFIG). It must not be changed
// afterwards.
func WithBootstrap(config *bootstrap.Config) Option {
	return option(func(s *settings) { s.bootstrap = config })
}

// WithIdentity sets the source of a certificate provider instance, in place of
// the one that the bootstrap configures under that name. The mesh does not
// close it. Control planes call the workload's own instance "default".
func WithIdentity(instance string, source meshtls.Source) Option {
	return option(func(s *settings) {
		if s.identities == nil {
			s.identities = make(map[string]meshtls.Source)
		}
		s.identities[instance] = source
	})
}

// WithHooks reports to hooks. The default is OpenTelemetry; to have both,
// call the hooks of meshotel in your own. It must not be changed afterwards.
func WithHooks(hooks *observe.Hooks) Option {
	return option(func(s *settings) { s.hooks = hooks })
}

// WithTracerProvider makes spans with p, which the application shuts down, after
// [Mesh.Close]. The default is OpenTelemetry's global provider, which does nothing until
// the application installs an SDK.
func WithTracerProvider(p trace.TracerProvider) Option {
	return option(func(s *settings) { s.tracers = p })
}

// WithMeterProvider makes metrics with p, which the application shuts down, after
// [Mesh.Close]. The default is OpenTelemetry's global provider, which does nothing until
// the application installs an SDK.
func WithMeterProvider(p metric.MeterProvider) Option {
	return option(func(s *settings) { s.meters = p })
}

// WithLogger logs to logger what is not an outcome of a call: a lost control
// plane, rejected configuration, certificates that cannot be had, services of filters
// that fail (see [Mesh.Services]). The default is [slog.Default] at the time of New.
func WithLogger(logger *slog.Logger) Option {
	return option(func(s *settings) { s.logger = logger })
}

// OutboundPolicy is what happens to calls to hosts that the control plane does
// not know.
type OutboundPolicy uint8

const (
	// AllowAny sends them directly, outside the mesh. It is Istio's default.
	AllowAny OutboundPolicy = iota
	// RegistryOnly refuses them.
	RegistryOnly
)

// WithOutboundPolicy sets the policy for unknown hosts. The default is
// [AllowAny].
func WithOutboundPolicy(p OutboundPolicy) Option {
	return option(func(s *settings) { s.outboundPolicy = p })
}

// WithDeadlineHeader sets the HTTP header in which callers say how long they still
// wait, as a whole number of milliseconds: requests carry it if their time is
// limited, and listeners read it, for they cannot take longer than their caller
// waits. All of a mesh's callers and callees must have the same. The default is
// x-envoy-expected-rq-timeout-ms, which Envoy writes and reads; "" is the default.
// It must not be a header with a meaning of its own. Calls over gRPC have
// grpc-timeout, whatever is set here.
func WithDeadlineHeader(name string) Option {
	return option(func(s *settings) { s.deadlineHeader = name })
}

// checkDeadlineHeader makes the name canonical. The headers that it must not be are
// those that net/http, gRPC or the mesh gives another meaning.
func (s *settings) checkDeadlineHeader() error {
	name := s.deadlineHeader
	if name == "" {
		s.deadlineHeader = httpmesh.DefaultDeadlineHeader
		return nil
	}
	const example = `use a name of your own, such as "x-deadline-ms"`
	if !httpguts.ValidHeaderFieldName(name) {
		return fmt.Errorf("deadline header %q is not the name of a header: %s", name, example)
	}
	s.deadlineHeader = http.CanonicalHeaderKey(name)
	switch s.deadlineHeader {
	case "Host", "Content-Length", "Content-Type", "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Expect", "Cookie", "Authorization", "Grpc-Timeout",
		"Traceparent", "Tracestate", "Baggage", "X-Envoy-Attempt-Count":
		return fmt.Errorf("deadline header %q has another meaning: %s", name, example)
	}
	if pipeline.IsControl(s.deadlineHeader) {
		return fmt.Errorf("deadline header %q controls calls and is removed from what arrives: %s", name, example)
	}
	return nil
}

// newSettings applies the options, fills in the defaults and validates all of
// it together.
func newSettings(options []Option) (*settings, error) {
	s := &settings{}
	var errs []error
	for n, o := range options {
		if o == nil {
			errs = append(errs, fmt.Errorf("option %d is nil", n))
			continue
		}
		o.apply(s)
	}
	if s.bootstrap == nil {
		var err error
		if s.bootstrap, err = bootstrap.FromEnvironment(); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, s.balancing.check()...)
	for instance, source := range s.identities {
		if source == nil {
			errs = append(errs, fmt.Errorf("identity %q: the source is nil", instance))
		}
	}
	if s.bootstrap != nil {
		errs = append(errs, s.checkBootstrap()...)
	}
	if s.outboundPolicy > RegistryOnly {
		errs = append(errs, fmt.Errorf("outbound policy %d is unknown: use AllowAny or RegistryOnly", s.outboundPolicy))
	}
	if err := s.lastKnownGood.source().Validate(); err != nil {
		errs = append(errs, err)
	}
	if err := s.checkDeadlineHeader(); err != nil {
		errs = append(errs, err)
	}
	if s.logger == nil {
		s.logger = slog.Default()
	}
	s.network = s.network.withDefaults()
	if s.hooks != nil && (s.tracers != nil || s.meters != nil) {
		errs = append(errs, errors.New("WithHooks replaces OpenTelemetry: it excludes WithTracerProvider and WithMeterProvider. To have both, give WithHooks those of meshotel.New with the providers; package meshtest always has hooks, to which meshtest.Hooks adds"))
	}
	if s.hooks == nil && len(errs) == 0 {
		if err := s.startTelemetry(); err != nil {
			errs = append(errs, err)
		}
	}
	if s.hooks != nil {
		s.logRefusals()
		s.logDrains()
		s.watchServices()
		s.watchStreams()
	}
	return s, errors.Join(errs...)
}

// logRefusals lets the log, too, say which connections were refused and why. A
// flood of them does not become a flood of lines.
func (s *settings) logRefusals() {
	limit := rate.NewLimiter(rate.Every(time.Second), 5)
	hooks := *s.hooks
	next := hooks.HandshakeFailed
	hooks.HandshakeFailed = func(event observe.HandshakeEvent) {
		if limit.Allow() {
			s.logger.Warn("connection refused", "listener", event.Listener, "peer", event.PeerAddress, "error", event.Err)
		}
		if next != nil {
			next(event)
		}
	}
	s.hooks = &hooks
}

func (s *settings) startTelemetry() (err error) {
	var options []meshotel.Option
	if s.tracers != nil {
		options = append(options, meshotel.WithTracerProvider(s.tracers))
	}
	if s.meters != nil {
		options = append(options, meshotel.WithMeterProvider(s.meters))
	}
	if s.telemetry, err = meshotel.New(options...); err != nil {
		return err
	}
	s.hooks = s.telemetry.Hooks()
	return nil
}

// provider starts a certificate provider and waits for its first certificate.
type provider func(ctx context.Context) (meshtls.Source, io.Closer, error)

// checkBootstrap reports what is wrong with the bootstrap and prepares its
// certificate providers. Nothing is started.
func (s *settings) checkBootstrap() []error {
	var errs []error
	if err := s.bootstrap.Validate(); err != nil {
		errs = append(errs, err)
	}
	s.providers = make(map[string]provider, len(s.bootstrap.CertificateProviders))
	for _, name := range slices.Sorted(maps.Keys(s.bootstrap.CertificateProviders)) {
		if s.identities[name] != nil {
			continue // WithIdentity replaces the provider
		}
		start, err := s.provider(name, s.bootstrap.CertificateProviders[name])
		switch {
		case err == nil:
			s.providers[name] = start
		case len(errs) == 0 || errors.Is(err, errPlugin):
			// Validate has named the other mistakes, field by field.
			errs = append(errs, fmt.Errorf("bootstrap: %s%w", bootstrap.ProviderPath(name), err))
		}
	}
	errs = append(errs, s.checkInstances("$", s.bootstrap.Servers)...)
	for _, name := range slices.Sorted(maps.Keys(s.bootstrap.Authorities)) {
		errs = append(errs, s.checkInstances("$.authorities."+name, s.bootstrap.Authorities[name].Servers)...)
	}
	return errs
}

// checkInstances finds certificate provider instances of the servers of the
// object at path that nobody has configured.
func (s *settings) checkInstances(path string, servers []bootstrap.Server) (errs []error) {
	for i := range servers {
		name := servers[i].CertificateInstance()
		if _, ok := s.bootstrap.CertificateProviders[name]; name != "" && !ok && s.identities[name] == nil && servers[i].Certificate == nil {
			errs = append(errs, fmt.Errorf("bootstrap: %s.xds_servers[%d].channel_creds: certificate_provider_instance %q is not configured: add it to $.certificate_providers or use mesh.WithIdentity", path, i, name))
		}
	}
	return errs
}

// errPlugin is wrapped by the error for a plugin that the mesh does not have.
var errPlugin = errors.New("the mesh has file_watcher, istio_ca, spiffe_workload_api and sds")

// provider prepares one certificate provider. The error begins with the path
// below that of the provider.
func (s *settings) provider(name string, p bootstrap.CertificateProvider) (provider, error) {
	switch p.Plugin {
	case "file_watcher":
		config, err := filesource.ParseConfig(p.Config)
		config.Name, config.OnChange = name, s.certificateChanged
		return providerOf(err, config, filesource.New)
	case "istio_ca":
		config, err := istioca.ParseConfig(p.Config)
		config.Name, config.OnChange = name, s.certificateChanged
		return providerOf(err, config, istioca.New)
	case "spiffe_workload_api":
		config, err := spiffe.ParseConfig(p.Config)
		config.Name, config.OnChange = name, s.certificateChanged
		return providerOf(err, config, spiffe.New)
	case "sds":
		config, err := sds.ParseConfig(p.Config)
		config.Name, config.OnChange = name, s.certificateChanged
		return providerOf(err, config, sds.New)
	}
	return nil, fmt.Errorf(".plugin_name: %q is unknown: %w; others come in by mesh.WithIdentity(%q, source)", p.Plugin, errPlugin, name)
}

// providerOf is the provider that New of a source's package starts with a
// configuration that was read, or the error of reading it.
func providerOf[C any, S interface {
	meshtls.Source
	Close()
}](err error, config C, start func(context.Context, C) (S, error)) (provider, error) {
	if err != nil {
		return nil, fmt.Errorf(".config: %w", err)
	}
	return func(ctx context.Context) (meshtls.Source, io.Closer, error) {
		source, err := start(ctx, config)
		if err != nil {
			return nil, nil, err
		}
		return source, closerFunc(source.Close), nil
	}, nil
}

func (s *settings) certificateChanged(event observe.CertificateEvent) {
	if event.Err != nil {
		s.logger.Warn("no new certificate", "source", event.Source, "error", event.Err)
	}
	if s.hooks.CertificateChanged != nil {
		s.hooks.CertificateChanged(event)
	}
}

type closerFunc func()

func (f closerFunc) Close() error {
	f()
	return nil
}
