package grpc

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	xdscreds "google.golang.org/grpc/credentials/xds"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/xds"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

const strict = `---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`

func policy(principal string) string {
	return `---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: payment, namespace: shop}
spec:
  rules: [{from: [{source: {principals: ["cluster.local/ns/shop/sa/` + principal + `"]}}]}]
`
}

// nativeServer is a server of grpc-go's own xDS. It tells when it serves.
func (w *world) nativeServer() (s server, serving chan struct{}) {
	w.t.Helper()
	creds, err := xdscreds.NewServerCredentials(xdscreds.ServerOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		w.t.Fatal(err)
	}
	serving = make(chan struct{}, 16)
	native, err := xds.NewGRPCServer(grpc.Creds(creds), xds.BootstrapContentsForTesting(w.bootstrap("payment")),
		xds.ServingModeCallback(func(_ net.Addr, a xds.ServingModeChangeArgs) {
			if a.Mode == connectivity.ServingModeServing {
				serving <- struct{}{}
			}
		}))
	if err != nil {
		w.t.Fatal(err)
	}
	return native, serving
}

// nativeClient is a channel of grpc-go's own xDS.
func (w *world) nativeClient() *grpc.ClientConn {
	w.t.Helper()
	builder, err := xds.NewXDSResolverWithConfigForTesting(w.bootstrap("customer"))
	if err != nil {
		w.t.Fatal(err)
	}
	creds, err := xdscreds.NewClientCredentials(xdscreds.ClientOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := grpc.NewClient(target, grpc.WithResolvers(builder), grpc.WithTransportCredentials(creds))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// join starts a mesh of ours.
func (w *world) join(account string) *mesh.Mesh {
	w.t.Helper()
	config, err := bootstrap.Parse(w.bootstrap(account))
	if err != nil {
		w.t.Fatal(err)
	}
	cert := w.ca.Workload(w.t, "spiffe://cluster.local/ns/shop/sa/"+account)
	identity, err := meshtls.NewIdentity(cert, []*x509.Certificate{w.ca.Certificate})
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := mesh.New(w.t.Context(), mesh.WithBootstrap(config), mesh.WithIdentity("default", meshtls.NewStatic(identity)))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = m.Close() })
	return m
}

// check makes a call and says who answered.
func check(t *testing.T, conn *grpc.ClientConn) (instance string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var header metadata.MD
	_, err = grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Header(&header))
	if v := header.Get("x-instance"); len(v) > 0 {
		instance = v[0]
	}
	return instance, err
}

// TestNativeGoIsServed: with mutual TLS, which is nothing of ours, and policies.
func TestNativeGoIsServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	native, serving := w.nativeServer()
	base := with(services(true, serve(t, native, &backend{name: "native"})), "", "") + strict
	w.apply(base)
	<-serving
	theirs := w.nativeClient()
	m := w.join("customer")
	ours, err := grpc.NewClient("mesh:///"+host+":9090", m.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	for name, conn := range map[string]*grpc.ClientConn{"native": theirs, "mesh": ours} {
		if instance, err := check(t, conn); err != nil || instance != "native" {
			t.Errorf("%s calls native: %q, %v", name, instance, err)
		}
	}
	for principal, want := range map[string]codes.Code{"other": codes.PermissionDenied, "customer": codes.OK} {
		w.apply(base + policy(principal))
		for name, conn := range map[string]*grpc.ClientConn{"native": theirs, "mesh": ours} {
			until(t, name+" under a policy for "+principal, func() bool {
				_, err := check(t, conn)
				return status.Code(err) == want
			})
		}
	}
	if nacks := w.nacks(); nacks != "" {
		t.Errorf("rejected: %s", nacks)
	}
}

// TestNativeGoServersUnderPermissive: grpc-go cannot tell TLS from plaintext on one
// port. It gets that of the two which its clients use.
func TestNativeGoServersUnderPermissive(t *testing.T) {
	t.Parallel()
	for _, mutual := range []bool{true, false} {
		t.Run(fmt.Sprintf("mutual TLS %t", mutual), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			native, serving := w.nativeServer()
			yaml := with(services(mutual, serve(t, native, &backend{name: "native"})), "", "")
			if !mutual {
				yaml = strings.ReplaceAll(yaml, "labels: {app: payment, version: v1}", "labels: {app: payment, version: v1, security.istio.io/tlsMode: disabled}")
			}
			w.apply(yaml)
			<-serving
			if instance, err := check(t, w.nativeClient()); err != nil || instance != "native" {
				t.Errorf("answered by %q, %v", instance, err)
			}
			if nacks := w.nacks(); nacks != "" {
				t.Errorf("rejected: %s", nacks)
			}
		})
	}
}

// TestNativeGoCallsTheMesh: the other way round.
func TestNativeGoCallsTheMesh(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.apply(with(services(true, ln.Addr().String()), "", "") + strict)
	m := w.join("payment")
	meshed, err := m.Serve(t.Context(), ln)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(m.ServerOptions()...)
	grpc_health_v1.RegisterHealthServer(s, &backend{name: "mesh"})
	done := make(chan error, 1)
	go func() { done <- s.Serve(meshed) }()
	defer func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	if instance, err := check(t, w.nativeClient()); err != nil || instance != "mesh" {
		t.Errorf("native calls the mesh: %q, %v", instance, err)
	}
}
