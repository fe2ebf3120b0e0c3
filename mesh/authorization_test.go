package mesh_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// authorized is one request of the table, which is made over each protocol.
type authorized struct {
	from   string // "" is from outside of the mesh, in plaintext
	path   string // see grpcPaths
	header string // of x-role
	want   bool
}

// grpcPaths are the methods that stand for the paths of the table.
var grpcPaths = map[string]string{
	"/admin/x": grpc_testing.TestService_UnaryCall_FullMethodName,
	"/public":  grpc_testing.TestService_EmptyCall_FullMethodName,
}

const (
	customer = "customer.shop"
	stranger = "customer.bank"
	auditor  = "auditor.shop"
)

// authorizationCases are those of Istio's suite that need no token.
var authorizationCases = []struct {
	name  string
	specs []string // of AuthorizationPolicies of the namespace shop, or more
	calls []authorized
}{
	{"no policy allows everything", nil, []authorized{
		{customer, "/public", "", true}, {stranger, "/admin/x", "", true}, {"", "/public", "", true},
	}},
	{"V11: an ALLOW without rules allows nothing", []string{`{}`}, []authorized{
		{customer, "/public", "", false}, {"", "/public", "", false},
	}},
	{"an empty rule allows everything", []string{`{rules: [{}]}`}, []authorized{
		{customer, "/public", "", true}, {"", "/public", "", true},
	}},
	{"an empty rule denies everything", []string{`{action: DENY, rules: [{}]}`}, []authorized{
		{customer, "/public", "", false}, {"", "/public", "", false},
	}},
	{"principals", []string{`{rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/customer]}}]}]}`}, []authorized{
		{customer, "/public", "", true}, {stranger, "/public", "", false}, {auditor, "/public", "", false}, {"", "/public", "", false},
	}},
	{"any principal denies plaintext", []string{`{rules: [{from: [{source: {principals: ["*"]}}]}]}`}, []authorized{
		{customer, "/public", "", true}, {stranger, "/public", "", true}, {"", "/public", "", false},
	}},
	{"principals by their end and beginning", []string{`{rules: [{from: [{source: {principals: ["*/sa/auditor", "cluster.local/ns/bank/*"]}}]}]}`}, []authorized{
		{customer, "/public", "", false}, {stranger, "/public", "", true}, {auditor, "/public", "", true},
	}},
	{"principals of another trust domain", []string{`{rules: [{from: [{source: {principals: [other/ns/shop/sa/customer]}}]}]}`}, []authorized{
		{customer, "/public", "", false},
	}},
	{"trust domains", []string{`{rules: [{from: [{source: {trustDomains: [cluster.local]}}]}]}`}, []authorized{
		{customer, "/public", "", true}, {"", "/public", "", false},
	}},
	{"service accounts", []string{`{rules: [{from: [{source: {serviceAccounts: [customer, bank/auditor]}}]}]}`}, []authorized{
		{customer, "/public", "", true}, {stranger, "/public", "", false}, {auditor, "/public", "", false},
	}},
	{"denied principals", []string{`{action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/customer]}}]}]}`}, []authorized{
		{customer, "/public", "", false}, {stranger, "/public", "", true}, {"", "/public", "", true},
	}},
	{"all but principals are denied", []string{`{action: DENY, rules: [{from: [{source: {notPrincipals: [cluster.local/ns/shop/sa/customer]}}]}]}`}, []authorized{
		{customer, "/public", "", true}, {stranger, "/public", "", false}, {"", "/public", "", false},
	}},
	{"namespaces", []string{`{rules: [{from: [{source: {namespaces: [shop]}}]}]}`}, []authorized{
		{customer, "/public", "", true}, {stranger, "/public", "", false}, {"", "/public", "", false},
	}},
	{"denied namespaces", []string{`{action: DENY, rules: [{from: [{source: {namespaces: ["ba*"]}}]}]}`}, []authorized{
		{customer, "/public", "", true}, {stranger, "/public", "", false},
	}},
	{"not namespaces", []string{`{rules: [{from: [{source: {notNamespaces: [bank]}}]}]}`}, []authorized{
		{customer, "/public", "", true}, {stranger, "/public", "", false},
	}},
	{"paths", []string{`{rules: [{to: [{operation: {paths: ["/admin/*", ` + grpcPaths["/admin/x"] + `]}}]}]}`}, []authorized{
		{customer, "/admin/x", "", true}, {customer, "/public", "", false},
	}},
	{"not paths", []string{`{rules: [{to: [{operation: {notPaths: ["/admin/*", "*/UnaryCall"]}}]}]}`}, []authorized{
		{customer, "/admin/x", "", false}, {customer, "/public", "", true},
	}},
	{"templates of paths", []string{`{action: DENY, rules: [{to: [{operation: {paths: ["/admin/{*}", "/{*}/UnaryCall"]}}]}]}`}, []authorized{
		{customer, "/admin/x", "", false}, {customer, "/public", "", true},
	}},
	{"a DENY goes before an ALLOW", []string{
		`{rules: [{to: [{operation: {paths: ["/*"]}}]}]}`, `{action: DENY, rules: [{to: [{operation: {paths: ["/admin*", "*/UnaryCall"]}}]}]}`,
	}, []authorized{
		{customer, "/admin/x", "", false}, {customer, "/public", "", true},
	}},
	{"one of several ALLOWs is enough", []string{
		`{rules: [{from: [{source: {namespaces: [bank]}}]}]}`, `{rules: [{to: [{operation: {paths: [/public, "*/EmptyCall"]}}]}]}`,
	}, []authorized{
		{customer, "/admin/x", "", false}, {customer, "/public", "", true}, {stranger, "/admin/x", "", true},
	}},
	{"source and operation must both match", []string{`{rules: [{from: [{source: {namespaces: [shop]}}], to: [{operation: {paths: [/public, "*/EmptyCall"]}}]}]}`}, []authorized{
		{customer, "/public", "", true}, {customer, "/admin/x", "", false}, {stranger, "/public", "", false},
	}},
	{"methods", []string{`{rules: [{to: [{operation: {methods: [POST]}}]}]}`}, []authorized{{customer, "/public", "", true}}},
	{"not methods", []string{`{rules: [{to: [{operation: {notMethods: [POST]}}]}]}`}, []authorized{{customer, "/public", "", false}}},
	{"hosts", []string{`{rules: [{to: [{operation: {hosts: ["PAYMENT.shop", "payment.shop.*"]}}]}]}`}, []authorized{{customer, "/public", "", true}}},
	{"not hosts", []string{`{rules: [{to: [{operation: {notHosts: ["payment.shop*"]}}]}]}`}, []authorized{{customer, "/public", "", false}}},
	{"ports", []string{`{rules: [{to: [{operation: {ports: ["80", "81", "9090"]}}]}]}`}, []authorized{{customer, "/public", "", true}}},
	{"not ports", []string{`{rules: [{to: [{operation: {notPorts: ["80", "81", "9090"]}}]}]}`}, []authorized{{customer, "/public", "", false}}},
	{"a condition on a header", []string{`{rules: [{when: [{key: "request.headers[X-Role]", values: [admin, "dev*"]}]}]}`}, []authorized{
		{customer, "/public", "admin", true}, {customer, "/public", "developer", true}, {customer, "/public", "user", false}, {customer, "/public", "", false},
		{customer, "/public", "user,admin", false},
	}},
	{"a denying condition on a header", []string{`{action: DENY, rules: [{when: [{key: "request.headers[x-role]", values: [admin]}]}]}`}, []authorized{
		{customer, "/public", "admin", false}, {customer, "/public", "user", true}, {customer, "/public", "user,admin", false}, {customer, "/public", "", true},
	}},
	{"a denying condition on what a header is not", []string{`{action: DENY, rules: [{when: [{key: "request.headers[x-role]", notValues: [admin]}]}]}`}, []authorized{
		{customer, "/public", "admin", true}, {customer, "/public", "user", false}, {customer, "/public", "", false},
	}},
	{"conditions on the source", []string{`{rules: [{when: [{key: source.namespace, values: [shop]}, {key: source.principal, notValues: ["*/sa/auditor"]}]}]}`}, []authorized{
		{customer, "/public", "", true}, {auditor, "/public", "", false}, {stranger, "/public", "", false}, {"", "/public", "", false},
	}},
	{"a condition on the port", []string{`{action: DENY, rules: [{when: [{key: destination.port, values: ["80", "81", "9090"]}]}]}`}, []authorized{{customer, "/public", "", false}}},
	{"a condition on a token, without one", []string{`{rules: [{when: [{key: "request.auth.claims[role]", values: [admin]}]}]}`}, []authorized{{customer, "/public", "", false}}},
	{"request principals, without a token", []string{`{rules: [{from: [{source: {requestPrincipals: ["*"]}}]}]}`}, []authorized{{customer, "/public", "", false}}},
	{"denied without a request principal", []string{`{action: DENY, rules: [{from: [{source: {notRequestPrincipals: ["*"]}}]}]}`}, []authorized{{customer, "/public", "", false}}},
	{"a selector that fits", []string{`{selector: {matchLabels: {app: payment}}, action: DENY, rules: [{}]}`}, []authorized{{customer, "/public", "", false}}},
	{"a selector that does not fit", []string{`{selector: {matchLabels: {app: other}}, action: DENY, rules: [{}]}`}, []authorized{{customer, "/public", "", true}}},
	{"an AUDIT decides nothing", []string{`{action: AUDIT, rules: [{}]}`}, []authorized{{customer, "/public", "", true}}},
}

