package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"text/template"
)

const (
	paymentHost = "payment.shop.svc.cluster.local"
	httpPort    = 8080
	grpcPort    = 9090
)

// endpoint is a payment as the configuration knows it.
type endpoint struct {
	Name, Version      string
	HTTPPort, GRPCPort string
}

// traffic rules are what the demo changes while it runs.
type rules struct {
	// V1 and V2 are the canary's weights; their sum is 100.
	V1, V2 int
	// AdaTo is the version that the user ada gets, "" for that of everybody.
	AdaTo string
}

// servicesYAML says what is there: one service, and the processes behind it.
var servicesYAML = template.Must(template.New("services.yaml").Parse(`# What is there: the service payment, and the processes behind it.
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payment, namespace: shop}
spec:
  hosts: [` + paymentHost + `]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {name: http, number: ` + strconv.Itoa(httpPort) + `, protocol: HTTP}
  - {name: grpc, number: ` + strconv.Itoa(grpcPort) + `, protocol: GRPC}
  workloadSelector:
    labels: {app: payment}
{{- range . }}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: payment-{{ .Name }}, namespace: shop}
spec:
  address: 127.0.0.1
  ports: {http: {{ .HTTPPort }}, grpc: {{ .GRPCPort }}}
  labels: {app: payment, version: {{ .Version }}}
  serviceAccount: payment
{{- end }}
`))

// trafficYAML says who gets which payment, and what happens when one fails. The
// same rules hold for HTTP and for gRPC.
var trafficYAML = template.Must(template.New("traffic.yaml").Parse(`# Who gets which payment, and what happens when one fails. The same rules hold
# for HTTP and for gRPC.
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: payment
  namespace: shop
  annotations:
    # Opens when 7 of 10 attempts fail, and looks again after 2 s.
    inboard.breaker: '{failureRatio: 0.7, minimumRequests: 20, window: 3s, openTime: 2s, halfOpenProbes: 3}'
spec:
  host: ` + paymentHost + `
  trafficPolicy:
    loadBalancer: {simple: LEAST_REQUEST}
    tls: {mode: ISTIO_MUTUAL}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [` + paymentHost + `]
  http:
{{- if .AdaTo }}
  - name: ada
    match:
    - headers: {x-user: {exact: ada}}
    route:
    - destination: {host: ` + paymentHost + `, subset: {{ .AdaTo }}}
{{- template "failures" }}
{{- end }}
  - name: canary
    route:
    - destination: {host: ` + paymentHost + `, subset: v1}
      weight: {{ .V1 }}
    - destination: {host: ` + paymentHost + `, subset: v2}
      weight: {{ .V2 }}
{{- template "failures" }}
{{ define "failures" }}
    timeout: 10s
    retries:
      attempts: 3
      perTryTimeout: 3s
      retryOn: reset,connect-failure,refused-stream,5xx,unavailable
{{- end -}}
`))

// securityYAML says that nobody speaks to anybody without mutual TLS.
const securityYAML = `# Nobody speaks to anybody without mutual TLS.
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec:
  mtls: {mode: STRICT}
`

// configDir is the directory that the control plane reads and watches.
type configDir string

func (d configDir) writeServices(endpoints []endpoint) error {
	return d.execute(servicesYAML, endpoints)
}

func (d configDir) writeTraffic(r rules) error { return d.execute(trafficYAML, r) }

func (d configDir) writeSecurity() error { return d.write("security.yaml", []byte(securityYAML)) }

func (d configDir) execute(t *template.Template, data any) error {
	var text bytes.Buffer
	if err := t.Execute(&text, data); err != nil {
		return err
	}
	return d.write(t.Name(), text.Bytes())
}

// write replaces a file at once, so that nobody reads a part of it.
func (d configDir) write(name string, text []byte) error {
	temporary := filepath.Join(string(d), "."+name)
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(string(d), name))
}
