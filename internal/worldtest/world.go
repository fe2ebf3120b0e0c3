// Package worldtest builds a small mesh for tests: a control plane with its CA,
// workloads with identities from it, payments that answer over HTTP and gRPC,
// all on loopback.
package worldtest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/controlplane"
	"github.com/inboardmesh/inboard/controlplane/ca"
	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/discovery/xds"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/mesh"
)

// World is a control plane and the workloads that were started in it. It is
// torn down with the test.
type World struct {
	tb     testing.TB
	dir    string
	logger *slog.Logger
	// CA is the mesh's certificate authority.
	CA *ca.CA
	// API is the xDS variant that workloads ask for: bootstrap.APIDelta by
	// default.
	API bootstrap.APIType
	// CertificateLifetime is what workloads ask the CA for, such as "2s"; ""
	// leaves it to the default.
	CertificateLifetime string

	arrivals arrivals

	files  []istio.File
	server *controlplane.Server
	addr   string
	stop   func()
}

// New starts a control plane that serves the given YAML.
func New(tb testing.TB, yaml string) *World {
	tb.Helper()
	return newWorld(tb, yaml, ca.Config{}, nil)
}

// NewSignedBy is [New] with a CA that tests can have any certificate from.
func NewSignedBy(tb testing.TB, root *tlstest.CA, yaml string) *World {
	tb.Helper()
	return NewLogged(tb, root, yaml, nil)
}

// NewLogged is [NewSignedBy] with a log of the test's own; nil is the test's output,
// from warnings on.
func NewLogged(tb testing.TB, root *tlstest.CA, yaml string, log slog.Handler) *World {
	tb.Helper()
	dir := tb.TempDir()
	certificate, key := root.PEM(tb)
	for name, data := range map[string][]byte{"ca-cert.pem": certificate, "root-cert.pem": certificate, "ca-key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return newWorld(tb, yaml, ca.Config{Dir: dir}, log)
}

func newWorld(tb testing.TB, yaml string, config ca.Config, log slog.Handler) *World {
	tb.Helper()
	authority, err := ca.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	w := &World{tb: tb, dir: tb.TempDir(), CA: authority, API: bootstrap.APIDelta, files: files(yaml)}
	if log == nil {
		log = slog.NewTextHandler(logWriter{tb}, &slog.HandlerOptions{Level: slog.LevelWarn})
	}
	w.logger = slog.New(log)
	if err := os.WriteFile(filepath.Join(w.dir, "root.pem"), authority.RootsPEM(), 0o600); err != nil {
		tb.Fatal(err)
	}
	w.StartControlPlane()
	tb.Cleanup(func() { w.StopControlPlane() })
	return w
}

func files(yaml string) []istio.File {
	return []istio.File{{Name: "mesh.yaml", Data: []byte(yaml)}}
}

// StartControlPlane starts the control plane, on the same address each time.
func (w *World) StartControlPlane() {
	w.tb.Helper()
	server, err := controlplane.New(controlplane.Config{Files: w.files, CA: w.CA, Check: xds.Check, Logger: w.logger})
	if err != nil {
		w.tb.Fatal(err)
	}
	address := w.addr
	if address == "" {
		address = "127.0.0.1:0"
	}
	ln := w.listen(address)
	w.server, w.addr = server, ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, controlplane.Listeners{Secure: ln}) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.tb.Errorf("control plane: %v", err)
		}
		if err := server.Close(); err != nil {
			w.tb.Errorf("control plane: close: %v", err)
		}
	}
}

// listen retries while the address of a stopped control plane is being freed.
func (w *World) listen(address string) net.Listener {
	w.tb.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
		if err == nil {
			return ln
		}
		if time.Now().After(deadline) {
			w.tb.Fatal(err)
		}
	}
}

// StopControlPlane stops the control plane; workloads go on.
func (w *World) StopControlPlane() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

// Apply replaces the configuration.
func (w *World) Apply(yaml string) {
	w.tb.Helper()
	if err := w.TryApply(yaml); err != nil {
		w.tb.Fatal(err)
	}
}

// TryApply replaces the configuration, or says why not. It may be called from
// any goroutine.
func (w *World) TryApply(yaml string) error {
	w.files = files(yaml)
	problems := w.server.Update(w.files)
	if len(problems) == 0 {
		return nil
	}
	lines := make([]string, 0, len(problems))
	for _, p := range problems {
		lines = append(lines, p.String())
	}
	return fmt.Errorf("configuration refused:\n%s", strings.Join(lines, "\n"))
}

// Status is what the control plane says of itself. It must run.
func (w *World) Status() controlplane.Status { return w.server.Status() }

// StatusHandler is how the control plane tells it over HTTP. It must run.
func (w *World) StatusHandler() http.Handler { return w.server.StatusHandler() }

