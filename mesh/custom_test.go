package mesh_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/observe"
)

// checker is an authorization service with Envoy's API. It allows what says that
// it is to be allowed, and tells the application who asked.
type checker struct {
	authv3.UnimplementedAuthorizationServer

	mu    sync.Mutex
	asked []*authv3.AttributeContext // guarded by mu
}

func (c *checker) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	c.mu.Lock()
	c.asked = append(c.asked, r.GetAttributes())
	c.mu.Unlock()
	header := func(name, value string) []*corev3.HeaderValueOption {
		return []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: name, Value: value}}}
	}
	if r.GetAttributes().GetRequest().GetHttp().GetHeaders()["x-role"] != "admin" {
		return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)}, HttpResponse: &authv3.CheckResponse_DeniedResponse{
			DeniedResponse: &authv3.DeniedHttpResponse{
				Status: &typev3.HttpStatus{Code: typev3.StatusCode_Unauthorized}, Body: "who are you", Headers: header("x-reason", "role"),
			},
		}}, nil
	}
	return &authv3.CheckResponse{Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
		Headers: header("x-user", r.GetAttributes().GetSource().GetPrincipal()), HeadersToRemove: []string{"x-secret"},
	}}}, nil
}

func (c *checker) last() *authv3.AttributeContext {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asked) == 0 {
		return nil
	}
	return c.asked[len(c.asked)-1]
}

// ServeHTTP is the same service for HTTP.
func (c *checker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // a caller that has gone is not answered
	c.mu.Lock()
	c.asked = append(c.asked, &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
		Method: r.Method, Path: r.URL.Path, Body: string(body),
	}}})
	c.mu.Unlock()
	if r.Header.Get("X-Role") != "admin" {
		w.Header().Set("X-Reason", "role")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, "who are you")
		return
	}
	w.Header().Set("X-User", "spiffe://cluster.local/ns/shop/sa/customer")
	w.Header().Set("X-Envoy-Auth-Headers-To-Remove", "x-secret")
}

// served is what came to the payment.
type served struct {
	mu     sync.Mutex
	header http.Header // guarded by mu; nil if nothing came
	body   string      // guarded by mu
}

func (s *served) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // compared by the test
	s.set(r.Header, string(body))
}

func (s *served) set(h http.Header, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.header, s.body = h.Clone(), body
}

func (s *served) take() (http.Header, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, body := s.header, s.body
	s.header, s.body = nil, ""
	return h, body
}

type servedRPC struct {
	grpc_testing.UnimplementedTestServiceServer
	served *served
}

func (s *servedRPC) UnaryCall(ctx context.Context, r *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	h := make(http.Header)
	for name, values := range md {
		h[http.CanonicalHeaderKey(name)] = values
	}
	s.served.set(h, string(r.GetPayload().GetBody()))
	return &grpc_testing.SimpleResponse{}, nil
}

// customWorld is a payment that is asked about, and who is asked.
type customWorld struct {
	*meshtest.World

	checker  *checker
	authz    *meshtest.Instance
	served   *served
	customer *mesh.Mesh
	conn     *grpc.ClientConn
}

