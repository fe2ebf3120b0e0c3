package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
)

// deployment is what the program must agree with.
type deployment struct {
	Kind string `yaml:"kind"`
	Spec struct {
		Template struct {
			Spec struct {
				Grace      int `yaml:"terminationGracePeriodSeconds"`
				Containers []struct {
					Args  []string `yaml:"args"`
					Ports []struct {
						Name string `yaml:"name"`
						Port int    `yaml:"containerPort"`
					} `yaml:"ports"`
					Readiness probe `yaml:"readinessProbe"`
					Liveness  probe `yaml:"livenessProbe"`
					Lifecycle struct {
						PreStop struct {
							Sleep struct {
								Seconds int `yaml:"seconds"`
							} `yaml:"sleep"`
						} `yaml:"preStop"`
					} `yaml:"lifecycle"`
				} `yaml:"containers"`
			} `yaml:"spec"`
		} `yaml:"template"`
	} `yaml:"spec"`
}

type probe struct {
	HTTPGet struct {
		Path string `yaml:"path"`
		Port string `yaml:"port"`
	} `yaml:"httpGet"`
}

// The manifest leaves the process the time that it may take, and asks it what it
// answers.
func TestTheManifestFitsTheProgram(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d deployment
	if err := yaml.NewDecoder(bytes.NewReader(file)).Decode(&d); err != nil || d.Kind != "Deployment" {
		t.Fatal(d.Kind, err)
	}
	pod := d.Spec.Template.Spec
	c := pod.Containers[0]
	o, err := parse(c.Args)
	if err != nil {
		t.Fatal(err)
	}
	const little = 5 * time.Second
	needed := time.Duration(c.Lifecycle.PreStop.Sleep.Seconds)*time.Second + o.grace + little
	if c.Lifecycle.PreStop.Sleep.Seconds == 0 || time.Duration(pod.Grace)*time.Second < needed {
		t.Errorf("the pod has %d s, the process may take %v", pod.Grace, needed)
	}
	ports := map[string]string{}
	for _, p := range c.Ports {
		ports[p.Name] = fmt.Sprintf(":%d", p.Port)
	}
	if ports["http"] != o.http || ports["grpc"] != o.grpc || ports["probes"] != o.probes {
		t.Errorf("ports %v, options %+v", ports, o)
	}
	if r, l := c.Readiness.HTTPGet, c.Liveness.HTTPGet; r.Path != "/readyz" || l.Path != "/healthz" || r.Port != "probes" || l.Port != "probes" {
		t.Errorf("probes %+v, %+v", r, l)
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	if _, err := parse([]string{"x"}); err == nil || err.Error() != `unexpected argument "x"` {
		t.Errorf("error %v", err)
	}
}

// pod is a process that runs, and the kubelet's hand on it.
type pod struct {
	HTTP   string `json:"http"`
	GRPC   string `json:"grpc"`
	Probes string `json:"probes"`

	terminate context.CancelFunc
	ended     chan error
	out       *json.Decoder
}

func startPod(t *testing.T, args ...string) *pod {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	p := &pod{terminate: cancel, ended: make(chan error, 1), out: json.NewDecoder(r)}
	var running sync.WaitGroup
	running.Go(func() {
		p.ended <- run(ctx, append([]string{"--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--probes", "127.0.0.1:0"}, args...), w)
		_ = w.Close()
	})
	t.Cleanup(func() {
		cancel()
		_, _ = io.Copy(io.Discard, r)
		running.Wait()
	})
	if err := p.out.Decode(p); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pod) probe(t *testing.T, path string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.Probes+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// endpoints are what the control plane makes of pods.
func endpoints(pods ...*pod) string {
	var b strings.Builder
	b.WriteString(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {number: 80, name: http, protocol: HTTP}
  - {number: 9090, name: grpc, protocol: GRPC}
  workloadSelector: {labels: {app: payment}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  http:
  - route: [{destination: {host: payment.shop.svc.cluster.local}}]
    retries: {attempts: 0}
`)
	for i, p := range pods {
		port := func(address string) string { return address[strings.LastIndex(address, ":")+1:] }
		fmt.Fprintf(&b, `---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: payment-%d, namespace: shop}
spec:
  address: 127.0.0.1
  ports: {http: %s, grpc: %s}
  labels: {app: payment}
  serviceAccount: payment
`, i, port(p.HTTP), port(p.GRPC))
	}
	return b.String()
}

// A pod ends while it is called, as Kubernetes ends it: callers hear of it only after
// the process has. Nothing is tried again, and no call fails.
func TestAPodEndsAndNoCallFails(t *testing.T) { //nolint:paralleltest // the bootstrap is in the environment
	w := worldtest.New(t, "")
	t.Setenv("GRPC_XDS_BOOTSTRAP_CONFIG", w.BootstrapJSON("shop", "payment", map[string]string{"app": "payment"}))
	first, second := startPod(t, "--listen", "1s"), startPod(t, "--listen", "1s")
	w.Apply(endpoints(first, second))
	customer := w.Join("shop", "customer", nil)
	client := customer.HTTPClient()
	conn, err := grpc.NewClient("mesh:///payment.shop.svc.cluster.local:9090", customer.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stub := grpc_health_v1.NewHealthClient(conn)
	content := strings.Repeat("7", 20_000) // comes back in part before it was sent whole
	post := func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://payment.shop.svc.cluster.local/", strings.NewReader(content))
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != content {
			return fmt.Errorf("status %d, %d bytes of %d: %w", resp.StatusCode, len(body), len(content), err)
		}
		return nil
	}
	check := func(ctx context.Context) error {
		_, err := stub.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		return err
	}
	var calls atomic.Int64
	var callers sync.WaitGroup
	done := make(chan struct{})
	for _, call := range []func(context.Context) error{post, check, post, check} {
		callers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				if err := call(ctx); err != nil {
					t.Errorf("call %d: %v", calls.Load(), err)
				}
				cancel()
				calls.Add(1)
			}
		})
	}
	more := func(n int64) {
		t.Helper()
		until := calls.Load() + n
		deadline := time.After(20 * time.Second)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for calls.Load() < until {
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatal("the calls stand still")
			}
		}
	}
	more(200)
	if status := first.probe(t, "/readyz"); status != http.StatusOK {
		t.Errorf("readiness %d", status)
	}

	first.terminate()
	for first.probe(t, "/readyz") != http.StatusServiceUnavailable {
		more(1)
	}
	if status := first.probe(t, "/healthz"); status != http.StatusOK {
		t.Errorf("a process that drains is not alive: %d", status)
	}
	more(200) // of which some go to the one that ends
	w.Apply(endpoints(second))
	var report mesh.DrainReport
	if err := first.out.Decode(&report); err != nil {
		t.Fatal(err)
	}
	if err := <-first.ended; err != nil && !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	more(200)
	close(done)
	callers.Wait()
	if report.Late == 0 || report.Finished < report.Late || report.Cut+report.ConnectionsCut+report.Refused != 0 {
		t.Errorf("%+v", report)
	}
	t.Logf("%d calls, %+v", calls.Load(), report)
}
