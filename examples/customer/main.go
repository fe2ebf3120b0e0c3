// Customer is a client in a mesh. It buys things: it calls payment, by HTTP and
// by gRPC, under payment's name in the mesh, and knows nothing of where
// payment runs, how many there are, and what happens when one fails.
//
// As every workload of a mesh it is configured by the bootstrap that
// GRPC_XDS_BOOTSTRAP names; "inboard bootstrap" prints one.
//
//	GRPC_XDS_BOOTSTRAP=bootstrap.json customer --listen 127.0.0.1:8000
//	curl 'http://127.0.0.1:8000/buy?via=grpc&user=ada'
//	inboard explain --admin http://127.0.0.1:8000/mesh GET http://payment.shop.svc.cluster.local:8080/charge
//
// Its own API is plain HTTP, for callers outside the mesh: keep it on loopback,
// or behind an ingress. When it serves, it prints its address as one line of
// JSON. It ends with SIGINT or SIGTERM, after the requests that it has begun.
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

	"github.com/inboardmesh/inboard/admin"
	"github.com/inboardmesh/inboard/examples/paymentpb"
	"github.com/inboardmesh/inboard/mesh"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "customer:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	listen, paymentHTTP, paymentGRPC string
}

func parse(args []string) (*options, error) {
	var o options
	f := flag.NewFlagSet("customer", flag.ContinueOnError)
	f.StringVar(&o.listen, "listen", "127.0.0.1:8000", "`ADDRESS` of the customer's own API")
	f.StringVar(&o.paymentHTTP, "payment-http", "payment.shop.svc.cluster.local:8080", "`HOST:PORT` of payment's HTTP service in the mesh")
	f.StringVar(&o.paymentGRPC, "payment-grpc", "payment.shop.svc.cluster.local:9090", "`HOST:PORT` of payment's gRPC service in the mesh")
	err := f.Parse(args)
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return &o, err
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	s := newStats()
	m, err := mesh.New(ctx, mesh.WithHooks(s.hooks()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()

	// This is all that a client needs: an http.Client, or gRPC dial options.
	conn, err := grpc.NewClient("mesh:///"+o.paymentGRPC, m.DialOptions()...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	c := &customer{
		chargeURL: "http://" + o.paymentHTTP + "/charge",
		http:      m.HTTPClient(),
		grpc:      paymentpb.NewPaymentsClient(conn),
		ending:    ctx,
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /buy", c.buy)
	mux.HandleFunc("GET /watch", c.watch)
	mux.HandleFunc("GET /stats", s.serve)
	// For "inboard explain --admin http://ADDRESS/mesh".
	mux.Handle("/mesh/", http.StripPrefix("/mesh", admin.Handler(m)))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	err = json.NewEncoder(stdout).Encode(map[string]string{"http": ln.Addr().String()})
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-ended:
		}
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(err, server.Shutdown(grace))
}
