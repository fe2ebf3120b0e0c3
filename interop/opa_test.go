package interop_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/open-policy-agent/opa/v1/rego"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// policy is what a team writes for OPA's Envoy plugin, with its input.
const policy = `package envoy.authz

default allow := {"allowed": false, "http_status": 403, "body": "not by this policy"}

# Who calls is what mutual TLS has verified, and no header.
customer if input.attributes.source.principal == "spiffe://cluster.local/ns/shop/sa/customer"

allow := {"allowed": true, "headers": {"x-decided-by": "opa"}} if {
	customer
	input.attributes.request.http.method == "GET"
	input.parsed_path[0] == "public"
	not input.parsed_query.debug
}

allow := {"allowed": true} if {
	customer
	input.attributes.request.http.path == "/grpc.testing.TestService/EmptyCall"
}
`

// opa answers Envoy's checks by evaluating the policy, with the input that OPA's own
// plugin makes of a check.
type opa struct {
	authv3.UnimplementedAuthorizationServer

	query rego.PreparedEvalQuery

	mu    sync.Mutex
	asked int // guarded by mu
}

func newOPA(t *testing.T) *opa {
	t.Helper()
	query, err := rego.New(rego.Query("data.envoy.authz.allow"), rego.Module("policy.rego", policy)).PrepareForEval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &opa{query: query}
}

// Check decides about a request.
func (o *opa) Check(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	o.mu.Lock()
	o.asked++
	o.mu.Unlock()
	text, err := protojson.Marshal(r)
	if err != nil {
		return nil, err
	}
	var input map[string]any
	if err := json.Unmarshal(text, &input); err != nil {
		return nil, err
	}
	target, err := url.ParseRequestURI(r.GetAttributes().GetRequest().GetHttp().GetPath())
	if err != nil {
		return nil, err
	}
	input["parsed_path"], input["parsed_query"] = strings.Split(strings.Trim(target.Path, "/"), "/"), target.Query()
	results, err := o.query.Eval(ctx, rego.EvalInput(input))
	if err != nil {
		return nil, err
	}
	decision, _ := results[0].Expressions[0].Value.(map[string]any)
	if allowed, _ := decision["allowed"].(bool); !allowed {
		body, _ := decision["body"].(string)
		return &authv3.CheckResponse{
			Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)},
			HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
				Status: &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden}, Body: body,
			}},
		}, nil
	}
	ok := new(authv3.OkHttpResponse)
	headers, _ := decision["headers"].(map[string]any)
	for name, value := range headers {
		text, _ := value.(string)
		ok.Headers = append(ok.Headers, &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: text}})
	}
	return &authv3.CheckResponse{Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok}}, nil
}

const configuration = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask-opa, namespace: shop}
spec: {selector: {matchLabels: {app: payment}}, action: CUSTOM, provider: {name: opa}, rules: [{}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: opa
      envoyExtAuthzGrpc: {service: opa.shop.svc.cluster.local, port: 9191, timeout: 5s}
`

type payment struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (payment) EmptyCall(context.Context, *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return new(grpc_testing.Empty), nil
}

func (payment) UnaryCall(context.Context, *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return new(grpc_testing.SimpleResponse), nil
}

// TestV58_OPADecides: a policy in Rego, evaluated by OPA itself, about requests of HTTP
// and gRPC; while it is away, nothing is allowed.
func TestV58_OPADecides(t *testing.T) {
	w := meshtest.New(t)
	service := newOPA(t)
	w.Service("payment.shop", meshtest.Labels(map[string]string{"app": "payment"}),
		meshtest.HTTP(80, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(rw, "decided by "+r.Header.Get("X-Decided-By"))
		})),
		meshtest.GRPC(9090, func(s grpc.ServiceRegistrar) { grpc_testing.RegisterTestServiceServer(s, payment{}) }))
	authz := w.Service("opa.shop", meshtest.GRPC(9191, func(s grpc.ServiceRegistrar) { authv3.RegisterAuthorizationServer(s, service) }))
	w.Apply(configuration)
	meshes := map[string]*mesh.Mesh{"customer": w.Workload("customer.shop"), "stranger": w.Workload("stranger.shop")}

	for _, tt := range []struct {
		from, method, target string
		status               int
		body                 string
	}{
		{"customer", http.MethodGet, "/public/prices", http.StatusOK, "decided by opa"},
		{"customer", http.MethodPost, "/public/prices", http.StatusForbidden, "not by this policy"},
		{"customer", http.MethodGet, "/public/prices?debug=1", http.StatusForbidden, "not by this policy"},
		{"customer", http.MethodGet, "/private", http.StatusForbidden, "not by this policy"},
		{"stranger", http.MethodGet, "/public/prices", http.StatusForbidden, "not by this policy"},
	} {
		if code, body := get(t, meshes[tt.from], tt.method, tt.target); code != tt.status || body != tt.body {
			t.Errorf("%s %s %s: %d %q, want %d %q", tt.from, tt.method, tt.target, code, body, tt.status, tt.body)
		}
	}
	for from, want := range map[string]codes.Code{"customer": codes.OK, "stranger": codes.PermissionDenied} {
		empty, unary := call(t, meshes[from])
		if empty != want || unary != codes.PermissionDenied {
			t.Errorf("%s over gRPC: %v and %v", from, empty, unary)
		}
	}
	service.mu.Lock()
	if service.asked != 9 {
		t.Errorf("OPA was asked %d times", service.asked)
	}
	service.mu.Unlock()

	authz.Kill()
	if code, _ := get(t, meshes["customer"], http.MethodGet, "/public/prices"); code != http.StatusForbidden {
		t.Errorf("without OPA: %d", code)
	}
	if empty, _ := call(t, meshes["customer"]); empty != codes.PermissionDenied {
		t.Errorf("without OPA, over gRPC: %v", empty)
	}
}

func get(t *testing.T, m *mesh.Mesh, method, target string) (code int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://payment.shop.svc.cluster.local"+target, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := m.Transport().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func call(t *testing.T, m *mesh.Mesh) (empty, unary codes.Code) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := grpc.NewClient("mesh:///payment.shop.svc.cluster.local:9090", m.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := grpc_testing.NewTestServiceClient(conn)
	_, emptyErr := client.EmptyCall(ctx, new(grpc_testing.Empty))
	_, unaryErr := client.UnaryCall(ctx, new(grpc_testing.SimpleRequest))
	return status.Code(emptyErr), status.Code(unaryErr)
}
