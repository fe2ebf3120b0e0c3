package istiod

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/mesh"
)

const host = "payment.shop.svc.cluster.local"

// freeAddress is where nobody listens now: istiod has to know of a server's port
// before the server can be told how to listen there.
func freeAddress(t *testing.T) string { return freeAddressOf(t, "127.0.0.1") }

func freeAddressOf(t *testing.T, ip string) string {
	t.Helper()
	ln, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// instance is where a payment serves, and the version that it says it is.
type instance struct {
	version, ip, http, grpc string
}

func instances(t *testing.T) []instance {
	t.Helper()
	var list []instance
	for i, version := range []string{"v1", "v2"} {
		ip := fmt.Sprintf("127.0.0.%d", 11+i)
		list = append(list, instance{version, ip, freeAddressOf(t, ip), freeAddressOf(t, ip)})
	}
	return list
}

func port(address string) string {
	_, p, _ := net.SplitHostPort(address)
	return p
}

// services are the payments as istiod is told of them, with mutual TLS at both ends.
func services(list []instance) string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payment, namespace: shop}
spec:
  hosts: [%s]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 8080, name: http, protocol: HTTP}, {number: 9090, name: grpc, protocol: GRPC}]
  workloadSelector: {labels: {app: payment}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec:
  host: %[1]s
  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
`, host)
	for _, i := range list {
		fmt.Fprintf(&b, `---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: payment-%s, namespace: shop}
