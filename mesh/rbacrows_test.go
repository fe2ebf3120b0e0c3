package mesh_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/observe"
)

// rawGuarded is a server of HTTP and one of gRPC, each with the same filters as they
// come over xDS, and strangers that call them.
type rawGuarded struct {
	*rawServers

	served              atomic.Int64
	trialDenied, denied atomic.Int64 // events
}

func newRawGuarded(t *testing.T, filters string) *rawGuarded {
	t.Helper()
	g := new(rawGuarded)
	hooks := &observe.Hooks{Authorized: func(e observe.AuthorizationEvent) {
		switch {
		case e.Allowed:
		case e.Shadow:
			g.trialDenied.Add(1)
		default:
			g.denied.Add(1)
		}
	}}
	web := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { g.served.Add(1) })
	g.rawServers = serveRawServers(t, newRawXDS(t), func(address string) *listenerv3.Listener {
		return rawListener(t, address, "", "", filters)
	}, web, &countingService{served: &g.served}, mesh.WithHooks(hooks))
	return g
}

// set gives both servers other filters.
func (g *rawGuarded) set(t *testing.T, filters string) {
	t.Helper()
	g.xds.set(rawListener(t, g.web, "", "", filters), rawListener(t, g.calls, "", "", filters))
}

// call calls over a protocol, and returns whether it was allowed and all that the
// caller was told. Anything but a yes and a denial fails the test.
func (g *rawGuarded) call(t *testing.T, protocol, role string) (allowed bool, all string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if protocol == "gRPC" {
		conn, err := grpc.NewClient("passthrough:///"+g.calls, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if role != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "x-role", role)
		}
		var header, trailer metadata.MD
		_, err = grpc_testing.NewTestServiceClient(conn).EmptyCall(ctx, new(grpc_testing.Empty), grpc.Header(&header), grpc.Trailer(&trailer))
		if code := status.Code(err); code != codes.OK && code != codes.PermissionDenied {
			t.Errorf("gRPC: %v", err)
		}
		for _, md := range []metadata.MD{header, trailer} {
			for name, values := range md {
				all += name + ": " + strings.Join(values, ", ") + "\n"
			}
		}
		return err == nil, all + status.Convert(err).Message()
	}
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(protocol == "HTTP/1.1")
	tr.Protocols.SetUnencryptedHTTP2(protocol == "HTTP/2")
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.web+"/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if role != "" {
		req.Header.Set("X-Role", role)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusForbidden {
		t.Errorf("%s: status %d", protocol, resp.StatusCode)
	}
	dump, err := httputil.DumpResponse(resp, true)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode == http.StatusOK, string(dump)
}

// rbacOf is an RBAC filter with these fields.
func rbacOf(fields string) string {
	return `{"name": "rbac", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", ` + fields + `}}, `
}

// secretPolicy has a name that nobody outside may read.
func secretPolicy(action, permission, principal string) string {
	return `{"action": "` + action + `", "policies": {"secret-policy": {"permissions": [` + permission + `], "principals": [` + principal + `]}}}`
}

func roleIs(name, match string) string {
	return `{"header": {"name": "` + name + `", ` + match + `}}`
}

