package meshtest

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/inboardmesh/inboard/controlplane"
	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/discovery/xds"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

const (
	trustDomain   = "cluster.local"
	serviceSuffix = ".svc." + trustDomain
	// controlPlane is the control plane's address in the network in memory.
	controlPlane = "control-plane"
	// startTimeout bounds how long an instance waits for its configuration: it
	// is there in milliseconds, or something is wrong.
	startTimeout = 20 * time.Second
)

// TB is what a World needs of a test. [testing.TB] has it; a program that is no
// test can bring its own, whose Fatal and Fatalf must not return and whose
// cleanups run last in, first out.
type TB interface {
	Helper()
	Cleanup(f func())
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// World is a mesh. Make it with [New]; the test's cleanup takes it down. Its
// methods may be called from any goroutine, except that those that fail the test
// at once, as they say, belong on the test's own.
type World struct {
	tb      TB
	logger  *slog.Logger
	network memnet.Network
	ca      *tlstest.CA
	server  *controlplane.Server
	calls   recorder

	// changing holds a token while the configuration is changed. It is a
	// channel because waiting for a mutex stops the time of a bubble.
	changing chan struct{}

	mu        sync.Mutex
	services  []*service           // guarded by mu
	instances map[string]*Instance // guarded by mu; by name
	byIP      map[string]*Instance // guarded by mu
	members   map[*member]struct{} // guarded by mu
	files     []istio.File         // guarded by mu; the test's own

	trying     bool            // guarded by mu; Try is running
	rejections []error         // guarded by mu; what clients rejected meanwhile
	rejected   map[string]bool // guarded by mu; what Try has told of
}

// New starts a mesh without services: a control plane in memory.
func New(tb TB) *World {
	tb.Helper()
	w := &World{
		tb: tb, ca: tlstest.NewCA(tb),
		logger:    slog.New(slog.NewTextHandler(logWriter{tb}, &slog.HandlerOptions{Level: slog.LevelWarn})),
		changing:  make(chan struct{}, 1),
		instances: make(map[string]*Instance),
		byIP:      make(map[string]*Instance),
		members:   make(map[*member]struct{}),
		rejected:  make(map[string]bool),
	}
	w.calls.world = w
	var err error
	// Bad configuration fails the test by itself: no need to log it too.
	if w.server, err = controlplane.New(controlplane.Config{TrustDomain: trustDomain, Check: xds.Check}); err != nil {
		tb.Fatalf("meshtest: %v", err)
	}
	ln, err := w.network.Listen(controlPlane)
	if err != nil {
		tb.Fatalf("meshtest: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.server.Serve(ctx, controlplane.Listeners{Plaintext: ln}) }() // until cleanup
	tb.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			tb.Errorf("meshtest: control plane: %v", err)
		}
		if err := w.server.Close(); err != nil {
			tb.Errorf("meshtest: control plane: %v", err)
		}
	})
	return w
}

// Apply replaces the test's configuration, Istio's YAML with any number of
// documents. Problems fail the test at once, each with file, line and field; the
// file is called "config.yaml", and its first line is that of the text. What a
// workload rejects fails the test too, whenever it gets it. To test that a
// configuration is refused, use [World.Try].
func (w *World) Apply(yaml string) {
	w.tb.Helper()
	w.ApplyFiles(istio.File{Name: "config.yaml", Data: []byte(yaml)})
}

// ApplyFiles is [World.Apply] for files, as [istio.ReadDir] reads them: the ones
// that production has.
func (w *World) ApplyFiles(files ...istio.File) {
	w.tb.Helper()
	w.changing <- struct{}{}
	defer func() { <-w.changing }()
	if err := w.apply(files); err != nil {
		w.tb.Fatalf("meshtest: the configuration is refused:\n%v", err)
	}
}

// Try is [World.Apply] for a configuration that may be refused: the error says why,
// in place of a failed test. It is a [*controlplane.InvalidConfigError] if the
// control plane refuses it; then the one before stays in force. A workload can
// reject what it alone cannot do, such as a policy of balancing that it does not
// have; it goes on with what it has.
func (w *World) Try(yaml string) error {
	w.tb.Helper()
	return w.TryFiles(istio.File{Name: "config.yaml", Data: []byte(yaml)})
}

// TryFiles is [World.Try] for files.
func (w *World) TryFiles(files ...istio.File) error {
	w.tb.Helper()
	w.changing <- struct{}{}
	defer func() { <-w.changing }()
	return w.try(func() error { return w.apply(files) })
}

// apply gives the control plane the test's configuration, and waits until it is in
// force.
func (w *World) apply(files []istio.File) error {
	w.tb.Helper()
	w.mu.Lock()
	services := w.servicesLocked()
	w.mu.Unlock()
	if err := w.update(services, files); err != nil {
		return err
	}
	w.mu.Lock()
	w.files = files
	w.mu.Unlock()
	w.settle(func(*member) bool { return true })
	return nil
}