spec: {address: %s, ports: {http: %s, grpc: %s}, labels: {app: payment, version: %[1]s, security.istio.io/tlsMode: istio}, serviceAccount: payment}
`, i.version, i.ip, port(i.http), port(i.grpc))
	}
	return b.String()
}

// routes are a VirtualService with these http routes.
func routes(http string) string {
	return "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: payment, namespace: shop}\n" +
		"spec:\n  hosts: [" + host + "]\n  http:\n" + http
}

// payment serves HTTP and gRPC, and says of each call which version it is and who calls.
type payment struct {
	grpc_health_v1.UnimplementedHealthServer

	version string
}

func (p *payment) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, _ := mesh.PeerID(r.Context())
	fmt.Fprintf(w, "%s %s %s", p.version, r.URL.Path, id)
}

func (p *payment) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	id, _ := mesh.PeerID(ctx)
	err := grpc.SetHeader(ctx, metadata.Pairs("x-said", fmt.Sprintf("%s %s %s", p.version, r.Service, id)))
	return &grpc_health_v1.HealthCheckResponse{}, err
}

func (w *world) serve(i instance, protocol string) {
	w.t.Helper()
	m := w.workload("payment", i.ip, protocol)
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	p := &payment{version: i.version}
	server := m.Server(p)
	guarded := grpc.NewServer(m.ServerOptions()...)
	grpc_health_v1.RegisterHealthServer(guarded, p)
	var serving sync.WaitGroup
	for address, serve := range map[string]func(net.Listener) error{i.http: server.Serve, i.grpc: guarded.Serve} {
		ln, err := m.Listen(ctx, "tcp", address)
		if err != nil {
			w.t.Fatal(err)
		}
		serving.Go(func() {
			if err := serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) {
				w.t.Error(err)
			}
		})
	}
	w.t.Cleanup(func() {
		_ = server.Close()
		guarded.Stop()
		serving.Wait()
	})
}

// caller calls the payment over both protocols.
type caller struct {
	t       *testing.T
	client  *http.Client
	channel *grpc.ClientConn
}

func (w *world) caller(protocol string) *caller {
	w.t.Helper()
	m := w.workload("customer", "127.0.0.21", protocol)
	channel, err := grpc.NewClient("mesh:///"+host+":9090", m.DialOptions()...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = channel.Close() })
	return &caller{w.t, m.HTTPClient(), channel}
}

// get returns the status and the body, or the error.
func (c *caller) get(ctx context.Context, path string, header ...string) (int, string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+":8080"+path, nil)
	if err != nil {
		return 0, err.Error()
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := c.client.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(body)
}

// check returns the code, and what was said or the error.
func (c *caller) check(ctx context.Context, service string, header ...string) (codes.Code, string) {
	var said metadata.MD
	ctx = metadata.AppendToOutgoingContext(ctx, header...)
	_, err := grpc_health_v1.NewHealthClient(c.channel).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service}, grpc.Header(&said))
	if err != nil {
		return status.Code(err), err.Error()
	}
	return codes.OK, strings.Join(said.Get("x-said"), ",")
}

const customer = "spiffe://cluster.local/ns/shop/sa/customer"

// expect waits for an answer over both protocols: the configuration is on its way.
func (c *caller) expect(said string, header ...string) {
	c.t.Helper()
	var last string
	untilSaid(c.t, func() (string, bool) {
		code, body := c.get(c.t.Context(), "/charge", header...)
		last = fmt.Sprintf("HTTP %d %q", code, body)
		return last, code == http.StatusOK && body == said+" /charge "+customer
	})
	untilSaid(c.t, func() (string, bool) {
		code, body := c.check(c.t.Context(), "charge", header...)
		last = fmt.Sprintf("gRPC %s %q", code, body)
		return last, code == codes.OK && body == said+" charge "+customer
	})
}

func (c *caller) expectRefusal(header ...string) {
	c.t.Helper()
	untilSaid(c.t, func() (string, bool) {
		code, body := c.get(c.t.Context(), "/charge", header...)
		return fmt.Sprintf("HTTP %d %q", code, body), code == http.StatusForbidden
	})
	untilSaid(c.t, func() (string, bool) {
		code, body := c.check(c.t.Context(), "charge", header...)
		return fmt.Sprintf("gRPC %s %q", code, body), code == codes.PermissionDenied
	})
}

func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	untilSaid(t, func() (string, bool) { return what, condition() })
}

// untilSaid waits for a condition, and says what was there in its place.
func untilSaid(t *testing.T, condition func() (string, bool)) {
	t.Helper()
	limit := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		last, ok := condition()
		if ok {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("not in time; at last: %s", last)
		}
		<-tick.C
	}
}

// Both protocols of xDS: what istiod speaks by default is tried first.
var protocols = map[string]string{"delta": "DELTA_GRPC", "state of the world": "GRPC"}

func TestPoliciesOfIstiodHold(t *testing.T) {
	for name, protocol := range protocols {
		t.Run(name, func(t *testing.T) {
			list := instances(t)
			base := services(list)
			toV1 := "  - {route: [{destination: {host: " + host + ", subset: v1}}]}\n"
			w := newWorld(t, base+routes(toV1))
			for _, i := range list {
				w.serve(i, protocol)
			}
			c := w.caller(protocol)
			c.expect("v1")

			// Everything that istiod passes on to gRPC in a route, beside what decides.
			w.apply(base + routes(`  - match: [{uri: {exact: /old}}]
    redirect: {uri: /new}
  - match: [{headers: {x-canary: {regex: "tr[u]e"}}, withoutHeaders: {x-not: {}}}]
    route: [{destination: {host: `+host+`, subset: v2}, headers: {request: {set: {x-set: "1"}}}}]
    retries: {attempts: 2, retryOn: "5xx,reset", perTryTimeout: 1s}
    timeout: 5s
    corsPolicy: {allowOrigins: [{exact: "https://shop.example"}], allowMethods: [GET]}
    mirror: {host: `+host+`, subset: v1}
  - match: [{headers: {x-broken: {exact: "1"}}}]
    fault: {abort: {httpStatus: 503, percentage: {value: 100}}}
    route: [{destination: {host: `+host+`}}]
`+toV1))
			c.expect("v2", "x-canary", "true")
			c.expect("v1", "x-canary", "true", "x-not", "1")
			if code, _ := c.get(t.Context(), "/charge", "x-broken", "1"); code != http.StatusServiceUnavailable {
				t.Errorf("the injected fault is HTTP %d", code)
			}

			// Rules about callers: at first they let this one in, then they do not.
			policy := `---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: payment, namespace: shop}
spec:
  selector: {matchLabels: {app: payment}}
  action: %s
  rules: [{from: [{source: {principals: ["cluster.local/ns/shop/sa/%s"]}}]}]
`
			w.apply(base + routes(toV1) + fmt.Sprintf(policy, "ALLOW", "somebody-else"))
			c.expectRefusal()
			w.apply(base + routes(toV1) + fmt.Sprintf(policy, "ALLOW", "customer"))
			c.expect("v1")
			w.apply(base + routes(toV1) + fmt.Sprintf(policy, "DENY", "customer"))
			c.expectRefusal()
			w.apply(base + routes(toV1))
			c.expect("v1")
			w.expectNoRejection()
		})
	}
}

// jwks is a set of one public key.
func jwks(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return fmt.Sprintf(`{"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "x": %q, "y": %q}]}`, encode(point[1:33]), encode(point[33:]))
}