// TestBA03_BA05_BA06_BA08_BA09_BA11_RulesAsTheyCome over xDS, about requests of HTTP/1.1
// and HTTP/2 and about calls of gRPC, of strangers in plaintext at 127.0.0.1.
func TestBA03_BA05_BA06_BA08_BA09_BA11_RulesAsTheyCome(t *testing.T) {
	t.Parallel()
	const (
		anybody = `{"any": true}`
		isAdmin = `"stringMatch": {"exact": "admin"}`
		result  = `{"metadata": {"filter": "envoy.filters.http.rbac", "path": [{"key": "shadow_engine_result"}], "value": {"stringMatch": {"exact": "denied"}}}}`
	)
	allow := func(permission, principal string) string {
		return rbacOf(`"rules": ` + secretPolicy("ALLOW", permission, principal))
	}
	deny := func(permission, principal string) string {
		return rbacOf(`"rules": ` + secretPolicy("DENY", permission, principal))
	}
	for _, tt := range []struct {
		name                string
		filters             string
		without, user, root bool // what is allowed without a role, and with the roles user and admin
		trial               int64
	}{
		{"BA3: no rules enforce nothing", rbacOf(`"rulesStatPrefix": "a"`), true, true, true, 0},
		{"BA3: an ALLOW without policies allows nothing", rbacOf(`"rules": {}`), false, false, false, 0},
		{"BA3: a DENY without policies denies nothing", rbacOf(`"rules": {"action": "DENY"}`), true, true, true, 0},
		{"BA3: rules on trial are counted and deny nothing", rbacOf(`"shadowRules": ` + secretPolicy("DENY", anybody, anybody)), true, true, true, 3},
		{"BA3: rules on trial allow nothing", rbacOf(`"rules": {}, "shadowRules": ` + secretPolicy("ALLOW", anybody, anybody)), false, false, false, 0},
		{"BA9: what a trial found is metadata", rbacOf(`"shadowRules": `+secretPolicy("DENY", roleIs("x-role", isAdmin), anybody)) +
			strings.Replace(deny(result, anybody), "rbac", "second", 1), true, true, false, 1},
		{"BA9: metadata that is not there is not allowed", allow(result, anybody), false, false, false, 0},
		{"BA9: nor does it keep a denial off", deny(`{"notRule": `+result+`}`, anybody), false, false, false, 0},
		{"BA9: plaintext asks for no server", deny(`{"requestedServerName": {"exact": ""}}`, anybody), false, false, false, 0},
		{"BA5: the name of a header in upper case", deny(roleIs("X-ROLE", isAdmin), anybody), true, true, false, 0},
		{"BA5: of a principal too", deny(anybody, roleIs("X-Role", isAdmin)), true, true, false, 0},
		{"BA5: Host is the authority", deny(roleIs("Host", `"stringMatch": {"prefix": "127.0.0.1:"}`), anybody), false, false, false, 0},
		{"BA6: a missing header is not equal", allow(roleIs("x-role", isAdmin), anybody), false, false, true, 0},
		{"BA6: nor unequal", allow(roleIs("x-role", isAdmin+`, "invertMatch": true`), anybody), false, true, false, 0},
		{"BA6: nor is it present", allow(roleIs("x-role", `"presentMatch": true`), anybody), false, true, true, 0},
		{"BA6: but it may have to be missing", allow(roleIs("x-role", `"presentMatch": false`), anybody), true, false, false, 0},
		{"BA8: a range without a length is all addresses", deny(anybody, `{"directRemoteIp": {"addressPrefix": "10.0.0.0"}}`), false, false, false, 0},
		{"BA8: of its own family", allow(anybody, `{"directRemoteIp": {"addressPrefix": "::"}}`), false, false, false, 0},
		{"BA8: IPv4 in IPv6 is IPv4", deny(anybody, `{"sourceIp": {"addressPrefix": "::ffff:127.0.0.0", "prefixLen": 104}}`), false, false, false, 0},
		{"BA8: the client's address", allow(anybody, `{"remoteIp": {"addressPrefix": "127.0.0.1", "prefixLen": 32}}`), true, true, true, 0},
		{"BA8: another address", allow(anybody, `{"remoteIp": {"addressPrefix": "127.0.0.2", "prefixLen": 32}}`), false, false, false, 0},
		{"BA7: plaintext is nobody", allow(anybody, `{"authenticated": {}}`), false, false, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := newRawGuarded(t, tt.filters)
			var allowed, denied int64
			for _, protocol := range authorizationProtocols {
				for role, want := range map[string]bool{"": tt.without, "user": tt.user, "admin": tt.root} {
					got, told := g.call(t, protocol, role)
					if got != want {
						t.Errorf("%s, role %q: allowed %t, want %t", protocol, role, got, want)
					}
					if want {
						allowed++
						continue
					}
					denied++
					if strings.Contains(told, "secret") || !strings.HasSuffix(told, "RBAC: access denied") {
						t.Errorf("BA11: %s: the caller is told\n%s", protocol, told)
					}
				}
			}
			if got := g.served.Load(); got != allowed {
				t.Errorf("%d requests came to the application, want %d", got, allowed)
			}
			if got := g.denied.Load(); got != denied {
				t.Errorf("%d denials are reported, want %d", got, denied)
			}
			if got := g.trialDenied.Load(); got != 3*tt.trial {
				t.Errorf("%d denials on trial are reported, want %d", got, 3*tt.trial)
			}
		})
	}
}