func newCustomWorld(t *testing.T, options ...meshtest.Option) *customWorld {
	w := &customWorld{World: meshtest.New(t), checker: &checker{}, served: &served{}}
	w.Service("payment.shop", append(options, meshtest.Labels(map[string]string{"app": "payment"}), meshtest.HTTP(80, w.served), meshtest.HTTP(81, w.served),
		meshtest.GRPC(9090, func(s grpc.ServiceRegistrar) {
			grpc_testing.RegisterTestServiceServer(s, &servedRPC{served: w.served})
		}))...)
	w.authz = w.Service("authz.shop", meshtest.HTTP(8000, w.checker),
		meshtest.GRPC(9000, func(s grpc.ServiceRegistrar) { authv3.RegisterAuthorizationServer(s, w.checker) }))
	w.customer = w.Workload(customer)
	conn, err := grpc.NewClient("mesh:///payment.shop.svc.cluster.local:9090", w.customer.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	w.conn = conn
	return w
}

// customYAML asks a provider about the payment. provider are the fields of both
// kinds.
func customYAML(name, body, spec string) string {
	return authorizationYAML("shop", "", spec) + `---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: ` + name + `-grpc
      envoyExtAuthzGrpc: {service: authz.shop.svc.cluster.local, port: 9000, timeout: 1s` + body + `}
    - name: ` + name + `-http
      envoyExtAuthzHttp:
        {service: authz.shop.svc.cluster.local, port: 8000, timeout: 1s, pathPrefix: /check,
        includeRequestHeadersInCheck: [x-role], headersToUpstreamOnAllow: [x-user], headersToDownstreamOnDeny: [x-reason]` + body + `}
`
}

// customResult is what became of a call, of any protocol.
type customResult struct {
	status  int // of gRPC: 200 for OK
	code    codes.Code
	text    string
	reason  []string
	header  http.Header // nil if nothing came to the payment
	payload string
}

func (w *customWorld) call(t *testing.T, protocol, path, role, body string) customResult {
	t.Helper()
	w.served.take()
	var r customResult
	if protocol == "gRPC" {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ctx = metadata.AppendToOutgoingContext(ctx, "x-role", role, "x-secret", "s", "x-user", "mallory")
		var trailer metadata.MD
		_, err := grpc_testing.NewTestServiceClient(w.conn).UnaryCall(ctx, &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: []byte(body)}}, grpc.Trailer(&trailer))
		r.code, r.text, r.reason = status.Code(err), status.Convert(err).Message(), trailer.Get("x-reason")
	} else {
		host := "payment.shop.svc.cluster.local:" + map[string]string{"HTTP/1.1": "80", "HTTP/2": "81"}[protocol]
		resp := send(t, w.customer.Transport(), func(req *http.Request) {
			req.Method, req.URL.Host, req.Host, req.URL.Path = http.MethodPost, host, host, path
			req.Header = http.Header{"X-Role": {role}, "X-Secret": {"s"}, "X-User": {"mallory"}}
			req.Body, req.ContentLength = io.NopCloser(bytes.NewReader([]byte(body))), int64(len(body))
		})
		r.status, r.text, r.reason = resp.StatusCode, readAll(t, resp), resp.Header.Values("X-Reason")
	}
	r.header, r.payload = w.served.take()
	return r
}

// denied reports whether nothing came to the payment, and the caller was told.
func (r *customResult) denied(protocol string, status int, code codes.Code) bool {
	if protocol == "gRPC" {
		return r.header == nil && r.code == code
	}
	return r.header == nil && r.status == status
}

// TestS35_CustomPoliciesAreDecidedByAService: a real server with Envoy's API, and one of
// HTTP, decide about requests of each protocol.
func TestS35_CustomPoliciesAreDecidedByAService(t *testing.T) {
	t.Parallel()
	paths := `["/pay", "` + grpc_testing.TestService_UnaryCall_FullMethodName + `"]`
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2", "gRPC"} {
		for _, kind := range []string{"grpc", "http"} {
			t.Run(protocol+"/"+kind, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newCustomWorld(t)
					w.Apply(customYAML("authz", "", `{selector: {matchLabels: {app: payment}}, action: CUSTOM, provider: {name: authz-`+kind+`}, rules: [{to: [{operation: {paths: `+paths+`}}]}]}`))
					long := strings.Repeat("0123456789", 10_000)

					r := w.call(t, protocol, "/pay", "admin", long)
					if r.header == nil || r.payload != long {
						t.Fatalf("allowed: %+v", r)
					}
					if user := strings.Join(r.header.Values("X-User"), ","); user != "spiffe://cluster.local/ns/shop/sa/customer" || r.header.Get("X-Secret") != "" {
						t.Errorf("allowed: came with %v", r.header)
					}

					r = w.call(t, protocol, "/pay", "guest", "body")
					if !r.denied(protocol, http.StatusUnauthorized, codes.Unauthenticated) || r.text != "who are you" || len(r.reason) != 1 {
						t.Errorf("denied: %+v", r)
					}

					if protocol != "gRPC" { // of one method
						if r := w.call(t, protocol, "/free", "guest", "body"); r.header == nil {
							t.Errorf("not asked about: %+v", r)
						}
					}

					w.authz.Kill()
					if r := w.call(t, protocol, "/pay", "admin", "body"); !r.denied(protocol, http.StatusForbidden, codes.PermissionDenied) {
						t.Errorf("without an answer: %+v", r)
					}
					w.authz.Restart()
					if r := w.call(t, protocol, "/pay", "admin", "body"); r.header == nil {
						t.Errorf("with the service back: %+v", r)
					}
				})
			})
		}
	}
}

