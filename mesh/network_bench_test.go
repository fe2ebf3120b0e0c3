package mesh_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/internal/cputime"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
)

// BenchmarkNetwork is a call over loopback, client and server in this process,
// with mutual TLS and an answer of one kilobyte: through the mesh with its
// control plane, beside net/http and grpc-go with the same TLS and nothing else.
// cpu-ns/op is that of both sides. docs/performance.md says how to read it.
func BenchmarkNetwork(b *testing.B) {
	cases := []struct {
		name string
		call func(*testing.B) func() error
	}{
		{"http1/plain", func(b *testing.B) func() error { return plainHTTP(b, false) }},
		{"http1/mesh", func(b *testing.B) func() error { return newBenchWorld(b).http("80") }},
		{"http1/mesh and telemetry", func(b *testing.B) func() error { return newBenchWorld(b, sdk()...).http("80") }},
		{"http2/plain", func(b *testing.B) func() error { return plainHTTP(b, true) }},
		{"http2/mesh", func(b *testing.B) func() error { return newBenchWorld(b).http("82") }},
		{"http2/mesh and telemetry", func(b *testing.B) func() error { return newBenchWorld(b, sdk()...).http("82") }},
		{"grpc/plain", plainGRPC},
		{"grpc/mesh", func(b *testing.B) func() error { return newBenchWorld(b).grpc() }},
		{"grpc/mesh and telemetry", func(b *testing.B) func() error { return newBenchWorld(b, sdk()...).grpc() }},
	}
	for _, c := range cases {
		for _, callers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/%d", c.name, callers), func(b *testing.B) {
				concurrently(b, callers, c.call(b))
			})
		}
	}
}

// sdk reports metrics to an SDK, and spans of which none is sampled.
func sdk() []mesh.Option {
	return []mesh.Option{
		mesh.WithMeterProvider(metric.NewMeterProvider(metric.WithReader(metric.NewManualReader()))),
		mesh.WithTracerProvider(trace.NewTracerProvider(trace.WithSampler(trace.NeverSample()))),
	}
}

// concurrently makes the benchmark's calls from several goroutines, after those
// that open the connections.
func concurrently(b *testing.B, callers int, call func() error) {
	each := func(n int64) {
		var next atomic.Int64
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for next.Add(1) <= n {
					if err := call(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	each(int64(10 * callers))
	b.ReportAllocs()
	b.ResetTimer()
	start, ok := cputime.Used()
	each(int64(b.N))
	end, _ := cputime.Used()
	b.StopTimer()
	if ok {
		b.ReportMetric(float64(end-start)/float64(b.N), "cpu-ns/op")
	}
}

var kilobyte = make([]byte, 1<<10)

func answer(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(kilobyte) }

// echo answers with a kilobyte.
type echo struct {
	grpc_testing.UnimplementedTestServiceServer
}

var kilobyteResponse = &grpc_testing.SimpleResponse{Payload: &grpc_testing.Payload{Body: kilobyte}}

func (echo) UnaryCall(context.Context, *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return kilobyteResponse, nil
}

func httpCall(client http.RoundTripper, url string) func() error {
	return func() error {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := client.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return nil
	}
}

func grpcCall(b *testing.B, target string, options ...grpc.DialOption) func() error {
	b.Helper()
	cc, err := grpc.NewClient(target, options...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cc.Close() })
	client := grpc_testing.NewTestServiceClient(cc)
	return func() error {
		_, err := client.UnaryCall(context.Background(), &grpc_testing.SimpleRequest{})
		return err
	}
}

// serveBench serves until the benchmark has ended.
func serveBench(b *testing.B, serve func() error, stop func()) {
	b.Helper()
	var wg sync.WaitGroup
	wg.Go(func() { _ = serve() })
	b.Cleanup(func() {
		stop()
		wg.Wait()
	})
}

// benchWorld is a customer whose payment answers without ado.
type benchWorld struct {
	b        *testing.B
	world    *worldtest.World
	customer *mesh.Mesh
	payment  *worldtest.Payment
}

func newBenchWorld(b *testing.B, options ...mesh.Option) *benchWorld {
	b.Helper()
	w := worldtest.New(b, "")
	payment := w.Join("shop", "payment", map[string]string{"app": "payment"}, options...)
	ctx, cancel := context.WithTimeout(b.Context(), 20*time.Second)
	defer cancel()
	var addresses []string
	for range 2 {
		ln, err := payment.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		addresses = append(addresses, ln.Addr().String())
		if len(addresses) == 1 {
			server := &http.Server{Handler: payment.Handler(http.HandlerFunc(answer)), ReadHeaderTimeout: 10 * time.Second}
			serveBench(b, func() error { return server.Serve(ln) }, func() { _ = server.Close() })
			continue
		}
		server := grpc.NewServer(payment.ServerOptions()...)
		grpc_testing.RegisterTestServiceServer(server, echo{})
		serveBench(b, func() error { return server.Serve(ln) }, server.Stop)
	}
	known := &worldtest.Payment{Instance: "v1-a", HTTP: addresses[0], GRPC: addresses[1]}
	w.Apply(services(known) + loadRoutes)
	return &benchWorld{b: b, world: w, customer: w.Join("shop", "customer", nil, options...), payment: known}
}

func (w *benchWorld) http(port string) func() error {
	return httpCall(w.customer.Transport(), "http://"+paymentHost+":"+port+"/")
}

func (w *benchWorld) grpc() func() error {
	return grpcCall(w.b, "mesh:///"+paymentHost+":9090", w.customer.DialOptions()...)
}

// mutualTLS is the configuration of a server and of its client, as strict as the
// mesh's.
func mutualTLS(b *testing.B) (server, client *tls.Config) {
	b.Helper()
	ca := tlstest.NewCA(b)
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate)
	leaf := tlstest.Leaf{DNSNames: []string{"localhost"}}
	server = &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{ca.Issue(b, leaf)}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert,
	}
	client = &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{ca.Issue(b, leaf)}, RootCAs: roots, ServerName: "localhost",
	}
	return server, client
}

func listenBench(b *testing.B) net.Listener {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	return ln
}

func plainHTTP(b *testing.B, http2 bool) func() error {
	b.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	serverTLS, clientTLS := mutualTLS(b)
	ln := listenBench(b)
	server := &http.Server{
		Handler: http.HandlerFunc(answer), TLSConfig: serverTLS, Protocols: protocols, ReadHeaderTimeout: 10 * time.Second,
	}
	serveBench(b, func() error { return server.ServeTLS(ln, "", "") }, func() { _ = server.Close() })
	client := &http.Transport{TLSClientConfig: clientTLS, Protocols: protocols, MaxIdleConnsPerHost: 100}
	b.Cleanup(client.CloseIdleConnections)
	return httpCall(client, "https://"+ln.Addr().String()+"/")
}

func plainGRPC(b *testing.B) func() error {
	b.Helper()
	serverTLS, clientTLS := mutualTLS(b)
	ln := listenBench(b)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(serverTLS)))
	grpc_testing.RegisterTestServiceServer(server, echo{})
	serveBench(b, func() error { return server.Serve(ln) }, server.Stop)
	return grpcCall(b, "passthrough:///"+ln.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(clientTLS)))
}
