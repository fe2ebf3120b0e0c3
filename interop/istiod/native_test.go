package istiod

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/xds"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/nativegrpc"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

const paymentID = "spiffe://cluster.local/ns/shop/sa/payment"

// nativeServer is an xds.NewGRPCServer that says of each call who calls.
type nativeServer struct {
	grpc_health_v1.UnimplementedHealthServer
}

func (nativeServer) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	caller := "nobody"
	if from, ok := peer.FromContext(ctx); ok {
		if info, ok := from.AuthInfo.(credentials.TLSInfo); ok && info.SPIFFEID != nil {
			caller = info.SPIFFEID.String()
		}
	}
	err := grpc.SetHeader(ctx, metadata.Pairs("x-said", fmt.Sprintf("native %s %s", r.Service, caller)))
	return &grpc_health_v1.HealthCheckResponse{}, err
}

// serveNative serves as a guest of a mesh, at the address of an instance, until the
// test ends or the caller stops it.
func serveNative(t *testing.T, guest *nativegrpc.Guest, address string) (modes <-chan xds.ServingModeChangeArgs, stop func()) {
	t.Helper()
	changes := make(chan xds.ServingModeChangeArgs, 64)
	server, err := xds.NewGRPCServer(append(guest.ServerOptions(),
		xds.ServingModeCallback(func(_ net.Addr, args xds.ServingModeChangeArgs) { changes <- args }))...)
	if err != nil {
		t.Fatal(err)
	}
	grpc_health_v1.RegisterHealthServer(server, nativeServer{})
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(guest.Listener(ln)) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		server.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return changes, stop
}

func awaitServing(t *testing.T, modes <-chan xds.ServingModeChangeArgs) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		select {
		case args := <-modes:
			if args.Mode == connectivity.ServingModeServing {
				return
			}
			t.Logf("the native server is %v: %v", args.Mode, args.Err)
		case <-limit:
			t.Fatal("the native server does not serve")
		}
	}
}

// guestsOf are native channels to hosts and a native server at an address, of one mesh.
func guestsOf(t *testing.T, m *mesh.Mesh, address string, hosts []string) (callers []*caller, stop func()) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the guests: %+v", m.Guests())
		}
	})
	guest, err := nativegrpc.New(m)
	if err != nil {
		t.Fatal(err)
	}
	modes, stopServer := serveNative(t, guest, address)
	awaitServing(t, modes)
	for _, host := range hosts {
		channel, err := grpc.NewClient("xds:///"+host+":9090", guest.DialOptions()...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = channel.Close() })
		callers = append(callers, &caller{t: t, channel: channel})
	}
	return callers, func() {
		for _, c := range callers {
			_ = c.channel.Close()
		}
		stopServer()
	}
}

// expectNative waits until a native channel is answered by the native server.
func (c *caller) expectNative(header ...string) {
	c.t.Helper()
	c.expectCode(codes.OK, "native charge "+paymentID, header...)
}

func (c *caller) expectCode(want codes.Code, said string, header ...string) {
	c.t.Helper()
	untilSaid(c.t, func() (string, bool) {
		ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
		defer cancel()
		code, text := c.check(ctx, "charge", header...)
		return fmt.Sprintf("%s %q", code, text), code == want && strings.Contains(text, said)
	})
}

// manyHosts are n more names of the payments.
func manyHosts(n int) []string {
	hosts := []string{host}
	for i := range n {
		hosts = append(hosts, fmt.Sprintf("s%d.shop.svc.cluster.local", i))
	}
	return hosts
}

// entries are services for all but the first of the hosts, with the payments as their workloads.
func entries(hosts []string) string {
	var b strings.Builder
	for _, host := range hosts[1:] {
		name, _, _ := strings.Cut(host, ".")
		fmt.Fprintf(&b, `---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %s, namespace: shop}
spec:
  hosts: [%s]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 9090, name: grpc, protocol: GRPC}]
  workloadSelector: {labels: {app: payment}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %[1]s, namespace: shop}
spec: {host: %[2]s, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
`, name, host)
	}
	return b.String()
}

// streams counts the streams that istiod has with workloads.
func (w *world) streams() int {
	w.t.Helper()
	var page struct {
		TotalClients int `json:"totalClients"`
	}
	if err := json.Unmarshal([]byte(w.debug("connections")), &page); err != nil {
		w.t.Fatal(err)
	}
	return page.TotalClients
}

