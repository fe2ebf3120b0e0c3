package extauthz_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/filter/extauthz"
	"github.com/inboardmesh/inboard/internal/filter/service"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
)

type headers map[string][]string

func (h headers) Values(name string) []string { return h[name] }
func (h headers) Set(name, value string)      { h[name] = []string{value} }
func (h headers) Add(name, value string)      { h[name] = append(h[name], value) }
func (h headers) Del(name string)             { delete(h, name) }
func (h headers) Keys() []string {
	keys := make([]string, 0, len(h))
	for key := range h {
		keys = append(keys, key)
	}
	return keys
}

func exchange(h headers) *filter.Exchange {
	return &filter.Exchange{
		Request: route.Request{Method: "POST", Scheme: "http", Host: "shop", Path: "/pay", Query: "a=b&t=1", Header: h}, Headers: h,
		Facts: route.Facts{Protocol: "HTTP/1.1", Start: time.Now(), Remote: "10.0.0.7:4000", PeerID: "spiffe://cluster.local/ns/shop/sa/web"},
		Body:  func(limit int) ([]byte, bool, error) { return []byte("0123456789")[:min(limit, 10)], limit >= 10, nil },
	}
}

// authz is a real server with Envoy's API.
type authz struct {
	authv3.UnimplementedAuthorizationServer

	answer func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error)
	mu     sync.Mutex
	asked  []*authv3.CheckRequest // guarded by mu
}

func (a *authz) Check(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	a.mu.Lock()
	a.asked = append(a.asked, r)
	a.mu.Unlock()
	return a.answer(ctx, r)
}

// startGRPC serves on loopback.
func startGRPC(t *testing.T, a *authz) (address string, stop func()) {
	t.Helper()
	ln := listen(t)
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, a)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	stop = sync.OnceFunc(func() { s.Stop(); <-done })
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

func startHTTP(t *testing.T, h http.HandlerFunc) (address string, stop func()) {
	t.Helper()
	ln := listen(t)
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	stop = sync.OnceFunc(func() { _ = s.Close(); <-done })
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// client calls the cluster "authz", which is one address.
func client(t *testing.T, address string, protocol discovery.HTTPProtocol, hooks *observe.Hooks) *service.Client {
	t.Helper()
	m := upstream.NewManager(upstream.Options{Dial: new(net.Dialer).DialContext, Hooks: hooks})
	t.Cleanup(m.Close)
	held := m.Hold(map[string]discovery.ClusterResult{"authz": {
		Cluster: &discovery.Cluster{
			Name: "authz", Protocol: protocol, Limits: [2]breaker.Limits{breaker.DefaultLimits, breaker.DefaultLimits},
		},
		Endpoints: &discovery.Assignment{Name: "authz", Localities: []discovery.LocalityEndpoints{{
			Weight: 1, Endpoints: []balancer.Endpoint{{Address: address, Weight: 1}},
		}}},
	}})
	t.Cleanup(func() { m.Release(held) })
	return service.NewClient(m.Find, hooks)
}

func grpcConfig() *discovery.ExtAuthz {
	return &discovery.ExtAuthz{GRPC: &discovery.AuthzGRPC{Cluster: "authz", Timeout: 10 * time.Second}, StatusOnError: 403}
}

func httpConfig() *discovery.ExtAuthz {
	return &discovery.ExtAuthz{HTTP: &discovery.AuthzHTTP{Cluster: "authz", Timeout: 10 * time.Second, PathPrefix: "/check"}, StatusOnError: 403}
}

func run(t *testing.T, f filter.Filter, x *filter.Exchange) *filter.Answer {
	t.Helper()
	answer, err := f.Request(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func option(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}}
}

func ok(m *authv3.OkHttpResponse) *authv3.CheckResponse {
	return &authv3.CheckResponse{Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: m}}
}

func denied(m *authv3.DeniedHttpResponse) *authv3.CheckResponse {
	return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: 7}, HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: m}}
}

