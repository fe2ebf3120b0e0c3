package main

import (
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
)

// benchCase is one way for a customer to call a payment.
type benchCase struct {
	name string
	// baseline is the case that ratios are to; "" for a baseline itself.
	baseline string
	// client and server are what the two processes are made of.
	client, server kind
	// proxy is the program of a pair of proxies between them; "" is none.
	proxy string
	// policy is what the control plane has of the service; "" is [everything].
	policy string
	// above is the case of which this one is a layer more; "" for one that is none.
	above string
	// startOnly is a case of which nothing but the first call is measured.
	startOnly bool
}

// kind is what a process is made of, beside its application.
type kind string

func (k kind) isGRPC() bool { return strings.HasPrefix(string(k), "grpc") }

const (
	httpPlain kind = "http-plain" // plaintext, behind a proxy
	httpTLS   kind = "http-mtls"
	http2TLS  kind = "http2-mtls"
	httpOTel  kind = "http-otel"  // OpenTelemetry's instrumentation, 1 % of the traces
	httpStack kind = "http-stack" // the same with a retrier and a breaker
	httpMesh  kind = "http-mesh"
	http2Mesh kind = "http2-mesh"
	grpcPlain kind = "grpc-plain"
	grpcTLS   kind = "grpc-mtls"
	grpcOTel  kind = "grpc-otel"
	grpcXDS   kind = "grpc-xds" // grpc-go's own
	grpcMesh  kind = "grpc-mesh"
	metricsOn      = "-metrics" // suffixes of mesh kinds
	traces1        = "-traces1"
	traces100      = "-traces100"
	fromFiles      = "-files" // certificates from files and xDS in plaintext, as grpc-go's own has them here
)

const (
	baseHTTP = "net/http, mTLS"
	baseGRPC = "grpc-go, mTLS"
)

var cases = []benchCase{
	{name: baseHTTP, client: httpTLS, server: httpTLS},
	{name: "Inboard, telemetry off", baseline: baseHTTP, client: httpMesh, server: httpMesh},
	{name: "Inboard, metrics", baseline: baseHTTP, client: httpMesh + metricsOn, server: httpMesh + metricsOn},
	{name: "Inboard, metrics, traces 1 %", baseline: baseHTTP, client: httpMesh + traces1, server: httpMesh + traces1},
	{name: "Inboard, metrics, traces 100 %", baseline: baseHTTP, client: httpMesh + traces100, server: httpMesh + traces100},
	{name: "net/http, mTLS, otelhttp 1 %", baseline: baseHTTP, client: httpOTel, server: httpOTel},
	{name: "net/http, mTLS, otelhttp 1 %, retrier, breaker", baseline: baseHTTP, client: httpStack, server: httpOTel},
	{name: "net/http, plaintext, two haproxy with mTLS", baseline: baseHTTP, client: httpPlain, server: httpPlain, proxy: "haproxy"},
	{name: "net/http, plaintext, two nginx with mTLS", baseline: baseHTTP, client: httpPlain, server: httpPlain, proxy: "nginx"},
	{name: "net/http, HTTP/2, mTLS", baseline: baseHTTP, client: http2TLS, server: http2TLS},
	{name: "Inboard, HTTP/2, metrics, traces 1 %", baseline: baseHTTP, client: http2Mesh + traces1, server: http2Mesh + traces1},

	{name: baseGRPC, client: grpcTLS, server: grpcTLS},
	{name: "Inboard, gRPC, telemetry off", baseline: baseGRPC, client: grpcMesh, server: grpcMesh},
	{name: "Inboard, gRPC, metrics, traces 1 %", baseline: baseGRPC, client: grpcMesh + traces1, server: grpcMesh + traces1},
	{name: "grpc-go's xDS, mTLS", baseline: baseGRPC, client: grpcXDS, server: grpcTLS},
	{name: "Inboard, gRPC, files and plaintext xDS", baseline: baseGRPC, client: grpcMesh + fromFiles, server: grpcTLS, startOnly: true},
	{name: "grpc-go, mTLS, otelgrpc 1 %", baseline: baseGRPC, client: grpcOTel, server: grpcOTel},
	{name: "grpc-go, plaintext, two haproxy with mTLS", baseline: baseGRPC, client: grpcPlain, server: grpcPlain, proxy: "haproxy"},
	{name: "grpc-go, plaintext, two nginx with mTLS", baseline: baseGRPC, client: grpcPlain, server: grpcPlain, proxy: "nginx"},
}

// all are the cases that the settings are about.
func (s *settings) all() []benchCase {
	if s.layers {
		return layerCases()
	}
	return cases
}

func chosen(s *settings) []*benchCase {
	var list []*benchCase
	all := s.all()
	for i := range all {
		c := &all[i]
		if s.starts > 0 && c.proxy != "" || s.starts == 0 && c.startOnly {
			continue // proxies do not start with the application
		}
		if c.baseline == "" || s.cases.MatchString(c.name) {
			list = append(list, c)
		}
	}
	return list
}

func shuffled(list []*benchCase) []*benchCase {
	list = slices.Clone(list)
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// missing says why a case cannot run here, "" if it can.
func (c *benchCase) missing() string {
	if c.proxy == "" {
		return ""
	}
	if _, err := exec.LookPath(c.proxy); err != nil {
		return c.proxy + " is not installed (apt-get install " + c.proxy + ")"
	}
	return ""
}