func TestS35_ACheckSeesTheBodyAndLeavesIt(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2"} {
		for _, kind := range []string{"grpc", "http"} {
			t.Run(protocol+"/"+kind, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newCustomWorld(t)
					body := ", includeRequestBodyInCheck: {maxRequestBytes: 100, allowPartialMessage: PARTIAL}"
					spec := `{selector: {matchLabels: {app: payment}}, action: CUSTOM, provider: {name: authz-` + kind + `}, rules: [{}]}`
					long := strings.Repeat("0123456789", 10_000)

					w.Apply(customYAML("authz", strings.Replace(body, "PARTIAL", "true", 1), spec))
					if r := w.call(t, protocol, "/pay", "admin", long); r.payload != long {
						t.Fatalf("a part was asked about: %d bytes arrived, %d", len(r.payload), r.status)
					}
					if got := w.checker.last().GetRequest().GetHttp().GetBody(); got != long[:100] {
						t.Errorf("the service got %q", got)
					}

					w.Apply(customYAML("authz", strings.Replace(body, "PARTIAL", "false", 1), spec))
					if r := w.call(t, protocol, "/pay", "admin", long[:100]); r.payload != long[:100] {
						t.Errorf("the whole was asked about: %+v", r)
					}
					if r := w.call(t, protocol, "/pay", "admin", long); !r.denied(protocol, http.StatusRequestEntityTooLarge, 0) {
						t.Errorf("a body that is too large: %+v", r)
					}
				})
			})
		}
	}
}

// TestS35_ACheckSeesTheMessageOfACall: of a unary call in its frame, as OPA's plugin
// reads it; of a stream nothing can be seen before it is allowed.
func TestS35_ACheckSeesTheMessageOfACall(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"grpc", "http"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newCustomWorld(t)
				body := ", includeRequestBodyInCheck: {maxRequestBytes: 100, allowPartialMessage: PARTIAL, packAsBytes: true}"
				if kind == "http" {
					body = strings.Replace(body, ", packAsBytes: true", "", 1)
				}
				spec := `{selector: {matchLabels: {app: payment}}, action: CUSTOM, provider: {name: authz-` + kind + `}, rules: [{}]}`
				apply := func(partial string) { w.Apply(customYAML("authz", strings.Replace(body, "PARTIAL", partial, 1), spec)) }
				seen := func() []byte {
					r := w.checker.last().GetRequest().GetHttp()
					return append(r.GetRawBody(), r.GetBody()...)
				}
				stream := func() error {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					ctx = metadata.AppendToOutgoingContext(ctx, "x-role", "admin")
					s, err := grpc_testing.NewTestServiceClient(w.conn).FullDuplexCall(ctx)
					if err != nil {
						t.Fatal(err)
					}
					_, err = s.Recv()
					return err
				}

				apply("false")
				if r := w.call(t, "gRPC", "", "admin", "the message"); r.code != codes.OK || r.payload != "the message" {
					t.Fatalf("%+v", r)
				}
				message := seen()
				sent := new(grpc_testing.SimpleRequest)
				if len(message) < 5 || message[0] != 0 || int(binary.BigEndian.Uint32(message[1:])) != len(message)-5 ||
					proto.Unmarshal(message[5:], sent) != nil || string(sent.GetPayload().GetBody()) != "the message" {
					t.Errorf("the service got %q", message)
				}
				long := strings.Repeat("0123456789", 100)
				if r := w.call(t, "gRPC", "", "admin", long); r.code == codes.OK || r.header != nil {
					t.Errorf("a message that is too large: %+v", r)
				}
				if err := stream(); status.Code(err) != codes.PermissionDenied {
					t.Errorf("a stream whose messages cannot be seen: %v", err)
				}

				apply("true")
				if r := w.call(t, "gRPC", "", "admin", long); r.code != codes.OK || r.payload != long {
					t.Errorf("a part was asked about: %+v", r)
				}
				if got := seen(); len(got) != 100 {
					t.Errorf("the service got %d bytes", len(got))
				}
				if err := stream(); status.Code(err) != codes.Unimplemented {
					t.Errorf("a stream that may be seen in part: %v, want that of the application", err)
				}
			})
		})
	}
}

