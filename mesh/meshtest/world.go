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

	"github.com/inboardmesh/inboard/controlplane"
	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/discovery/xds"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/observe"
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

	warned map[string]bool // guarded by changing; the warnings that were logged
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
		warned:    make(map[string]bool),
	}
	w.calls.world, w.calls.open = w, make(map[*observe.Call]*Call)
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
// configuration is refused, use [World.Try]. Warnings are logged, see
// [World.Warnings].
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
	return w.try(func() error {
		w.tb.Helper()
		return w.apply(files)
	})
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
	w.tb.Helper()
	problems := w.server.Update(append([]istio.File{services}, files...))
	if len(problems) == 0 {
		w.warn()
		return nil
	}
	return &controlplane.InvalidConfigError{Problems: problems}
}

// Warnings are what is allowed in the configuration and hardly what was meant, as
// "inboard validate" prints it: weights that do not sum up to 100, a backend that is
// not there. Each has file, line and field, and is in the test's log already, once. A test of its configuration wants none. What [World.Push] serves has none. The
// caller owns the result.
func (w *World) Warnings() []string { return w.server.Status().Config.Warnings }

// warn logs the warnings that are new.
func (w *World) warn() {
	w.tb.Helper()
	for _, line := range w.Warnings() {
		if !w.warned[line] {
			w.warned[line] = true
			w.tb.Logf("meshtest: %s", line)
		}
	}
}

// DialContext connects to a service from outside the mesh, without an identity: to the
// first instance of it that runs. It is for an [net/http.Transport], or for
// grpc.WithContextDialer, in tests of who may call. address is "payment.shop:80". The
// caller closes the connection.
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
