// Package offline answers what a mesh would do with documents that are on disk: the
// control plane's translation, the client's own decoder and its router, in one
// process and without a network.
package offline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/controlplane"
	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/discovery/xds"
	"github.com/inboardmesh/inboard/internal/ask"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/near"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// Node is who would call.
type Node struct {
	// Namespace decides what the caller sees. Without one it is a caller of a
	// namespace that no document names.
	Namespace string
	Labels    map[string]string
	// Source is how answers call the documents: a directory. "" is "the documents".
	Source string
	// Locality is where the caller runs; the zero value leaves that to its labels.
	Locality balancer.Locality
	// RootNamespace is where mesh-wide policies are; "" is "istio-system".
	RootNamespace string
}

// Mesh is a mesh that exists in memory only. It calls nobody. Make it with [New];
// Close ends it. Safe for concurrent use.
type Mesh struct {
	mesh   *mesh.Mesh
	server *controlplane.Server
	stop   context.CancelFunc
	served chan error
	// source is how answers call the documents, hosts are those that the caller sees,
	// "HOST:PORT".
	source string
	hosts  func() []string
	// namespace is the caller's.
	namespace string
}

// controlPlane is the control plane's address in the network in memory.
const controlPlane = "control-plane"

// serverName is how the client's errors call it.
const serverName = `xDS server "passthrough:///` + controlPlane + `"`

// answerTime bounds the wait for an answer. Everything is in memory: what takes
// longer does not come.
const answerTime = 10 * time.Second

// New reads documents. The error is a [*controlplane.InvalidConfigError] for what a
// control plane would not serve.
func New(files []istio.File, node Node) (_ *Mesh, err error) {
	server, err := controlplane.New(controlplane.Config{Files: files, RootNamespace: node.RootNamespace, Check: xds.Check})
	if err != nil {
		return nil, err
	}
	var network memnet.Network
	ln, err := network.Listen(controlPlane)
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	m := &Mesh{server: server, stop: stop, served: make(chan error, 1), source: "the documents", namespace: node.Namespace}
	if node.Source != "" {
		m.source = strconv.Quote(node.Source)
	}
	m.hosts = sync.OnceValue(func() []string {
		config, _ := istio.Parse(files, istio.Options{RootNamespace: node.RootNamespace}) // without problems, as above
		return config.Names(istio.Node{Namespace: node.Namespace}, "type.googleapis.com/envoy.config.listener.v3.Listener")
	})
	go func() { m.served <- server.Serve(ctx, controlplane.Listeners{Plaintext: ln}) }() // until Close
	identity := new(meshtls.Static)                                                      // which is never used: nothing is dialled
	m.mesh, err = mesh.New(ctx,
		mesh.WithBootstrap(node.bootstrap(&network)),
		mesh.WithIdentity("default", identity),
		mesh.WithHooks(&observe.Hooks{}),
		mesh.WithLogger(slog.New(slog.DiscardHandler)),
		mesh.Network{Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("nothing is called offline")
		}},
	)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (n *Node) bootstrap(network *memnet.Network) *bootstrap.Config {
	labels := make(map[string]any, len(n.Labels))
	for name, value := range n.Labels {
		labels[name] = value
	}
	metadata := map[string]any{"LABELS": labels, "GENERATOR": "grpc"}
	if n.Namespace != "" {
		metadata["NAMESPACE"] = n.Namespace
	}
	return &bootstrap.Config{
		Servers: []bootstrap.Server{{
			URI:          "passthrough:///" + controlPlane,
			ChannelCreds: bootstrap.Credentials{Type: "insecure"},
			API:          bootstrap.APIDelta,
			DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
				return network.DialContext(ctx, "tcp", address)
			})},
		}},
		Node: bootstrap.Node{
			ID:       fmt.Sprintf("sidecar~127.0.0.1~offline.%[1]s~%[1]s.svc.cluster.local", n.Namespace),
			Locality: n.Locality,
			Metadata: metadata,
		},
	}
}

// Explain says where a request would go.
func (m *Mesh) Explain(ctx context.Context, req *ask.Request) (*mesh.Explanation, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	e, err := req.Explain(ctx, m.mesh)
	if err != nil {
		return nil, err
	}
	if (e.Verdict == mesh.VerdictAroundMesh || e.Verdict == mesh.VerdictRefused) && strings.Contains(e.Reason, serverName) {
		e.Reason = m.unknown(e.Target)
	}
	e.Reason = strings.ReplaceAll(e.Reason, serverName, m.source)
	return e, nil
}

// clusterDomain ends the full names of services. Similar ones are found without it.
const clusterDomain = ".svc.cluster.local"

// unknown says that a target is not there, and what may have been meant: another port
// of the host, or a host with a similar name.
func (m *Mesh) unknown(target string) string {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		host = target
	}
	var ports, hosts, elsewhere []string
	for _, known := range m.hosts() {
		name, number, err := net.SplitHostPort(known)
		if err != nil {
			continue
		}
		short := strings.TrimSuffix(name, clusterDomain)
		service, namespace, ofService := strings.Cut(short, ".")
		switch {
		case name == host || short == host || short+".svc" == host || service == host && namespace == m.namespace:
			ports = append(ports, number)
		case service == host && ofService && short != name && !slices.Contains(elsewhere, strconv.Quote(short)):
			elsewhere = append(elsewhere, strconv.Quote(short))
		}
		if !slices.Contains(hosts, short) {
			hosts = append(hosts, short)
		}
	}
	switch {
	case len(ports) > 0:
		return fmt.Sprintf("%s has no port %s of %q: it has %s", m.source, port, host, strings.Join(ports, ", "))
	case len(elsewhere) > 0:
		caller := "a caller without a namespace"
		if m.namespace != "" {
			caller = fmt.Sprintf("a caller of the namespace %q", m.namespace)
		}
		return fmt.Sprintf("%s has no host %q for %s: write %s, or name the namespace of the caller", m.source, host, caller, strings.Join(elsewhere, " or "))
	}
	return fmt.Sprintf("%s has no host %q%s", m.source, host, near.Question(near.Names(strings.TrimSuffix(host, clusterDomain), hosts)))
}

// Close ends the mesh.
func (m *Mesh) Close() error {
	var errs []error
	if m.mesh != nil {
		errs = append(errs, m.mesh.Close())
	}
	m.stop()
	return errors.Join(append(errs, <-m.served, m.server.Close())...)
}