func TestAGRPCServiceChangesWhatItAllows(t *testing.T) {
	t.Parallel()
	metadata, err := structpb.NewStruct(map[string]any{"user": "alice"})
	if err != nil {
		t.Fatal(err)
	}
	added := option("X-Role", "cook")
	added.Append = wrapperspb.Bool(true) //nolint:staticcheck // still in use
	yes := ok(&authv3.OkHttpResponse{
		Headers: []*corev3.HeaderValueOption{option("X-User", "alice"), added}, HeadersToRemove: []string{"X-Secret", ":path", "Host"},
		ResponseHeadersToAdd:    []*corev3.HeaderValueOption{option("x-checked", "yes")},
		QueryParametersToSet:    []*corev3.QueryParameter{{Key: "t", Value: "2 3"}, {Key: "n", Value: "&"}},
		QueryParametersToRemove: []string{"a"},
	})
	yes.DynamicMetadata = metadata
	a := &authz{answer: func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) { return yes, nil }}
	address, _ := startGRPC(t, a)
	c := grpcConfig()
	c.Body = &discovery.AuthzBody{MaxBytes: 4, AllowPartial: true}
	c.MetadataNamespaces, c.DisallowedHeaders = []string{"jwt", "none"}, []discovery.StringMatch{{Value: "x-hidden"}}
	var events []observe.CheckEvent
	hooks := &observe.Hooks{AuthorizationChecked: func(e observe.CheckEvent) { events = append(events, e) }}
	base := extauthz.New(c, client(t, address, discovery.HTTP2, hooks), hooks)
	f, err := base.Override(&discovery.ExtAuthzPerRoute{ContextExtensions: map[string]string{"route": "pay"}})
	if err != nil {
		t.Fatal(err)
	}
	h := headers{"x-user": {"mallory"}, "x-role": {"guest"}, "x-secret": {"s"}, "x-hidden": {"h"}, "x-bytes": {"a\xff"}, "x-envoy-auth-partial-body": {"false"}}
	x := exchange(h)
	x.SetMetadata("jwt", map[string]any{"sub": "alice"})
	if answer := run(t, f, x); answer != nil {
		t.Fatalf("%+v, events %+v", answer, events)
	}
	if h["x-user"][0] != "alice" || !slices.Equal(h["x-role"], []string{"guest", "cook"}) || h["x-secret"] != nil {
		t.Errorf("headers %v", h)
	}
	if x.Query != "t=2+3&n=%26" || x.Host != "shop" || x.Path != "/pay" {
		t.Errorf("query %q, host %q, path %q", x.Query, x.Host, x.Path)
	}
	if x.Metadata[extauthz.Namespace]["user"] != "alice" {
		t.Errorf("metadata %v", x.Metadata)
	}
	response := headers{}
	x.Response(200, response)
	if response["x-checked"] == nil {
		t.Errorf("response %v", response)
	}
	asked := a.asked[0].GetAttributes()
	r := asked.GetRequest().GetHttp()
	if r.GetMethod() != "POST" || r.GetPath() != "/pay?a=b&t=1" || r.GetHost() != "shop" || r.GetBody() != "0123" ||
		r.GetHeaders()["x-envoy-auth-partial-body"] != "true" || r.GetHeaders()["x-bytes"] != "a!" || r.GetHeaders()["x-user"] != "mallory" ||
		r.GetHeaders()[":path"] != "/pay?a=b&t=1" {
		t.Errorf("asked %v", r)
	}
	if _, there := r.GetHeaders()["x-hidden"]; there {
		t.Error("a header that is disallowed was told")
	}
	if asked.GetSource().GetPrincipal() != "spiffe://cluster.local/ns/shop/sa/web" || asked.GetSource().GetAddress().GetSocketAddress().GetPortValue() != 4000 ||
		asked.GetContextExtensions()["route"] != "pay" || asked.GetMetadataContext().GetFilterMetadata()["jwt"].GetFields()["sub"].GetStringValue() != "alice" {
		t.Errorf("asked %v", asked)
	}
	if len(events) != 1 || events[0].Result != "ok" || !events[0].Allowed {
		t.Errorf("events %+v", events)
	}
}

