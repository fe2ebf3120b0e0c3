// Kubernetes is a server that loses no request when its pod ends. It goes with
// deployment.yaml, which is next to it.
//
// Kubernetes ends a pod in this order. Two things begin at the same time, and neither
// waits for the other:
//
//	the pod                                        its callers
//	preStop sleeps, so that the right side is      the EndpointSlice says "terminating",
//	ahead                                          control planes and kube-proxies hear
//	                                               of it, and tell those who call
//	SIGTERM: readiness is refused, the mesh        callers send new requests elsewhere
//	drains: listeners stay open while callers
//	come, who are asked to go; what runs is
//	finished
//	the servers are shut down, the mesh closed
//	SIGKILL after terminationGracePeriodSeconds,
//	counted from the beginning of preStop
//
// As every workload of a mesh it is configured by the bootstrap that
// GRPC_XDS_BOOTSTRAP names. When it serves, it prints its addresses as one line of
// JSON, and when it has ended, what became of its requests.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/inboardmesh/inboard/mesh"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	http, grpc, probes string
	// grace is the time from SIGTERM to the end. With preStop and a little more it is
	// terminationGracePeriodSeconds.
	grace  time.Duration
	listen time.Duration
}

func parse(args []string) (*options, error) {
	var o options
	f := flag.NewFlagSet("server", flag.ContinueOnError)
	f.StringVar(&o.http, "http", ":8080", "`ADDRESS` to serve HTTP on")
	f.StringVar(&o.grpc, "grpc", ":9090", "`ADDRESS` to serve gRPC on")
	f.StringVar(&o.probes, "probes", ":15021", "`ADDRESS` for the kubelet's probes, outside the mesh")
	f.DurationVar(&o.grace, "grace", 25*time.Second, "how `LONG` the process may take to end")
	f.DurationVar(&o.listen, "listen", 0, "how `LONG` to wait for callers at least that have not heard of the end; 0 is 5s")
	err := f.Parse(args)
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return &o, err
}

// run serves until ctx ends, and then as long as it takes to end well.
func run(ctx context.Context, args []string, stdout io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	m, err := mesh.New(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	httpListener, err := m.Listen(ctx, "tcp", o.http)
	if err != nil {
		return err
	}
	grpcListener, err := m.Listen(ctx, "tcp", o.grpc)
	if err != nil {
		return err
	}
	// The kubelet is no member of the mesh: its probes have a listener of their own.
	probeListener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.probes)
	if err != nil {
		return err
	}
	probes := &http.Server{Handler: probesOf(m), ReadHeaderTimeout: time.Second}
	httpServer := m.Server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Otherwise net/http ends the body of a request of HTTP/1.1 when the answer
		// begins.
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, r.Body) // or the caller has gone
	}))
	grpcServer := grpc.NewServer(m.ServerOptions()...)
	serving := health.NewServer()
	grpc_health_v1.RegisterHealthServer(grpcServer, serving)

	ended := make(chan error, 3)
	go func() { ended <- httpServer.Serve(httpListener) }()
	go func() { ended <- grpcServer.Serve(grpcListener) }()
	go func() { ended <- probes.Serve(probeListener) }()
	go func() { // ends with the mesh
		<-m.Draining()
		serving.Shutdown() // those who watch are told, and their streams end by themselves
	}()
	out := json.NewEncoder(stdout)
	err = out.Encode(map[string]string{
		"http": httpListener.Addr().String(), "grpc": grpcListener.Addr().String(), "probes": probeListener.Addr().String(),
	})
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-ended:
		}
	}
	return errors.Join(err, end(m, o, out, httpServer, grpcServer), probes.Close())
}

// end lets callers go, finishes what runs and shuts the servers down.
func end(m *mesh.Mesh, o *options, out *json.Encoder, httpServer *http.Server, grpcServer *grpc.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), o.grace)
	defer cancel()
	report, err := m.Drain(ctx, mesh.DrainPolicy{Listen: o.listen})
	err = errors.Join(err, out.Encode(report))
	// Nothing runs any more. What is left are idle connections.
	err = errors.Join(err, httpServer.Shutdown(ctx))
	grpcServer.GracefulStop()
	return err
}

// probesOf answers the kubelet.
func probesOf(m *mesh.Mesh) http.Handler {
	mux := http.NewServeMux()
	// Alive as long as it answers. A process that drains is alive: were it not, it
	// would be restarted.
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := m.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	return mux
}