// update gives the control plane a new configuration.
func (w *World) update(services istio.File, files []istio.File) error {
	problems := w.server.Update(append([]istio.File{services}, files...))
	if len(problems) == 0 {
		return nil
	}
	return &controlplane.InvalidConfigError{Problems: problems}
}

// Workload is a process of the mesh: what the code under test gets in place of
// its own [mesh.New]. Each call starts another one, which is closed with the
// test. name is "SERVICEACCOUNT.NAMESPACE", such as "customer.shop"; a bad one
// fails the test at once.
func (w *World) Workload(name string) *mesh.Mesh {
	w.tb.Helper()
	account, namespace, err := splitName(name)
	if err != nil {
		w.tb.Fatalf("meshtest: workload %q: %v", name, err)
	}
	id, err := w.identity(namespace, account)
	if err != nil {
		w.tb.Fatalf("meshtest: workload %q: %v", name, err)
	}
	m, err := w.join(&process{name: name, namespace: namespace, account: account, address: "10.255.0.1", identity: id})
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

// DialContext connects to a service from outside the mesh, without an identity:
// to the first instance of it that runs. It is for an [net/http.Transport], or
// for grpc.WithContextDialer, in tests of who may call. address is "payment.shop:80".
func (w *World) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("meshtest: dial: %w", err)
	}
	known, candidates := w.running(host)
	if !known {
		return nil, fmt.Errorf("meshtest: dial: %q is no service of this world: it has %s", host, w.serviceNames())
	}
	err = fmt.Errorf("meshtest: dial: no instance of %q is running", host)
	for _, i := range candidates {
		var conn net.Conn
		if conn, err = w.network.DialContext(ctx, network, net.JoinHostPort(i.ip, port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// identity issues a certificate that outlives any test, even one that lets
// months pass.
func (w *World) identity(namespace, account string) (meshtls.Source, error) {
	id, err := meshtls.NewID(trustDomain, namespace, account)
	if err != nil {
		return nil, err
	}
	cert := w.ca.Issue(w.tb, tlstest.Leaf{URIs: []string{id.String()}, NotAfter: time.Now().AddDate(9, 0, 0)})
	identity, err := meshtls.NewIdentity(cert, []*x509.Certificate{w.ca.Certificate})
	if err != nil {
		return nil, err
	}
	return meshtls.NewStatic(identity), nil
}

// process is who joins the mesh.
type process struct {
	name, namespace, account, address string
	labels                            map[string]string
	identity                          meshtls.Source
	serves                            bool
}

// join starts the mesh of a process.
func (w *World) join(p *process) (*member, error) {
	labels := make(map[string]any, len(p.labels))
	for k, v := range p.labels {
		labels[k] = v
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
			ID: "sidecar~" + p.address + "~" + p.name + "~" + p.namespace + serviceSuffix,
			Metadata: map[string]any{
				"NAMESPACE": p.namespace, "SERVICE_ACCOUNT": p.account, "LABELS": labels, "GENERATOR": "grpc",
			},
		},
		ServerListenerTemplate: "xds.istio.io/grpc/lds/inbound/%s",
	}
	m := &member{name: p.name, serves: p.serves}
	var err error
	m.mesh, err = mesh.New(context.Background(),
		mesh.WithBootstrap(config),
		mesh.WithIdentity("default", p.identity),
		mesh.WithIdentity("ROOTCA", p.identity),
		mesh.WithHooks(w.hooks(m)),
		mesh.WithLogger(w.logger.With("workload", p.name)),
		mesh.Network{Dial: w.network.DialContext},
		mesh.WithOutboundPolicy(mesh.RegistryOnly),
	)
	if err != nil {
		return nil, err
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

// splitName splits "NAME.NAMESPACE", which may have the suffix of Kubernetes.
func splitName(full string) (name, namespace string, err error) {
	name, namespace, ok := strings.Cut(strings.TrimSuffix(full, serviceSuffix), ".")
	if !ok || name == "" || namespace == "" || strings.Contains(namespace, ".") {
		return "", "", errors.New(`the name is not "NAME.NAMESPACE", such as "payment.shop"`)
	}
	for _, label := range []string{name, namespace} {
		if !dnsLabel.MatchString(label) {
			return "", "", fmt.Errorf("%q is not a name: use lower case letters, digits and '-', at most 63", label)
		}
	}
	return name, namespace, nil
}

// dnsLabel is what Kubernetes takes as the name of a service or a namespace.
var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

type logWriter struct{ tb TB }

var _ io.Writer = logWriter{}

func (l logWriter) Write(p []byte) (int, error) {
	l.tb.Logf("%s", strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}
