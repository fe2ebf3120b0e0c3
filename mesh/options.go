package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/otel/meshotel"
	"github.com/inboardmesh/inboard/tls/filesource"
	"github.com/inboardmesh/inboard/tls/istioca"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// Option configures [New].
type Option interface{ apply(*settings) }

type option func(*settings)

func (o option) apply(s *settings) { o(s) }

// settings is what options build. It is frozen when New has validated it.
type settings struct {
	bootstrap      *bootstrap.Config
	identities     map[string]meshtls.Source
	hooks          *observe.Hooks
	telemetry      *meshotel.Telemetry // nil if hooks are the application's
	tracers        trace.TracerProvider
	meters         metric.MeterProvider
	logger         *slog.Logger
	transport      *http.Transport
	dial           func(ctx context.Context, network, address string) (net.Conn, error)
	outboundPolicy OutboundPolicy
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

// WithTracerProvider makes spans with p. The default is OpenTelemetry's global
// provider, which does nothing until the application installs an SDK.
func WithTracerProvider(p trace.TracerProvider) Option {
	return option(func(s *settings) { s.tracers = p })
}

// WithMeterProvider makes metrics with p. The default is OpenTelemetry's global
// provider, which does nothing until the application installs an SDK.
func WithMeterProvider(p metric.MeterProvider) Option {
	return option(func(s *settings) { s.meters = p })
}

// WithLogger logs to logger what is not an outcome of a call: a lost control
// plane, rejected configuration, certificates that cannot be had. The default
// is [slog.Default] at the time of New.
func WithLogger(logger *slog.Logger) Option {
	return option(func(s *settings) { s.logger = logger })
}

// WithTransport sets the template of HTTP connections: buffer sizes,
// compression, header limits. It is cloned. TLS, proxies, dialing and the
// protocol version are the mesh's, except for requests that go round it, for
// which the clone is used as it is. The default is a clone of
// [http.DefaultTransport].
func WithTransport(template *http.Transport) Option {
	return option(func(s *settings) { s.transport = template })
}

// WithDialer opens the connections to endpoints, for HTTP and gRPC. The default
// is a [net.Dialer] with TCP keep-alive.
func WithDialer(dial func(ctx context.Context, network, address string) (net.Conn, error)) Option {
	return option(func(s *settings) { s.dial = dial })
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

// newSettings applies the options, fills in the defaults and validates all of
// it together.
func newSettings(options []Option) (*settings, error) {
	s := &settings{}
	for _, o := range options {
		o.apply(s)
	}
	var errs []error
	if s.bootstrap == nil {
		var err error
		if s.bootstrap, err = bootstrap.FromEnvironment(); err != nil {
			errs = append(errs, err)
		}
	}
	for instance, source := range s.identities {
		if source == nil {
			errs = append(errs, fmt.Errorf("identity %q: the source is nil", instance))
		}
	}
	if s.outboundPolicy > RegistryOnly {
		errs = append(errs, fmt.Errorf("outbound policy %d is unknown: use AllowAny or RegistryOnly", s.outboundPolicy))
	}
	if s.logger == nil {
		s.logger = slog.Default()
	}
	if s.transport == nil {
		s.transport = defaultTransport()
	}
	if s.dial == nil {
		s.dial = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	}
	if s.hooks != nil && (s.tracers != nil || s.meters != nil) {
		errs = append(errs, errors.New("WithHooks replaces OpenTelemetry: it excludes WithTracerProvider and WithMeterProvider"))
	}
	if s.hooks == nil && len(errs) == 0 {
		if err := s.startTelemetry(); err != nil {
			errs = append(errs, err)
		}
	}
	if s.hooks != nil {
		s.logRefusals()
	}
	return s, errors.Join(errs...)
}

// defaultTransport is net/http's own, unless the application put something else
// in its place.
func defaultTransport() *http.Transport {
	if t, ok := http.DefaultTransport.(*http.Transport); ok { //nolint:forbidigo // only cloned: its settings are what users expect
		return t.Clone()
	}
	return &http.Transport{}
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

// startProvider starts one certificate provider and waits for its first
// certificate.
func (s *settings) startProvider(ctx context.Context, name string, p bootstrap.CertificateProvider) (meshtls.Source, io.Closer, error) {
	switch p.Plugin {
	case "file_watcher":
		config, err := filesource.ParseConfig(p.Config)
		if err != nil {
			return nil, nil, err
		}
		config.Name, config.OnChange = name, s.certificateChanged
		source, err := filesource.New(ctx, config)
		if err != nil {
			return nil, nil, err
		}
		return source, closerFunc(source.Close), nil
	case "istio_ca":
		config, err := istioca.ParseConfig(p.Config)
		if err != nil {
			return nil, nil, err
		}
		config.Name, config.OnChange = name, s.certificateChanged
		source, err := istioca.New(ctx, config)
		if err != nil {
			return nil, nil, err
		}
		return source, closerFunc(source.Close), nil
	}
	return nil, nil, fmt.Errorf("plugin %q is unknown: the mesh has file_watcher and istio_ca; others come in by mesh.WithIdentity(%q, source)", p.Plugin, name)
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
