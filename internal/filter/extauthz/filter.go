// Package extauthz is the external authorization filter: a service decides
// whether a request is allowed, and may change it.
//
// It fails closed. A service that cannot be reached, is too slow, breaks off,
// answers what cannot be understood or asks for a change that cannot be made has
// not allowed the request, unless the configuration says that it may pass
// without an answer. One about which no service can be asked never passes.
package extauthz

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/filter/service"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/observe"
)

// Namespace is where the filter leaves its metadata.
const Namespace = "envoy.filters.http.ext_authz"

// failureHeader tells the application that nobody has allowed the request. It is
// the filter's: what a caller put there is removed.
const failureHeader = "x-envoy-auth-failure-mode-allowed"

// Caller makes the calls of the filter; [service.Client] is one.
type Caller interface {
	Do(ctx context.Context, cluster string, req *http.Request, limit int64, secure bool) (*service.Response, error)
}

var _ Caller = (*service.Client)(nil)

// Filter is the filter of one configuration. Safe for concurrent use.
type Filter struct {
	config *discovery.ExtAuthz
	caller Caller
	hooks  *observe.Hooks
	// body and extensions are those of a route.
	body       *discovery.AuthzBody
	extensions map[string]string
}

var (
	_ filter.Overridable = (*Filter)(nil)
	_ filter.Guard       = (*Filter)(nil)
)

// New returns the filter of a configuration.
func New(config *discovery.ExtAuthz, caller Caller, hooks *observe.Hooks) *Filter {
	return &Filter{config: config, caller: caller, hooks: hooks, body: config.Body}
}

// Guards is true: the service decides by what it is told of a request.
func (f *Filter) Guards() bool { return true }

// Override returns the filter for the routes with a [discovery.ExtAuthzPerRoute].
func (f *Filter) Override(config discovery.FilterConfig) (filter.Filter, error) {
	own, ok := config.(*discovery.ExtAuthzPerRoute)
	if !ok {
		return nil, fmt.Errorf("%T is no configuration of this filter in a route", config)
	}
	override := *f
	override.extensions = own.ContextExtensions
	switch {
	case own.NoBody:
		override.body = nil
	case own.Body != nil:
		override.body = own.Body
	}
	return &override, nil
}

// body is what is known of a request's body.
type body struct {
	data []byte
	// partial tells that there is more of it; read that it was looked at.
	partial, read bool
}

var (
	errTooLarge = errors.New("the body is too large")
	// errUnaskable is of a request about which nobody can be asked. It is its sender who
	// has it so: a service that may fail has not failed, and nothing passes for it.
	errUnaskable = errors.New("the service cannot be asked about such a request")
)

// Request asks the service about a request.
func (f *Filter) Request(ctx context.Context, x *filter.Exchange) (*filter.Answer, error) {
	x.Headers.Del(failureHeader)
	if !f.enabled(x) {
		if f.config.DenyAtDisable {
			return &filter.Answer{Status: f.config.StatusOnError, Reason: "not allowed"}, nil
		}
		return nil, nil
	}
	b, err := f.readBody(x)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, errTooLarge):
		// Envoy: failure_mode_allow does not matter here.
		return &filter.Answer{Status: http.StatusRequestEntityTooLarge, Body: []byte("payload too large"), Reason: "payload too large"}, nil
	case errors.Is(err, filter.ErrNoBody):
		// A stream, whose messages come later: whether it may pass is not known either.
		return &filter.Answer{Status: f.config.StatusOnError, Reason: "authorization failed"}, nil
	case err != nil:
		return unaskable(), nil //nolint:nilerr // the answer is what the error means
	}
	start := time.Now()
	v, err := f.check(ctx, x, b)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err == nil && v.allowed {
		err = v.apply(f, x)
	}
	f.report(start, v, err)
	switch {
	case errors.Is(err, errUnaskable):
		return unaskable(), nil
	case err != nil:
		return f.failed(x, v, err), nil
	case !v.allowed:
		if !f.config.IgnoreMetadata && len(v.metadata) > 0 {
			x.SetMetadata(Namespace, v.metadata)
		}
		return f.denial(v), nil
	}
	return nil, nil
}