func TestAGRPCServiceDenies(t *testing.T) {
	t.Parallel()
	a := &authz{}
	address, _ := startGRPC(t, a)
	c := grpcConfig()
	c.MaxDeniedBody = 5
	f := extauthz.New(c, client(t, address, discovery.HTTP2, &observe.Hooks{}), &observe.Hooks{})
	for _, tt := range []struct {
		name   string
		answer *authv3.CheckResponse
		status int
		body   string
	}{
		{"without a word", &authv3.CheckResponse{Status: &rpcstatus.Status{Code: 16}}, 403, ""},
		{"with a status, a header and a body", denied(&authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode_Unauthorized}, Body: "go away",
			Headers: []*corev3.HeaderValueOption{option("WWW-Authenticate", "Basic"), option("content-length", "1"), option("x-bad", "a\r\nb")},
		}), 401, "go aw"},
		{"with the status of a success", denied(&authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode_OK}}), 403, ""},
		{"with an empty message, which says nothing", &authv3.CheckResponse{}, 403, ""},
		{"with a change that cannot be made", ok(&authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{option(":path", "/admin")}}), 500, ""},
		{"with a value that no header can hold", ok(&authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{option("x-a", "b\r\nc")}}), 500, ""},
		{"with yes and no", &authv3.CheckResponse{Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_DeniedResponse{}}, 403, ""},
		{"with an error of its own", &authv3.CheckResponse{Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_ErrorResponse{
			ErrorResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode_BadGateway}},
		}}, 502, ""},
	} {
		a.answer = func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) { return tt.answer, nil }
		answer := run(t, f, exchange(headers{}))
		if answer == nil || answer.Status != tt.status || string(answer.Body) != tt.body {
			t.Errorf("%s: %+v", tt.name, answer)
		}
		if tt.status == 401 && !slices.Equal(answer.Headers, []filter.Header{{Name: "www-authenticate", Value: "Basic"}}) {
			t.Errorf("%s: headers %v", tt.name, answer.Headers)
		}
	}
}