// TestBA10_V11_ALeafThatIsNotUnderstoodLeavesThePolicyOfBefore in force: the control plane
// is told where it is, however deep.
func TestBA10_V11_ALeafThatIsNotUnderstoodLeavesThePolicyOfBefore(t *testing.T) {
	t.Parallel()
	g := newRawGuarded(t, rbacOf(`"rules": `+secretPolicy("DENY", roleIs("x-role", `"stringMatch": {"exact": "admin"}`), `{"any": true}`)))
	g.set(t, rbacOf(`"rules": `+secretPolicy("DENY", `{"notRule": {"orRules": {"rules": [{"any": true}, {"andRules": {"rules": [{}]}}]}}}`, `{"any": true}`)))
	until(t, "the control plane is told", func() bool {
		told := strings.Join(g.xds.rejections(), "\n")
		return strings.Contains(told, `rules.policies["secret-policy"].permissions[0].not_rule.or_rules.rules[1].and_rules.rules[0].rule`)
	})
	for _, protocol := range authorizationProtocols {
		for role, want := range map[string]bool{"user": true, "admin": false} {
			if got, _ := g.call(t, protocol, role); got != want {
				t.Errorf("%s, role %q: allowed %t, want %t", protocol, role, got, want)
			}
		}
	}
}

// TestBA04_APathWithoutASlashIsNoMethod: it is UNIMPLEMENTED before a policy is asked,
// and the method that it might mean is called by nobody.
func TestBA04_APathWithoutASlashIsNoMethod(t *testing.T) {
	t.Parallel()
	const method = grpc_testing.TestService_EmptyCall_FullMethodName
	g := newRawGuarded(t, rbacOf(`"rules": `+secretPolicy("DENY", `{"urlPath": {"path": {"exact": "`+method+`"}}}`, `{"any": true}`)))
	for _, tt := range []struct {
		path, want string
		denied     int64
	}{{method, "7", 1}, {method[1:], "12", 0}, {"", "12", 0}, {"*", "12", 0}} {
		before := g.denied.Load()
		if got := statusOfPath(t, g.calls, tt.path); got != tt.want {
			t.Errorf("%q: status %s, want %s", tt.path, got, tt.want)
		}
		if got := g.denied.Load() - before; got != tt.denied {
			t.Errorf("%q: %d denials are reported, want %d", tt.path, got, tt.denied)
		}
	}
	if got := g.served.Load(); got != 0 {
		t.Errorf("%d calls got through", got)
	}
}

// statusOfPath calls with a :path as it is, and returns the gRPC status.
func statusOfPath(t *testing.T, address, path string) string {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":authority", "payment"}, {":path", path}, {"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		_ = encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	_ = framer.WriteSettings()
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	_ = framer.WriteData(1, true, make([]byte, 5)) // an empty message
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch h := frame.(type) {
		case *http2.MetaHeadersFrame:
			for _, field := range h.RegularFields() {
				if field.Name == "grpc-status" {
					return field.Value
				}
			}
		case *http2.RSTStreamFrame:
			return h.ErrCode.String()
		}
	}
}