func (f *Filter) enabled(x *filter.Exchange) bool {
	if f.config.EnabledMetadata != nil && !f.config.EnabledMetadata.Matches(x.Metadata) {
		return false
	}
	return f.config.PerMillion == nil || route.Draw(*f.config.PerMillion)
}

// readBody reads what the service is to get of the body.
func (f *Filter) readBody(x *filter.Exchange) (body, error) {
	if f.body == nil {
		return body{}, nil
	}
	data, whole, err := x.ReadBody(f.body.MaxBytes)
	switch {
	case errors.Is(err, filter.ErrNoBody) && f.body.AllowPartial:
		return body{read: true, partial: true}, nil
	case err != nil:
		return body{}, err
	}
	if !whole && !f.body.AllowPartial {
		return body{}, errTooLarge
	}
	return body{data: data, read: true, partial: !whole}, nil
}

func (f *Filter) cluster() (name string, timeout time.Duration) {
	if f.config.GRPC != nil {
		return f.config.GRPC.Cluster, f.config.GRPC.Timeout
	}
	return f.config.HTTP.Cluster, f.config.HTTP.Timeout
}

// check asks the service.
func (f *Filter) check(ctx context.Context, x *filter.Exchange, b body) (*verdict, error) {
	_, timeout := f.cluster()
	ctx, cancel := service.WithTimeout(ctx, timeout)
	defer cancel()
	if f.config.GRPC != nil {
		return f.checkGRPC(ctx, x, b)
	}
	return f.checkHTTP(ctx, x, b)
}

func unaskable() *filter.Answer {
	return &filter.Answer{Status: http.StatusBadRequest, Body: []byte("not a request that can be checked"), Reason: "cannot be checked"}
}

// failed is what becomes of a request about which there is no answer.
func (f *Filter) failed(x *filter.Exchange, v *verdict, err error) *filter.Answer {
	if errors.Is(err, errInvalid) {
		// The service has answered, and what it wants cannot be done.
		return &filter.Answer{Status: http.StatusInternalServerError, Reason: "authorization failed"}
	}
	if f.config.FailureModeAllow {
		if f.config.FailureModeHeader {
			x.Headers.Set(failureHeader, "true")
		}
		return nil
	}
	answer := &filter.Answer{Status: f.config.StatusOnError, Reason: "authorization failed"}
	if v != nil {
		answer.Headers, answer.Body = v.headers, v.body
		if v.status != 0 {
			answer.Status = v.status
		}
	}
	return answer
}

// denial is the service's no.
func (f *Filter) denial(v *verdict) *filter.Answer {
	answer := &filter.Answer{Status: v.status, Headers: v.headers, Body: v.body, Reason: "access denied"}
	if limit := int(f.config.MaxDeniedBody); limit > 0 && len(answer.Body) > limit {
		answer.Body = answer.Body[:limit]
	}
	if text := string(answer.Body); text != "" && len(text) <= 256 && printable(text) {
		answer.Reason = text
	}
	return answer
}

func printable(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

func (f *Filter) report(start time.Time, v *verdict, err error) {
	hook := f.hooks.AuthorizationChecked
	if hook == nil {
		return
	}
	cluster, _ := f.cluster()
	event := observe.CheckEvent{Cluster: cluster, Result: "denied", Err: err, Duration: time.Since(start)}
	if f.config.GRPC != nil {
		event.Authority = f.config.GRPC.Authority
	}
	switch {
	case err != nil:
		event.Result, event.Reason = "error", reasonOf(err)
		event.Allowed = f.config.FailureModeAllow && !errors.Is(err, errInvalid) && !errors.Is(err, errUnaskable)
	case v.allowed:
		event.Result, event.Allowed = "ok", true
	}
	hook(event)
}

// reasonOf is what kind of failure the lack of an answer is.
func reasonOf(err error) string {
	if errors.Is(err, errUnaskable) {
		return "request"
	}
	return string(service.ReasonOf(err))
}
