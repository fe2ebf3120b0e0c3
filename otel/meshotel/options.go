package meshotel

import (
	"errors"
	"fmt"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// defaultMaxSeries is the SDK's own default for one instrument.
const defaultMaxSeries = 2000

// Option configures [New].
type Option interface {
	apply(*config)
}

type config struct {
	tracers    trace.TracerProvider
	meters     metric.MeterProvider
	propagator propagation.TextMapPropagator
	maxSeries  int
}

type optionFunc func(*config)

func (f optionFunc) apply(c *config) { f(c) }

// WithTracerProvider sets where spans go. The default is OpenTelemetry's global
// provider, which records nothing until the application installs one.
func WithTracerProvider(p trace.TracerProvider) Option {
	return optionFunc(func(c *config) { c.tracers = p })
}

// WithMeterProvider sets where metrics go. The default is OpenTelemetry's
// global provider, which records nothing until the application installs one.
func WithMeterProvider(p metric.MeterProvider) Option {
	return optionFunc(func(c *config) { c.meters = p })
}

// WithPropagator sets how the trace context travels in headers. The default is
// OpenTelemetry's global propagator if the application has set one before
// [New], else W3C Trace Context and W3C Baggage.
func WithPropagator(p propagation.TextMapPropagator) Option {
	return optionFunc(func(c *config) { c.propagator = p })
}

// WithMaxSeries bounds the distinct attribute sets that are reported by all
// metrics together. What comes after that is counted in one set per instrument
// that has the only attribute otel.metric.overflow=true. The default is 2000.
func WithMaxSeries(n int) Option {
	return optionFunc(func(c *config) { c.maxSeries = n })
}

func newConfig(opts []Option) (*config, error) {
	c := &config{
		tracers:    otel.GetTracerProvider(),
		meters:     otel.GetMeterProvider(),
		propagator: otel.GetTextMapPropagator(),
		maxSeries:  defaultMaxSeries,
	}
	if len(c.propagator.Fields()) == 0 {
		// Nobody has set one: a mesh that breaks every trace in two would be a
		// poor default.
		c.propagator = propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
	}
	for _, opt := range opts {
		opt.apply(c)
	}

	var problems []error
	if c.tracers == nil {
		problems = append(problems, errors.New("tracer provider is nil: leave the option out to use the global one"))
	}
	if c.meters == nil {
		problems = append(problems, errors.New("meter provider is nil: leave the option out to use the global one"))
	}
	if c.propagator == nil {
		problems = append(problems, errors.New("propagator is nil: leave the option out for W3C Trace Context and Baggage"))
	}
	if c.maxSeries < 1 {
		problems = append(problems, fmt.Errorf("maximum of series is %d: it must be at least 1", c.maxSeries))
	}
	return c, errors.Join(problems...)
}
