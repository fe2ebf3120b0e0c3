package istiod

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/mesh"
)

var binary = flag.String("istiod", "", "`PATH` of pilot-discovery; its tests are skipped without")

// world is an istiod with its files and its authority.
type world struct {
	t      *testing.T
	dir    string
	ca     *tlstest.CA
	kube   string
	istiod *istiod
	// xds is where istiod serves, also after it was started once more.
	xds string
}

func newWorld(t *testing.T, yaml string) *world {
	t.Helper()
	if *binary == "" {
		t.Skip("needs -args -istiod PATH; the package's documentation says how to get it")
	}
	w := &world{t: t, dir: t.TempDir(), ca: tlstest.NewCA(t), kube: kube(t), xds: "127.0.0.1:0"}
	certificate, key := w.ca.PEM(t)
	w.write("kubeconfig.yaml", `apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "`+w.kube+`"}}]
contexts: [{name: test, context: {cluster: test, user: test}}]
current-context: test
users: [{name: test, user: {}}]
`)
	w.write("mesh.yaml", "rootNamespace: istio-system\ntrustDomain: cluster.local\ndefaultConfig: {discoveryAddress: \"127.0.0.1:15012\"}\n")
	w.write("ca/ca-cert.pem", string(certificate))
	w.write("ca/ca-key.pem", string(key))
	w.write("ca/root-cert.pem", string(certificate))
	w.write("ca/cert-chain.pem", string(certificate))
	w.write("conf/mesh.yaml", yaml)
	w.start()
	return w
}

// write replaces a file as editors do.
func (w *world) write(name, data string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte(data), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		w.t.Fatal(err)
	}
}

// apply changes the configuration; it is in force when a call shows it.
func (w *world) apply(yaml string) {
	w.t.Helper()
	w.write("conf/mesh.yaml", yaml)
}

// istiod is a process of it.
type istiod struct {
	command *exec.Cmd
	// Where it serves.
	http, monitoring string

	mu  sync.Mutex
	log strings.Builder // guarded by mu
	// copied is closed when the process has said all.
	copied chan struct{}
}

var addresses = regexp.MustCompile(`starting (secure gRPC discovery service|HTTP service|monitoring server|Istiod monitoring|gRPC discovery service) at (127\.0\.0\.1:\d+)`)