// TestNativeGRPCIsAGuestBeforeIstiod: channels and a server of grpc-go's own xDS, in
// one process, have what istiod sends over the one stream of their mesh.
func TestNativeGRPCIsAGuestBeforeIstiod(t *testing.T) {
	for name, protocol := range protocols {
		t.Run(name, func(t *testing.T) {
			list := instances(t)[:1]
			hosts := manyHosts(24)
			base := services(list) + entries(hosts)
			w := newWorld(t, base)
			callers, _ := guestsOf(t, w.workload("payment", list[0].ip, protocol), list[0].grpc, hosts)
			for _, c := range callers {
				c.expectNative()
			}
			if n := w.streams(); n != 1 {
				t.Errorf("%d streams for %d native channels and a native server: %s", n, len(callers), w.debug("connections"))
			}

			// By itself grpc-go rejects a route with CORS, and all other routes with it.
			c := callers[0]
			w.apply(base + routes(`  - match: [{headers: {x-canary: {exact: "true"}}}]
    route: [{destination: {host: `+host+`, subset: v1}}]
    retries: {attempts: 2, retryOn: "unavailable"}
    timeout: 5s
    corsPolicy: {allowOrigins: [{exact: "https://shop.example"}], allowMethods: [GET]}
  - match: [{headers: {x-broken: {exact: "1"}}}]
    fault: {abort: {grpcStatus: DATA_LOSS, percentage: {value: 100}}}
    route: [{destination: {host: `+host+`}}]
  - {route: [{destination: {host: `+host+`, subset: v1}}]}
`))
			c.expectCode(codes.DataLoss, "", "x-broken", "1")
			c.expectNative("x-canary", "true")
			c.expectNative()

			// The server's rules, about callers that are the client's own identity.
			policy := `---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: payment, namespace: shop}
spec:
  selector: {matchLabels: {app: payment}}
  action: %s
  rules: [{from: [{source: {principals: ["cluster.local/ns/shop/sa/%s"]}}]}]
`
			w.apply(base + fmt.Sprintf(policy, "ALLOW", "somebody-else"))
			for _, c := range callers[:3] {
				c.expectCode(codes.PermissionDenied, "")
			}
			w.apply(base + fmt.Sprintf(policy, "ALLOW", "payment"))
			c.expectNative()
			w.apply(base + fmt.Sprintf(policy, "DENY", "payment"))
			c.expectCode(codes.PermissionDenied, "")
			w.apply(base)
			c.expectNative()
			if n := w.streams(); n != 1 {
				t.Errorf("%d streams at the end", n)
			}
			w.expectNoRejection()
		})
	}
}

// TestNativeGuestsStartFromDiskWithoutIstiod: a process that kept what istiod sent
// starts while istiod is away, and serves and calls by it. Its certificates come from
// elsewhere, since istiod's authority is away too.
func TestNativeGuestsStartFromDiskWithoutIstiod(t *testing.T) {
	list := instances(t)[:1]
	hosts := manyHosts(3)
	policy := `---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: payment, namespace: shop}
spec:
  selector: {matchLabels: {app: payment}}
  action: DENY
  rules: [{when: [{key: "request.headers[x-evil]", values: ["1"]}]}]
`
	base := services(list) + entries(hosts) + policy
	w := newWorld(t, base)
	dir := t.TempDir()
	start := func() *mesh.Mesh {
		identity, err := meshtls.NewIdentity(w.ca.Workload(t, paymentID), []*x509.Certificate{w.ca.Certificate})
		if err != nil {
			t.Fatal(err)
		}
		return w.workload("payment", list[0].ip, "", mesh.LastKnownGood{Dir: dir}, mesh.WithIdentity("default", meshtls.NewStatic(identity)))
	}
	expect := func(callers []*caller) {
		t.Helper()
		for _, c := range callers {
			c.expectNative()
			if code, text := c.check(t.Context(), "charge", "x-evil", "1"); code != codes.PermissionDenied {
				t.Errorf("what is denied is %s %q", code, text)
			}
		}
	}
	first := start()
	callers, stop := guestsOf(t, first, list[0].grpc, hosts)
	expect(callers)
	stop()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	w.kill()

	second := start()
	callers, _ = guestsOf(t, second, list[0].grpc, hosts)
	expect(callers)
	if source := second.ConfigSource(); source.String() != "last known good" {
		t.Errorf("without istiod the configuration is from %+v", source)
	}

	// istiod comes back with another policy, and takes over.
	w.start()
	w.apply(services(list) + entries(hosts) + strings.ReplaceAll(policy, "x-evil", "x-other"))
	callers[0].expectCode(codes.PermissionDenied, "", "x-other", "1")
	callers[0].expectNative("x-evil", "1")
	untilSaid(t, func() (string, bool) {
		source := second.ConfigSource()
		return fmt.Sprintf("%+v", source), source.String() == "live"
	})
	w.expectNoRejection()
}