// Without a provider of that name, and with one whose service has no endpoint,
// nothing is allowed.
func TestV58_CustomWithoutAProviderDenies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newCustomWorld(t)
		w.Apply(customYAML("other", "", `{selector: {matchLabels: {app: payment}}, action: CUSTOM, provider: {name: authz-grpc}, rules: [{to: [{operation: {paths: [/pay]}}]}]}`))
		for _, protocol := range []string{"HTTP/1.1", "HTTP/2", "gRPC"} {
			if r := w.call(t, protocol, "/free", "admin", ""); !r.denied(protocol, http.StatusForbidden, codes.PermissionDenied) {
				t.Errorf("%s: %+v", protocol, r)
			}
		}
		if w.checker.last() != nil {
			t.Error("somebody was asked")
		}
	})
}

// TestS35_CustomIsNoTrial: who looks at metrics and hooks can tell a question to a
// service from a DENY that is tried.
func TestS35_CustomIsNoTrial(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var events []observe.AuthorizationEvent
		w := newCustomWorld(t, meshtest.Hooks(&observe.Hooks{Authorized: func(e observe.AuthorizationEvent) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		}}))
		take := func() (found []observe.AuthorizationEvent) {
			mu.Lock()
			defer mu.Unlock()
			found, events = events, nil
			return found
		}
		all := `["/pay", "` + grpc_testing.TestService_UnaryCall_FullMethodName + `"]`
		w.Apply(customYAML("authz", "", `{selector: {matchLabels: {app: payment}}, action: CUSTOM, provider: {name: authz-grpc}, rules: [{to: [{operation: {paths: `+all+`}}]}]}`) + `---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried, namespace: shop, annotations: {istio.io/dry-run: "true"}}
spec: {selector: {matchLabels: {app: payment}}, action: DENY, rules: [{to: [{operation: {paths: ` + all + `}}]}]}
`)
		for _, protocol := range []string{"HTTP/1.1", "HTTP/2", "gRPC"} {
			take()
			if r := w.call(t, protocol, "/pay", "admin", ""); r.header == nil {
				t.Fatalf("%s: %+v", protocol, r)
			}
			got := take()
			if len(got) != 2 || !got[0].Asked || got[0].Shadow || !got[0].Allowed || !strings.Contains(got[0].Policy, "istio-ext-authz") ||
				got[1].Asked || !got[1].Shadow || got[1].Allowed || !strings.Contains(got[1].Policy, "tried") {
				t.Errorf("%s: %+v", protocol, got)
			}
			w.call(t, protocol, "/pay", "guest", "")
			if got := take(); len(got) != 1 || !got[0].Asked {
				t.Errorf("%s, denied by the service: %+v", protocol, got)
			}
		}
		if w.call(t, "HTTP/1.1", "/free", "guest", ""); len(take()) != 1 { // of the one on trial
			t.Error("a request that nobody is asked about is reported")
		}
	})
}