// wordedCases are policies whose words could be read for more, or less, than they
// say.
var wordedCases = []struct {
	name  string
	spec  string
	calls []authorized
}{
	{"V7: a header in upper case", `{action: DENY, rules: [{when: [{key: "request.headers[X-ROLE]", values: [admin]}]}]}`, []authorized{
		{customer, "/public", "admin", false}, {customer, "/public", "user", true},
	}},
	{"V9: a dot in a principal is a dot", `{rules: [{from: [{source: {principals: ["cluster.local/ns/shop/sa/custome."]}}]}]}`, []authorized{{customer, "/public", "", false}}},
	{"V9: a dot in a trust domain is a dot", `{rules: [{from: [{source: {principals: ["cluster.local/*"]}}]}]}`, []authorized{{customer, "/public", "", true}}},
	{"V9: a namespace is a whole one", `{rules: [{from: [{source: {namespaces: [sho]}}]}]}`, []authorized{{customer, "/public", "", false}}},
	{"V9: a dot in a namespace is a dot", `{rules: [{from: [{source: {namespaces: ["sh.p"]}}]}]}`, []authorized{{customer, "/public", "", false}}},
	{"V9: nor does the end of a namespace begin one", `{rules: [{from: [{source: {namespaces: ["*op"]}}]}]}`, []authorized{
		{customer, "/public", "", true}, {stranger, "/public", "", false},
	}},
	{"V9: a service account is a whole one", `{rules: [{from: [{source: {serviceAccounts: [shop/custome]}}]}]}`, []authorized{{customer, "/public", "", false}}},
	{"V9: a dot in a path is a dot", `{rules: [{to: [{operation: {paths: ["/publi.", "/grpc.testing.TestService/EmptyCal."]}}]}]}`, []authorized{{customer, "/public", "", false}}},
	{"V9: a dot in a host is a dot", `{rules: [{to: [{operation: {hosts: ["paymentxshop", "payment.shopxsvc.cluster.local:80", "payment.shop.svc.cluster.loca."]}}]}]}`, []authorized{{customer, "/public", "", false}}},
	{"V10: a star of a template is one segment", `{rules: [{to: [{operation: {paths: ["/{*}"]}}]}]}`, []authorized{{customer, "/admin/x", "", false}}},
	{"V10: nor is it none", `{rules: [{to: [{operation: {paths: ["/admin/x/{*}", "/grpc.testing.TestService/UnaryCall/{*}"]}}]}]}`, []authorized{{customer, "/admin/x", "", false}}},
	{"V10: two stars are several", `{action: DENY, rules: [{to: [{operation: {paths: ["/{**}"]}}]}]}`, []authorized{{customer, "/admin/x", "", false}, {customer, "/public", "", false}}},
}

