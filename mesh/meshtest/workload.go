package meshtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// Workload is a process of the mesh: what the code under test gets in place of
// its own [mesh.New]. Each call starts another one, which is closed with the
// test. name is "SERVICEACCOUNT.NAMESPACE", such as "customer.shop"; the options say
// which labels it has ([Labels], [Version]), where it runs ([Locality]), and what its
// mesh is given ([Hooks], [Mesh]). A bad name or option fails the test at once.
func (w *World) Workload(name string, options ...Option) *mesh.Mesh {
	w.tb.Helper()
	p, err := w.newProcess(name, options)
	if err != nil {
		w.tb.Fatalf("meshtest: workload %q: %v", name, err)
	}
	m, err := w.join(p)
	if err != nil {
		w.tb.Fatalf("meshtest: workload %q: %v", name, err)
	}
	w.tb.Cleanup(func() {
		if err := w.leave(m); err != nil {
			w.tb.Errorf("meshtest: close workload %q: %v", name, err)
		}
	})
	return m.mesh
}

// newProcess is the process of a workload.
func (w *World) newProcess(name string, options []Option) (*process, error) {
	account, namespace, err := splitName(name)
	if err != nil {
		return nil, err
	}
	i := &Instance{labels: map[string]string{"app": account}}
	if err := i.take(options); err != nil {
		return nil, err
	}
	if len(i.ports) > 0 {
		return nil, errors.New("a workload serves no port: HTTP, GRPC and TCP are for World.Service")
	}
	identity, err := w.identity(namespace, account)
	if err != nil {
		return nil, err
	}
	return &process{
		name: name, namespace: namespace, account: account, address: "10.255.0.1",
		labels: i.labels, locality: i.locality, identity: identity, hooks: i.hooks, options: i.options,
	}, nil
}

// process is who joins the mesh.
type process struct {
	name, namespace, account, address string
	labels                            map[string]string
	locality                          string
	identity                          meshtls.Source
	hooks                             *observe.Hooks
	options                           []mesh.Option
	serves                            bool
}

// join starts the mesh of a process.
func (w *World) join(p *process) (*member, error) {
	labels := make(map[string]any, len(p.labels))
	for k, v := range p.labels {
		labels[k] = v
	}
	locality, err := parseLocality(p.locality)
	if err != nil {
		return nil, err
	}
	config := &bootstrap.Config{
		Servers: []bootstrap.Server{{
			URI:          "passthrough:///" + controlPlane,
			ChannelCreds: bootstrap.Credentials{Type: "insecure"},
			API:          bootstrap.APIDelta,
			DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
				return w.network.DialContext(ctx, "tcp", address)
			})},
		}},
		Node: bootstrap.Node{
			ID:       "sidecar~" + p.address + "~" + p.name + "~" + p.namespace + serviceSuffix,
			Locality: locality,
			Metadata: map[string]any{
				"NAMESPACE": p.namespace, "SERVICE_ACCOUNT": p.account, "LABELS": labels, "GENERATOR": "grpc",
			},
		},
		ServerListenerTemplate: "xds.istio.io/grpc/lds/inbound/%s",
	}
	m := &member{name: p.name, serves: p.serves}
	m.mesh, err = mesh.New(context.Background(), append([]mesh.Option{
		mesh.WithBootstrap(config),
		mesh.WithIdentity("default", p.identity),
		mesh.WithIdentity("ROOTCA", p.identity),
		mesh.WithHooks(w.hooks(m, p.hooks)),
		mesh.WithLogger(w.logger.With("workload", p.name)),
		mesh.Network{Dial: w.network.DialContext},
		mesh.WithOutboundPolicy(mesh.RegistryOnly),
	}, p.options...)...)
	if err != nil {
		return nil, err
	}
	if len(p.options) > 0 {
		if err := m.checkHooks(); err != nil {
			return nil, errors.Join(err, m.mesh.Close())
		}
	}
	w.mu.Lock()
	w.members[m] = struct{}{}
	w.mu.Unlock()
	return m, nil
}

func (w *World) leave(m *member) error {
	w.mu.Lock()
	delete(w.members, m)
	w.mu.Unlock()
	return m.mesh.Close()
}

// checkHooks finds out whether options have replaced the World's hooks: then the
// control plane answers, and nothing has told of the stream to it.
func (m *member) checkHooks() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := m.ask(ctx); err != nil {
		return err
	}
	if !m.streamed.Load() {
		return errors.New("mesh.WithHooks replaces the hooks of the World: use meshtest.Hooks")
	}
	return nil
}

// parseLocality reads "region/zone/subzone".
func parseLocality(text string) (balancer.Locality, error) {
	parts := strings.Split(text, "/")
	if len(parts) > 3 || text != "" && parts[0] == "" {
		return balancer.Locality{}, fmt.Errorf("%q is not a locality: write region/zone/subzone, of which the last parts may be missing", text)
	}
	parts = append(parts, "", "")
	return balancer.Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}, nil
}