func TestV58_WithoutAnAnswerNothingIsAllowed(t *testing.T) {
	t.Parallel()
	failing := func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		return nil, status.Error(codes.Internal, "broken")
	}
	hanging := func(ctx context.Context, _ *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	huge := func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		return denied(&authv3.DeniedHttpResponse{Body: strings.Repeat("x", 2<<20)}), nil
	}
	for _, tt := range []struct {
		name   string
		config func() *discovery.ExtAuthz
		caller func(t *testing.T, hooks *observe.Hooks) *service.Client
	}{
		{"killed", grpcConfig, func(t *testing.T, hooks *observe.Hooks) *service.Client {
			t.Helper()
			address, stop := startGRPC(t, &authz{answer: failing})
			stop()
			return client(t, address, discovery.HTTP2, hooks)
		}},
		{"failing", grpcConfig, func(t *testing.T, hooks *observe.Hooks) *service.Client {
			t.Helper()
			address, _ := startGRPC(t, &authz{answer: failing})
			return client(t, address, discovery.HTTP2, hooks)
		}},
		{"hanging", func() *discovery.ExtAuthz {
			c := grpcConfig()
			c.GRPC.Timeout = 50 * time.Millisecond
			return c
		}, func(t *testing.T, hooks *observe.Hooks) *service.Client {
			t.Helper()
			address, _ := startGRPC(t, &authz{answer: hanging})
			return client(t, address, discovery.HTTP2, hooks)
		}},
		{"with too much to say", grpcConfig, func(t *testing.T, hooks *observe.Hooks) *service.Client {
			t.Helper()
			address, _ := startGRPC(t, &authz{answer: huge})
			return client(t, address, discovery.HTTP2, hooks)
		}},
		{"of another protocol", grpcConfig, func(t *testing.T, hooks *observe.Hooks) *service.Client {
			t.Helper()
			address, _ := startHTTP(t, func(http.ResponseWriter, *http.Request) {})
			return client(t, address, discovery.HTTP1, hooks)
		}},
		{"without a cluster", grpcConfig, func(_ *testing.T, hooks *observe.Hooks) *service.Client {
			return service.NewClient(func(string) *upstream.Cluster { return nil }, hooks)
		}},
		{"killed, over HTTP", httpConfig, func(t *testing.T, hooks *observe.Hooks) *service.Client {
			t.Helper()
			address, stop := startHTTP(t, func(http.ResponseWriter, *http.Request) {})
			stop()
			return client(t, address, discovery.HTTP1, hooks)
		}},
		{"failing, over HTTP", httpConfig, func(t *testing.T, hooks *observe.Hooks) *service.Client {
			t.Helper()
			address, _ := startHTTP(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
			return client(t, address, discovery.HTTP1, hooks)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var events []observe.CheckEvent
			hooks := &observe.Hooks{AuthorizationChecked: func(e observe.CheckEvent) { events = append(events, e) }}
			caller := tt.caller(t, hooks)
			c := tt.config()
			c.StatusOnError = 503
			h := headers{"x-envoy-auth-failure-mode-allowed": {"true"}}
			if answer := run(t, extauthz.New(c, caller, hooks), exchange(h)); answer == nil || answer.Status != 503 {
				t.Errorf("%+v", answer)
			}
			if h["x-envoy-auth-failure-mode-allowed"] != nil {
				t.Error("the caller says that it is allowed")
			}
			if len(events) != 1 || events[0].Result != "error" || events[0].Allowed || events[0].Err == nil {
				t.Errorf("events %+v", events)
			}
			open := *c
			open.FailureModeAllow, open.FailureModeHeader = true, true
			if answer := run(t, extauthz.New(&open, caller, hooks), exchange(h)); answer != nil || h["x-envoy-auth-failure-mode-allowed"] == nil {
				t.Errorf("allowed without an answer: %+v, %v", answer, h)
			}
		})
	}
}

