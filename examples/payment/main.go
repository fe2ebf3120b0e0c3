// Payment is a server in a mesh. It takes charges over HTTP and over gRPC, and
// knows who its caller is.
//
// As every workload of a mesh it is configured by the bootstrap that
// GRPC_XDS_BOOTSTRAP names; "inboard bootstrap" prints one.
//
//	GRPC_XDS_BOOTSTRAP=bootstrap.json payment --http :8080 --grpc :9090
//
// When it serves, it prints its addresses as one line of JSON. It ends with
// SIGINT or SIGTERM, after the requests that it has begun.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/inboardmesh/inboard/examples/paymentpb"
	"github.com/inboardmesh/inboard/mesh"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "payment:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	http, grpc, admin string
	version, instance string
	linger            time.Duration
}

func parse(args []string) (*options, error) {
	var o options
	f := flag.NewFlagSet("payment", flag.ContinueOnError)
	f.StringVar(&o.http, "http", ":8080", "`ADDRESS` to serve HTTP on")
	f.StringVar(&o.grpc, "grpc", ":9090", "`ADDRESS` to serve gRPC on")
	f.StringVar(&o.version, "version", "v1", "the `VERSION` that replies carry")
	f.StringVar(&o.instance, "instance", "payment", "the `NAME` that replies carry")
	f.StringVar(&o.admin, "admin", "", "loopback `ADDRESS` where the payment can be broken and mended; empty for none")
	f.DurationVar(&o.linger, "linger", 0, "how `LONG` to serve callers at least that have not heard of the end; 0 is 5s, less is not at all")
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
	m, err := mesh.New(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()

	// Whom these listeners let in is the control plane's to say: it may ask for
	// mutual TLS, and does the TLS then.
	httpListener, err := m.Listen(ctx, "tcp", o.http)
	if err != nil {
		return err
	}
	grpcListener, err := m.Listen(ctx, "tcp", o.grpc)
	if err != nil {
		return err
	}

	p := newPayment(o.version, o.instance)
	httpServer := m.Server(p.routes())
	grpcServer := grpc.NewServer(m.ServerOptions()...)
	paymentpb.RegisterPaymentsServer(grpcServer, p)

	admin, err := p.trouble.serve(ctx, o.admin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, admin.Close()) }()

	ended := make(chan error, 2)
	go func() { ended <- httpServer.Serve(httpListener) }()
	go func() { ended <- grpcServer.Serve(grpcListener) }()
	err = json.NewEncoder(stdout).Encode(map[string]string{
		"http": httpListener.Addr().String(), "grpc": grpcListener.Addr().String(), "admin": admin.Addr,
	})
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-ended:
		}
	}
	return errors.Join(err, p.end(m, o.linger, httpServer, grpcServer))
}

// end serves callers until they have heard, and finishes the requests that have
// begun.
func (p *payment) end(m *mesh.Mesh, linger time.Duration, httpServer *http.Server, grpcServer *grpc.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	p.feed.end() // or Watch would never end
	_, err := m.Drain(ctx, mesh.DrainPolicy{Listen: linger, Quiet: min(linger, 0)})
	err = errors.Join(err, httpServer.Shutdown(ctx))
	grpcServer.GracefulStop() // nothing runs any more
	return err
}