// What istiod does not send to workloads without a proxy cannot be enforced: the page
// about istiod names each of these, and what does in its place.
func TestWhatIstiodDoesNotSend(t *testing.T) {
	list := instances(t)
	base := services(list) + routes("  - {route: [{destination: {host: "+host+", subset: v1}}]}\n")
	w := newWorld(t, base)
	for _, i := range list {
		w.serve(i, "")
	}
	c := w.caller("")
	c.expect("v1")
	authorization := func(spec string) string {
		return "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: payment, namespace: shop}\nspec: " + spec + "\n"
	}
	closed := authorization("{action: DENY, rules: [{}]}")
	for what, yaml := range map[string]string{
		"allow nothing": authorization("{}"),
		"RequestAuthentication": `---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: payment, namespace: shop}
spec: {jwtRules: [{issuer: "https://issuer.example", jwks: '` + jwks(t) + `'}]}
`,
	} {
		// The way there leads through a policy that holds, so that what follows it has been read.
		w.apply(base + closed)
		c.expectRefusal()
		w.apply(base + yaml)
		untilSaid(t, func() (string, bool) {
			code, body := c.get(t.Context(), "/charge", "Authorization", "Bearer a.b.c")
			return fmt.Sprintf("%s: HTTP %d %q", what, code, body), code == http.StatusOK
		})
		if what == "RequestAuthentication" && !strings.Contains(w.debug("configz"), "issuer.example") {
			t.Error("istiod has no RequestAuthentication")
		}
	}
	w.expectNoRejection()
}

// Over delta istiod forgets who had asked for a service that it has removed.
func TestAServiceComesBack(t *testing.T) {
	for name, protocol := range protocols {
		t.Run(name, func(t *testing.T) {
			list := instances(t)
			toV1 := routes("  - {route: [{destination: {host: " + host + ", subset: v1}}]}\n")
			w := newWorld(t, services(list)+toV1)
			for _, i := range list {
				w.serve(i, protocol)
			}
			c := w.caller(protocol)
			c.expect("v1")
			w.write("conf/mesh.yaml", "")
			untilSaid(t, func() (string, bool) {
				code, body := c.get(t.Context(), "/charge")
				return fmt.Sprintf("HTTP %d %q", code, body), code == 0
			})
			w.apply(services(list) + toV1)
			c.expect("v1")
			w.expectNoRejection()
		})
	}
}

func TestAnIstiodThatDiesAndComesBackFailsNoCall(t *testing.T) {
	for name, protocol := range protocols {
		t.Run(name, func(t *testing.T) {
			list := instances(t)
			to := func(version string) string {
				return routes("  - {route: [{destination: {host: " + host + ", subset: " + version + "}}]}\n")
			}
			w := newWorld(t, services(list)+to("v1"))
			for _, i := range list {
				w.serve(i, protocol)
			}
			c := w.caller(protocol)
			c.expect("v1")

			ctx, stop := context.WithCancel(t.Context())
			var calls, failed atomic.Int64
			var calling sync.WaitGroup
			for _, call := range []func() string{
				func() string {
					if code, body := c.get(t.Context(), "/charge"); code != http.StatusOK {
						return fmt.Sprintf("HTTP %d %q", code, body)
					}
					return ""
				},
				func() string {
					if code, body := c.check(t.Context(), "charge"); code != codes.OK {
						return fmt.Sprintf("gRPC %s %q", code, body)
					}
					return ""
				},
			} {
				calling.Go(func() {
					tick := time.NewTicker(time.Millisecond)
					defer tick.Stop()
					for ctx.Err() == nil {
						calls.Add(1)
						if failure := call(); failure != "" {
							failed.Add(1)
							t.Error(failure)
							return
						}
						<-tick.C
					}
				})
			}
			w.kill()
			before := calls.Load()
			until(t, "a hundred calls without istiod", func() bool { return calls.Load() > before+100 })
			w.start()
			w.apply(services(list) + to("v2"))
			c.expect("v2")
			stop()
			calling.Wait()
			t.Logf("%d calls, %d failed", calls.Load(), failed.Load())
			w.expectNoRejection()
		})
	}
}