func (w *world) start() {
	w.t.Helper()
	path, err := filepath.Abs(*binary)
	if err != nil {
		w.t.Fatal(err)
	}
	monitoring := freeAddress(w.t)
	s := &istiod{monitoring: monitoring, copied: make(chan struct{})}
	s.command = exec.Command(path, "discovery", "--registries=Kubernetes", "--kubeconfig="+filepath.Join(w.dir, "kubeconfig.yaml"),
		"--configDir="+filepath.Join(w.dir, "conf"), "--meshConfig="+filepath.Join(w.dir, "mesh.yaml"), "--networksConfig="+filepath.Join(w.dir, "none"),
		"--grpcAddr=127.0.0.1:0", "--secureGRPCAddr="+w.xds, "--httpAddr=127.0.0.1:0", "--httpsAddr=",
		"--monitoringAddr="+monitoring, "--ctrlz_port=0", "--ctrlz_address=127.0.0.1", "--shutdownDuration=1s")
	s.command.Dir = w.t.TempDir() // where it looks for files of its own
	s.command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.command.Dir, "POD_NAME=istiod", "POD_NAMESPACE=istio-system",
		"CLUSTER_ID=Kubernetes", "ROOT_CA_DIR=" + filepath.Join(w.dir, "ca"), "PILOT_ENABLE_GATEWAY_API=false", "PILOT_ENABLE_AMBIENT=false",
		"VALIDATION_WEBHOOK_CONFIG_NAME=", "INJECTION_WEBHOOK_CONFIG_NAME=", "PILOT_DEBOUNCE_AFTER=10ms"}
	reader, writer := io.Pipe()
	s.command.Stdout, s.command.Stderr = writer, writer
	if err := s.command.Start(); err != nil {
		w.t.Fatal(err)
	}
	found := make(chan [2]string, 8)
	go func() { // ends with the process's output
		defer close(s.copied)
		lines := bufio.NewScanner(reader)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			s.mu.Lock()
			s.log.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
			if m := addresses.FindStringSubmatch(lines.Text()); m != nil {
				select {
				case found <- [2]string{m[1], m[2]}:
				default:
				}
			}
		}
		_, _ = io.Copy(io.Discard, reader)
	}()
	w.istiod = s
	ended := make(chan struct{})
	go func() { // ends with the process
		_ = s.command.Wait() // the test ends it
		_ = writer.Close()
		close(ended)
	}()
	w.t.Cleanup(func() {
		_ = s.command.Process.Signal(syscall.SIGKILL) // it may have ended
		<-ended
		<-s.copied
		if w.t.Failed() {
			w.t.Logf("the log of istiod:\n%s", s.said())
		}
	})
	limit := time.After(time.Minute)
	for w.xds == "127.0.0.1:0" || s.http == "" {
		select {
		case a := <-found:
			switch a[0] {
			case "secure gRPC discovery service":
				w.xds = a[1]
			case "HTTP service":
				s.http = a[1]
			}
		case <-ended:
			w.t.Fatalf("istiod has ended:\n%s", s.said())
		case <-limit:
			w.t.Fatalf("istiod does not say where it serves:\n%s", s.said())
		}
	}
	until(w.t, "istiod is ready", func() bool {
		response, err := http.Get("http://" + s.http + "/ready")
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

func (s *istiod) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// kill ends the process as a crash does.
func (w *world) kill() {
	w.t.Helper()
	if err := w.istiod.command.Process.Kill(); err != nil {
		w.t.Fatal(err)
	}
	<-w.istiod.copied
}

// debug returns one of istiod's pages about itself.
func (w *world) debug(page string) string { return w.page("debug/" + page) }

func (w *world) page(path string) string {
	w.t.Helper()
	response, err := http.Get("http://" + w.istiod.monitoring + "/" + path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		w.t.Fatalf("istiod's page %s: %s, %v", path, response.Status, err)
	}
	return string(body)
}

// expectNoRejection fails the test if a workload has rejected what istiod sent.
func (w *world) expectNoRejection() {
	w.t.Helper()
	metrics := w.page("metrics")
	if !strings.Contains(metrics, "pilot_xds_pushes") {
		w.t.Errorf("istiod tells of no push:\n%s", metrics)
	}
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "pilot_total_xds_rejects") && !strings.HasSuffix(strings.TrimSpace(line), " 0") {
			w.t.Errorf("a workload has rejected: %s", line)
		}
	}
	for line := range strings.Lines(w.istiod.said()) {
		if strings.Contains(line, "ACK ERROR") {
			w.t.Error(line)
		}
	}
}

// workload is a mesh with an identity from istiod, at an address. It is closed with
// the test, or before by who wants.
func (w *world) workload(account, ip, protocol string, options ...mesh.Option) *mesh.Mesh {
	w.t.Helper()
	dir := w.t.TempDir()
	root, _ := w.ca.PEM(w.t)
	tokenFile, rootFile := filepath.Join(dir, "token"), filepath.Join(dir, "root.pem")
	for path, data := range map[string][]byte{tokenFile: []byte(token("shop", account)), rootFile: root} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	data, err := json.Marshal(map[string]any{
		"xds_servers": []any{map[string]any{
			"server_uri": w.xds, "server_features": []string{"xds_v3"}, "api_type": protocol,
			"channel_creds": []any{map[string]any{"type": "tls", "config": map[string]any{
				"ca_certificate_file": rootFile, "certificate_provider_instance": "default"}}},
			"call_creds": []any{map[string]any{"type": "jwt_token_file", "config": map[string]any{"jwt_token_file": tokenFile}}},
		}},
		"node": map[string]any{
			"id": fmt.Sprintf("sidecar~%s~%s.shop~shop.svc.cluster.local", ip, account),
			"metadata": map[string]any{"GENERATOR": "grpc", "NAMESPACE": "shop", "SERVICE_ACCOUNT": account,
				"CLUSTER_ID": "Kubernetes", "LABELS": map[string]any{"app": account}},
		},
		"certificate_providers": map[string]any{"default": map[string]any{"plugin_name": "istio_ca", "config": map[string]any{
			"server_uri": w.xds, "token_file": tokenFile, "root_file": rootFile, "cluster_id": "Kubernetes"}}},
		"server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	config, err := bootstrap.Parse(data)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	m, err := mesh.New(ctx, append(options, mesh.WithBootstrap(config))...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if w.t.Failed() {
			state, err := m.ClientStatusJSON()
			w.t.Logf("what %s at %s has (%v):\n%s", account, ip, err, state)
		}
		if err := m.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return m
}