// TestV07_V09_V10_PoliciesMeanWhatTheySay over each protocol.
func TestV07_V09_V10_PoliciesMeanWhatTheySay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGuardedWorld(t)
		for _, tt := range wordedCases {
			w.Apply(authorizationYAML("shop", "", tt.spec))
			for _, protocol := range []string{"HTTP/1.1", "HTTP/2", "gRPC"} {
				for _, call := range tt.calls {
					w.check(t, protocol, call)
				}
			}
			if t.Failed() {
				t.Fatalf("in %q", tt.name)
			}
		}
	})
}

func authorizationYAML(namespace, annotations string, specs ...string) string {
	var yaml strings.Builder
	yaml.WriteString(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec: {host: payment, trafficPolicy: {portLevelSettings: [{port: {number: 81}, connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}]}}
`)
	for i, spec := range specs {
		yaml.WriteString("---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p" + string(rune('0'+i)) + ", namespace: " + namespace + annotations + "}\nspec: " + spec + "\n")
	}
	return yaml.String()
}

// guardedWorld is a payment that counts what reaches it.
type guardedWorld struct {
	*meshtest.World

	served atomic.Int64
	meshes map[string]*mesh.Mesh
	grpc   map[string]*grpc.ClientConn
}

func newGuardedWorld(t *testing.T) *guardedWorld {
	w := &guardedWorld{World: meshtest.New(t), meshes: make(map[string]*mesh.Mesh), grpc: make(map[string]*grpc.ClientConn)}
	serve := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { w.served.Add(1) })
	w.Service("payment.shop", meshtest.Labels(map[string]string{"app": "payment"}), meshtest.HTTP(80, serve), meshtest.HTTP(81, serve),
		meshtest.GRPC(9090, func(s grpc.ServiceRegistrar) {
			grpc_testing.RegisterTestServiceServer(s, &countingService{served: &w.served})
		}))
	for _, from := range []string{customer, stranger, auditor} {
		m := w.Workload(from)
		conn, err := grpc.NewClient("mesh:///payment.shop.svc.cluster.local:9090", m.DialOptions()...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		w.meshes[from], w.grpc[from] = m, conn
	}
	return w
}

type countingService struct {
	grpc_testing.UnimplementedTestServiceServer
	served *atomic.Int64
}

func (s *countingService) EmptyCall(context.Context, *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	s.served.Add(1)
	return &grpc_testing.Empty{}, nil
}

func (s *countingService) UnaryCall(context.Context, *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	s.served.Add(1)
	return &grpc_testing.SimpleResponse{}, nil
}

// stranger is a channel of nobody in the mesh, in plaintext.
func (w *guardedWorld) stranger(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///payment.shop:9090", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return w.DialContext(ctx, "tcp", address) }))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// check makes a call over a protocol, and compares what became of it.
func (w *guardedWorld) check(t *testing.T, protocol string, call authorized) {
	t.Helper()
	before := w.served.Load()
	var allowed bool
	switch protocol {
	case "gRPC":
		conn := w.grpc[call.from]
		if call.from == "" {
			conn = w.stranger(t)
			defer conn.Close()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if call.header != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "x-role", call.header)
		}
		client := grpc_testing.NewTestServiceClient(conn)
		var err error
		if call.path == "/public" {
			_, err = client.EmptyCall(ctx, &grpc_testing.Empty{})
		} else {
			_, err = client.UnaryCall(ctx, &grpc_testing.SimpleRequest{})
		}
		if allowed = err == nil; !allowed && (status.Code(err) != codes.PermissionDenied || status.Convert(err).Message() != "RBAC: access denied") {
			t.Errorf("%s: %+v: got %v", protocol, call, err)
		}
	default:
		port := map[string]string{"HTTP/1.1": "80", "HTTP/2": "81"}[protocol]
		plain := &http.Transport{DialContext: w.DialContext, DisableKeepAlives: true}
		defer plain.CloseIdleConnections()
		var transport http.RoundTripper = plain
		host := "payment.shop:" + port
		if call.from != "" {
			transport, host = w.meshes[call.from].Transport(), "payment.shop.svc.cluster.local:"+port
		}
		resp := send(t, transport, func(r *http.Request) {
			r.Method, r.URL.Host, r.Host, r.URL.Path = http.MethodPost, host, host, call.path
			if call.header != "" {
				r.Header.Set("X-Role", call.header)
			}
		})
		if body := readAll(t, resp); resp.StatusCode == http.StatusForbidden && body != "RBAC: access denied" || resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %+v: status %d, %q", protocol, call, resp.StatusCode, body)
		}
		allowed = resp.StatusCode == http.StatusOK
	}
	if served := w.served.Load() - before; allowed != call.want || (served == 1) != call.want {
		t.Errorf("%s: %+v: allowed %t, served %d", protocol, call, allowed, served)
	}
}

// TestS35_BA01_BA02_Authorization: policy in YAML x request -> decision, over
// each protocol. One world is configured anew for each policy, so that every
// decision but the first is about open connections (BA13).
func TestS35_BA01_BA02_Authorization(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2", "gRPC"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newGuardedWorld(t)
				for _, tt := range authorizationCases {
					w.Apply(authorizationYAML("shop", "", tt.specs...))
					for _, call := range tt.calls {
						w.check(t, protocol, call)
					}
					if t.Failed() {
						t.Fatalf("in %q", tt.name)
					}
				}
			})
		})
	}
}

func TestAuthorizationOfTheRootNamespaceIsForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGuardedWorld(t)
		for _, tt := range []struct {
			namespace, spec string
			want            bool
		}{
			{"istio-system", `{action: DENY, rules: [{}]}`, false},
			{"istio-system", `{selector: {matchLabels: {app: payment}}, action: DENY, rules: [{}]}`, false},
			{"istio-system", `{selector: {matchLabels: {app: other}}, action: DENY, rules: [{}]}`, true},
			{"bank", `{action: DENY, rules: [{}]}`, true},
		} {
			w.Apply(authorizationYAML(tt.namespace, "", tt.spec))
			w.check(t, "HTTP/1.1", authorized{customer, "/public", "", tt.want})
		}
	})
}

func TestAPolicyOnTrialDecidesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGuardedWorld(t)
		for _, spec := range []string{`{}`, `{action: DENY, rules: [{}]}`} {
			w.Apply(authorizationYAML("shop", `, annotations: {istio.io/dry-run: "true"}`, spec))
			w.check(t, "HTTP/2", authorized{customer, "/public", "", true})
			w.check(t, "gRPC", authorized{customer, "/public", "", true})
		}
	})
}
