package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/inboardmesh/inboard/controlplane"
	"github.com/inboardmesh/inboard/controlplane/ca"
	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/discovery/xds"
)

// shop is a control plane in this process, as a test of an application would
// have it. In production it is "inboard control-plane", or istiod, and each
// process reads its bootstrap from a file.
type shop struct {
	dir       string
	authority *ca.CA
	server    *controlplane.Server
	address   string
	stop      context.CancelFunc
	ended     chan error
}

func startShop() (*shop, error) {
	authority, err := ca.New(ca.Config{})
	if err != nil {
		return nil, err
	}
	server, err := controlplane.New(controlplane.Config{CA: authority, Check: xds.Check})
	if err != nil {
		return nil, err
	}
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	dir, err := os.MkdirTemp("", "shop")
	if err != nil {
		return nil, errors.Join(err, ln.Close(), server.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &shop{
		dir: dir, authority: authority, server: server, address: ln.Addr().String(),
		stop: stop, ended: make(chan error, 1),
	}
	go func() { s.ended <- server.Serve(ctx, controlplane.Listeners{Secure: ln}) }() // until close
	return s, nil
}

func (s *shop) close() {
	s.stop()
	if err := errors.Join(<-s.ended, s.server.Close(), os.RemoveAll(s.dir)); err != nil {
		fmt.Println(err)
	}
}

// bootstrap is what the service account needs to join.
func (s *shop) bootstrap(serviceAccount string) (*bootstrap.Config, error) {
	token, err := s.authority.IssueToken("shop", serviceAccount, time.Hour)
	if err != nil {
		return nil, err
	}
	tokenFile, rootFile := filepath.Join(s.dir, serviceAccount), filepath.Join(s.dir, "root")
	err = errors.Join(
		os.WriteFile(tokenFile, []byte(token), 0o600),
		os.WriteFile(rootFile, s.authority.RootsPEM(), 0o600),
	)
	if err != nil {
		return nil, err
	}
	return bootstrap.Parse(fmt.Appendf(nil, `{
		"xds_servers": [{
			"server_uri": %[1]q,
			"channel_creds": [{"type": "tls", "config": {"ca_certificate_file": %[2]q}}],
			"call_creds": [{"type": "jwt_token_file", "config": {"jwt_token_file": %[3]q}}]
		}],
		"node": {"id": %[4]q, "metadata": {"NAMESPACE": "shop", "SERVICE_ACCOUNT": %[4]q}},
		"certificate_providers": {"default": {
			"plugin_name": "istio_ca",
			"config": {"server_uri": %[1]q, "root_file": %[2]q, "token_file": %[3]q}
		}},
		"server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%%s"
	}`, s.address, rootFile, tokenFile, serviceAccount))
}

// publish makes the listener's address payment's, under its name in the mesh.
func (s *shop) publish(payment net.Addr) {
	_, port, err := net.SplitHostPort(payment.String())
	if err != nil {
		fmt.Println(err)
	}
	s.apply(fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 8080, name: payment, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1, ports: {payment: %s}, serviceAccount: payment}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`, port))
}

// apply replaces the configuration.
func (s *shop) apply(yaml string) {
	for _, problem := range s.server.Update([]istio.File{{Name: "shop.yaml", Data: []byte(yaml)}}) {
		fmt.Println(problem)
	}
}