func TestAnHTTPServiceDecides(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body string
	code := 200
	address, _ := startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		got, body = r, string(data)
		w.Header().Set("X-User", "alice")
		w.Header().Set("X-Reason", "because")
		w.Header().Set("X-Envoy-Auth-Headers-To-Remove", "x-secret, :path")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, "no")
	})
	c := httpConfig()
	c.AllowedHeaders = []discovery.StringMatch{{Value: "x-", Kind: discovery.MatchPrefix}}
	c.DisallowedHeaders = []discovery.StringMatch{{Value: "x-hidden"}}
	c.Body = &discovery.AuthzBody{MaxBytes: 100}
	c.HTTP.HeadersToAdd = []discovery.HeaderValue{{Name: "x-added", Value: "yes"}}
	c.HTTP.UpstreamHeaders = []discovery.StringMatch{{Value: "x-user"}}
	c.HTTP.ClientHeaders = []discovery.StringMatch{{Value: "x-reason"}}
	c.HTTP.ClientHeadersOnSuccess = []discovery.StringMatch{{Value: "x-reason"}}
	f := extauthz.New(c, client(t, address, discovery.HTTP1, &observe.Hooks{}), &observe.Hooks{})
	h := headers{"x-user": {"mallory"}, "x-secret": {"s"}, "x-hidden": {"h"}, "x-added": {"no"}, "cookie": {"c"}, "authorization": {"Basic x"}}
	x := exchange(h)
	if answer := run(t, f, x); answer != nil {
		t.Fatalf("%+v", answer)
	}
	if got.Method != http.MethodPost || got.RequestURI != "/check/pay?a=b&t=1" || got.Host != "shop" || body != "0123456789" ||
		got.Header.Get("X-Secret") != "s" || got.Header.Get("X-Hidden") != "" || got.Header.Get("Cookie") != "" ||
		got.Header.Get("Authorization") != "Basic x" || got.Header.Get("X-Added") != "yes" {
		t.Errorf("asked %v %v, body %q", got.RequestURI, got.Header, body)
	}
	if !slices.Equal(h["x-user"], []string{"alice"}) || h["x-secret"] != nil {
		t.Errorf("headers %v", h)
	}
	response := headers{}
	x.Response(200, response)
	if len(response) != 1 || response["x-reason"] == nil {
		t.Errorf("response %v", response)
	}
	for status, want := range map[int]int{401: 401, 302: 302, 404: 404, 201: 403} {
		code = status
		answer := run(t, f, exchange(headers{}))
		if answer == nil || answer.Status != want || string(answer.Body) != "no" || !slices.Equal(answer.Headers, []filter.Header{{Name: "x-reason", Value: "because"}}) {
			t.Errorf("%d: %+v", status, answer)
		}
	}
	code, c.Body = 200, nil
	if answer := run(t, extauthz.New(c, client(t, address, discovery.HTTP1, &observe.Hooks{}), &observe.Hooks{}), exchange(headers{"x-envoy-auth-partial-body": {"false"}})); answer != nil || got.Header["X-Envoy-Auth-Partial-Body"] != nil {
		t.Errorf("a client says of the body %q: %+v", got.Header["X-Envoy-Auth-Partial-Body"], answer)
	}
	c.Body = &discovery.AuthzBody{MaxBytes: 5}
	c.FailureModeAllow = true
	if answer := run(t, extauthz.New(c, nil, &observe.Hooks{}), exchange(headers{})); answer == nil || answer.Status != 413 {
		t.Errorf("a large body: %+v", answer)
	}
}

// TestV53_V08_AFailedCheckTellsNothing: nor does a header that is no text make it
// fail.
func TestV53_V08_AFailedCheckTellsNothing(t *testing.T) {
	t.Parallel()
	address, stop := startGRPC(t, &authz{})
	stop()
	answer := run(t, extauthz.New(grpcConfig(), client(t, address, discovery.HTTP2, &observe.Hooks{}), &observe.Hooks{}), exchange(headers{}))
	if answer == nil || answer.Status != 403 || answer.Body != nil || answer.Headers != nil || answer.Reason != "authorization failed" {
		t.Errorf("got %+v", answer)
	}

	asked := 0
	a := &authz{answer: func(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		asked++
		if r.GetAttributes().GetRequest().GetHttp().GetHeaders()["x-role"] == "admin" {
			return ok(&authv3.OkHttpResponse{}), nil
		}
		return denied(&authv3.DeniedHttpResponse{}), nil
	}}
	address, _ = startGRPC(t, a)
	f := extauthz.New(grpcConfig(), client(t, address, discovery.HTTP2, &observe.Hooks{}), &observe.Hooks{})
	for _, value := range []string{"admin\xff", "\x80admin", "admin\x00", " admin", "admin "} {
		if answer := run(t, f, exchange(headers{"x-role": {value}, "x-\xff": {"\xff"}})); answer == nil || answer.Status != 403 {
			t.Errorf("%q: %+v", value, answer)
		}
	}
	if asked != 5 {
		t.Errorf("asked %d times", asked)
	}
}

