package mesh_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/tokentest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/observe"
)

// decided collects what a server's mesh tells of its decisions.
type decided struct {
	mu     sync.Mutex
	events []string // guarded by mu
}

func (d *decided) hooks() *observe.Hooks {
	return &observe.Hooks{Authorized: func(e observe.AuthorizationEvent) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.events = append(d.events, fmt.Sprintf("%s allowed=%t shadow=%t logged=%t asked=%t", e.Policy, e.Allowed, e.Shadow, e.Logged, e.Asked))
	}}
}

func (d *decided) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	events := d.events
	d.events = nil
	return events
}

// What docs/policies.md shows is accepted without a warning and decides as it says, over
// HTTP and gRPC alike.
func TestThePageOfPoliciesIsTrue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen := &decided{}
		w := meshtest.New(t)
		w.Service("payment.shop", meshtest.Labels(map[string]string{"app": "payment"}), meshtest.Hooks(seen.hooks()),
			meshtest.HTTP(80, http.HandlerFunc(echoRequest)),
			meshtest.GRPC(9090, func(s grpc.ServiceRegistrar) { grpc_testing.RegisterTestServiceServer(s, echoService{}) }))
		w.Service("authz.shop", meshtest.HTTP(8000, http.NotFoundHandler()))
		blocks := make(map[string]string)
		for _, block := range pageBlocks(t, "../docs/policies.md") {
			if block.language == "yaml" {
				blocks[block.about[0]] = block.text
			}
		}
		token := tokentest.New("https://id.example").Token(tokentest.Object{"aud": "payment"})
		const none, denied, unmatched = "", "RBAC: access denied", " allowed=false shadow=false logged=false asked=false"
		for _, tt := range []struct {
			block, caller, path, token string
			http                       int
			grpc                       string // the code of a call with the same caller and token; "" makes none
			text                       string
			events                     []string // of the call over HTTP
		}{
			{"strict", "customer.shop", "/charge", none, 200, "OK", "", nil},
			{"allow", "customer.shop", "/charge", none, 200, "OK", "", nil},
			{"allow", "customer.shop", "/refund", none, 403, "", denied, []string{unmatched}},
			{"allow", "stranger.shop", "/charge", none, 403, "PermissionDenied", denied, []string{unmatched}},
			{"trial", "customer.shop", "/refund", none, 200, "OK", "", []string{"ns[shop]-policy[no-refunds]-rule[0] allowed=false shadow=true logged=false asked=false"}},
			{"tokens", "customer.shop", "/charge", none, 403, "PermissionDenied", denied, []string{"ns[shop]-policy[users-only]-rule[0] allowed=false shadow=false logged=false asked=false"}},
			{"tokens", "customer.shop", "/charge", "rubbish", 401, "Unauthenticated", "Jwt is not in the form", nil},
			{"tokens", "customer.shop", "/charge", token, 401, "Unauthenticated", "Jwks remote fetch is failed", nil},
			{"custom", "customer.shop", "/charge", none, 200, "OK", "", nil},
			{"custom", "customer.shop", "/refund", none, 404, "", "", []string{"istio-ext-authz-ns[shop]-policy[ask]-rule[0] allowed=true shadow=false logged=false asked=true"}},
		} {
			name := fmt.Sprintf("%s: %s to %s", tt.block, tt.caller, tt.path)
			if blocks[tt.block] == "" {
				t.Fatalf("the page has no block %q", tt.block)
			}
			w.Apply(blocks[tt.block])
			if warnings := w.Warnings(); len(warnings) > 0 {
				t.Errorf("%s: warnings %q", name, warnings)
			}
			caller := w.Workload(tt.caller)
			seen.take()
			code, text := pageHTTP(t, caller, tt.path, tt.token)
			if code != tt.http || !strings.Contains(text, tt.text) {
				t.Errorf("%s: HTTP: %d %q, want %d %q", name, code, text, tt.http, tt.text)
			}
			if events := seen.take(); !slices.Equal(events, tt.events) {
				t.Errorf("%s: events %q, want %q", name, events, tt.events)
			}
			if tt.grpc == "" {
				continue
			}
			grpcCode, text := pageRPC(t, caller, tt.token)
			if grpcCode != tt.grpc || !strings.Contains(text, tt.text) {
				t.Errorf("%s: gRPC: %s %q, want %s %q", name, grpcCode, text, tt.grpc, tt.text)
			}
		}
	})
}

func pageHTTP(t *testing.T, caller *mesh.Mesh, path, token string) (code int, text string) {
	t.Helper()
	req := request(t, http.MethodGet, "http://payment.shop"+path)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := caller.Transport().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func pageRPC(t *testing.T, caller *mesh.Mesh, token string) (code, text string) {
	t.Helper()
	conn, err := grpc.NewClient("mesh:///payment.shop:9090", caller.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := t.Context()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	err = conn.Invoke(ctx, explainPaths[0], &grpc_testing.Empty{}, &grpc_testing.Empty{})
	return status.Code(err).String(), status.Convert(err).Message()
}