// Bootstrap is the bootstrap of a workload.
func (w *World) Bootstrap(namespace, serviceAccount string, labels map[string]string) *bootstrap.Config {
	w.tb.Helper()
	token, err := w.CA.IssueToken(namespace, serviceAccount, time.Hour)
	if err != nil {
		w.tb.Fatal(err)
	}
	tokenFile := filepath.Join(w.dir, namespace+"."+serviceAccount+".token")
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		w.tb.Fatal(err)
	}
	meta := map[string]any{"NAMESPACE": namespace, "SERVICE_ACCOUNT": serviceAccount, "GENERATOR": "grpc"}
	if len(labels) > 0 {
		l := map[string]any{}
		for k, v := range labels {
			l[k] = v
		}
		meta["LABELS"] = l
	}
	root := filepath.Join(w.dir, "root.pem")
	lifetime := ""
	if w.CertificateLifetime != "" {
		lifetime = fmt.Sprintf(`,"certificate_lifetime":%q`, w.CertificateLifetime)
	}
	return &bootstrap.Config{
		Servers: []bootstrap.Server{{
			URI:          w.addr,
			ChannelCreds: bootstrap.Credentials{Type: "tls", Config: fmt.Appendf(nil, `{"ca_certificate_file":%q}`, root)},
			CallCreds:    []bootstrap.Credentials{{Type: "jwt_token_file", Config: fmt.Appendf(nil, `{"jwt_token_file":%q}`, tokenFile)}},
			API:          w.API,
		}},
		Node: bootstrap.Node{ID: "sidecar~127.0.0.1~" + serviceAccount + "." + namespace + "~" + namespace + ".svc.cluster.local", Metadata: meta},
		CertificateProviders: map[string]bootstrap.CertificateProvider{
			"default": {Plugin: "istio_ca", Config: fmt.Appendf(nil,
				`{"server_uri":%q,"token_file":%q,"root_file":%q%s}`, w.addr, tokenFile, root, lifetime)},
		},
		ServerListenerTemplate: "xds.istio.io/grpc/lds/inbound/%s",
	}
}

// BootstrapJSON is the bootstrap of a workload in another process.
func (w *World) BootstrapJSON(namespace, serviceAccount string, labels map[string]string) string {
	w.tb.Helper()
	c := w.Bootstrap(namespace, serviceAccount, labels)
	type object = map[string]any
	credentials := func(list ...bootstrap.Credentials) (all []object) {
		for _, one := range list {
			all = append(all, object{"type": one.Type, "config": one.Config})
		}
		return all
	}
	providers := make(object, len(c.CertificateProviders))
	for name, provider := range c.CertificateProviders {
		providers[name] = object{"plugin_name": provider.Plugin, "config": provider.Config}
	}
	b, err := json.Marshal(object{
		"xds_servers": []object{{
			"server_uri":      c.Servers[0].URI,
			"channel_creds":   credentials(c.Servers[0].ChannelCreds),
			"call_creds":      credentials(c.Servers[0].CallCreds...),
			"server_features": []string{"xds_v3"},
		}},
		"node":                                   object{"id": c.Node.ID, "metadata": c.Node.Metadata},
		"certificate_providers":                  providers,
		"server_listener_resource_name_template": c.ServerListenerTemplate,
	})
	if err != nil {
		w.tb.Fatal(err)
	}
	return string(b)
}

// Join starts the mesh of a workload. It is closed with the test.
func (w *World) Join(namespace, serviceAccount string, labels map[string]string, options ...mesh.Option) *mesh.Mesh {
	w.tb.Helper()
	m, _ := w.join(namespace, serviceAccount, labels, options...)
	return m
}

// join is Join, and how to close the mesh before.
func (w *World) join(namespace, serviceAccount string, labels map[string]string, options ...mesh.Option) (m *mesh.Mesh, leave func()) {
	w.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	options = append([]mesh.Option{
		mesh.WithBootstrap(w.Bootstrap(namespace, serviceAccount, labels)),
		mesh.WithLogger(w.logger),
	}, options...)
	m, err := mesh.New(ctx, options...)
	if err != nil {
		w.tb.Fatal(err)
	}
	return m, w.cleanup(func() {
		if err := m.Close(); err != nil {
			w.tb.Errorf("close mesh of %s: %v", serviceAccount, err)
		}
	})
}

// cleanup does something when the test ends, or before, and holds on to nothing
// afterwards.
func (w *World) cleanup(f func()) (now func()) {
	var mu sync.Mutex
	now = func() {
		mu.Lock()
		do := f
		f = nil
		mu.Unlock()
		if do != nil {
			do()
		}
	}
	w.tb.Cleanup(now)
	return now
}

type logWriter struct{ tb testing.TB }

func (l logWriter) Write(p []byte) (int, error) {
	l.tb.Logf("%s", strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}