func TestWhenNobodyIsAsked(t *testing.T) {
	t.Parallel()
	c := grpcConfig()
	c.EnabledMetadata = &discovery.MetadataMatch{Filter: "rbac", Path: []string{"id"}, Value: discovery.ValueMatch{Kind: discovery.ValueString, String: discovery.StringMatch{Kind: discovery.MatchPrefix, Value: "istio-ext-authz"}}}
	nobody := service.NewClient(func(string) *upstream.Cluster { return nil }, &observe.Hooks{})
	f := extauthz.New(c, nobody, &observe.Hooks{})
	if answer := run(t, f, exchange(headers{})); answer != nil {
		t.Errorf("not asked about: %+v", answer)
	}
	x := exchange(headers{})
	x.SetMetadata("rbac", map[string]any{"id": "istio-ext-authz-ns[shop]"})
	if answer := run(t, f, x); answer == nil || answer.Status != 403 {
		t.Errorf("asked about, without an answer: %+v", answer)
	}
	c.DenyAtDisable = true
	if answer := run(t, f, exchange(headers{})); answer == nil || answer.Status != 403 {
		t.Errorf("denied without a question: %+v", answer)
	}
	c = grpcConfig()
	c.PerMillion = new(uint32(0))
	if answer := run(t, extauthz.New(c, nobody, &observe.Hooks{}), exchange(headers{})); answer != nil {
		t.Errorf("none of the requests: %+v", answer)
	}
	// A gRPC call whose body cannot be read.
	c = grpcConfig()
	c.Body = &discovery.AuthzBody{MaxBytes: 10}
	x = exchange(headers{})
	x.Body = nil
	if answer := run(t, extauthz.New(c, nobody, &observe.Hooks{}), x); answer == nil || answer.Status != 403 {
		t.Errorf("a body that cannot be read: %+v", answer)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := extauthz.New(grpcConfig(), nobody, &observe.Hooks{}).Request(ctx, exchange(headers{})); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has gone: %v", err)
	}
}

// TestV08_WhatCannotBeAskedAboutDoesNotPassForAServiceThatMayFail: the caller has it so,
// and not the service, which is well and would say no.
func TestV08_WhatCannotBeAskedAboutDoesNotPassForAServiceThatMayFail(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(server.Close)
	address, _ := startGRPC(t, &authz{answer: func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		return denied(&authv3.DeniedHttpResponse{}), nil
	}})
	overHTTP, overGRPC := httpConfig(), grpcConfig()
	overHTTP.AllowedHeaders = []discovery.StringMatch{{Kind: discovery.MatchPrefix, Value: "x-"}}
	withBody := httpConfig()
	withBody.Body = &discovery.AuthzBody{MaxBytes: 100}
	for _, tt := range []struct {
		name   string
		config *discovery.ExtAuthz
		edit   func(x *filter.Exchange)
		want   int
	}{
		{"HTTP: a request as any", overHTTP, func(*filter.Exchange) {}, 403},
		{"HTTP: no host", overHTTP, func(x *filter.Exchange) { x.Host = "" }, 400},
		{"HTTP: a host that is none", overHTTP, func(x *filter.Exchange) { x.Host = "a b" }, 400},
		{"HTTP: a method that is none", overHTTP, func(x *filter.Exchange) { x.Method = "G@T" }, 400},
		{"HTTP: a header that cannot be sent", overHTTP, func(x *filter.Exchange) { x.Headers.Set("x-a", "\x00") }, 400},
		{"HTTP: a body that breaks off", withBody, func(x *filter.Exchange) {
			x.Body = func(int) ([]byte, bool, error) { return nil, false, io.ErrUnexpectedEOF }
		}, 400},
		{"HTTP: a body that nobody can read", withBody, func(x *filter.Exchange) { x.Body = nil }, 403},
		{"gRPC: a request as any", overGRPC, func(*filter.Exchange) {}, 403},
		{"gRPC: a method that is no text", overGRPC, func(x *filter.Exchange) { x.Method = "\xff" }, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := *tt.config
			c.FailureModeAllow = true
			caller := client(t, server.Listener.Addr().String(), discovery.HTTP1, &observe.Hooks{})
			if c.GRPC != nil {
				caller = client(t, address, discovery.HTTP2, &observe.Hooks{})
			}
			x := exchange(headers{})
			tt.edit(x)
			if answer := run(t, extauthz.New(&c, caller, &observe.Hooks{}), x); answer == nil || answer.Status != tt.want {
				t.Errorf("%+v, want %d", answer, tt.want)
			}
		})
	}
}
