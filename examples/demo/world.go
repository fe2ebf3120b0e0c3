package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	module = "github.com/inboardmesh/inboard"
	// certificateLifetime is short, so that there is something to see. It is
	// long enough that a workload survives a few seconds without a CA.
	certificateLifetime = 20 * time.Second
	namespace           = "shop"
	customerID          = "spiffe://cluster.local/ns/shop/sa/customer"
	paymentID           = "spiffe://cluster.local/ns/shop/sa/payment"
)

// payment is one of the payments, which may have several processes in turn.
type payment struct {
	name, version string
	// addresses are those of HTTP, gRPC and administration.
	addresses [3]string
	env       []string
	process   *process
}

// world is all that the demo starts, in one directory.
type world struct {
	dir    string
	config configDir
	ports  *ports
	out    io.Writer
	// fail ends the story. keeping is true when that is over: then who ends a
	// process does it on purpose.
	fail    context.CancelCauseFunc
	keeping atomic.Bool

	plane *process
	// planeAddresses are those of xDS with the CA, and of the status page.
	planeAddresses [2]string

	payments []*payment
	customer *process
}

// newWorld makes a directory for everything, below the system's directory for
// temporary files, and claims ports. The caller calls close.
func newWorld(ctx context.Context, out io.Writer, fail context.CancelCauseFunc) (*world, error) {
	ports, err := claimPorts(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "inboard-demo-")
	if err != nil {
		return nil, errors.Join(err, ports.release())
	}
	w := &world{dir: dir, config: configDir(filepath.Join(dir, "config")), ports: ports, out: out, fail: fail}
	for _, d := range []string{"bin", "config"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return nil, errors.Join(err, w.close())
		}
	}
	for _, version := range []string{"v1-a", "v1-b", "v2-a"} {
		short, _, _ := strings.Cut(version, "-")
		w.payments = append(w.payments, &payment{name: version, version: short})
	}
	return w, nil
}

// close ends the processes, those first that call others, gives the ports back
// and removes the directory.
func (w *world) close() error {
	var errs []error
	processes := []*process{w.customer}
	for _, p := range w.payments {
		processes = append(processes, p.process)
	}
	for _, p := range append(processes, w.plane) {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	return errors.Join(append(errs, w.ports.release(), os.RemoveAll(w.dir))...)
}

// ended is told of a process that ended without being asked.
func (w *world) ended(err error) {
	if w.keeping.Load() {
		fmt.Fprintln(w.out, err)
		return
	}
	w.fail(err)
}

func (w *world) path(elements ...string) string {
	return filepath.Join(append([]string{w.dir}, elements...)...)
}

func (w *world) binary(name string) string {
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return w.path("bin", name)
}

// build compiles the programs.
func (w *world) build(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", w.path("bin")+string(filepath.Separator), //nolint:gosec // our own directory
		module+"/cmd/inboard", module+"/examples/payment", module+"/examples/customer")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build in a checkout of %s: %w\n%s", module, errors.Join(err, ctx.Err()), output)
	}
	return nil
}

// inboard runs a command of the tool to its end.
func (w *world) inboard(ctx context.Context, args ...string) error {
	output, err := exec.CommandContext(ctx, w.binary("inboard"), args...).CombinedOutput() //nolint:gosec // what we built
	if err != nil {
		return fmt.Errorf("inboard %s: %w\n%s", args[0], err, output)
	}
	return nil
}

// start builds and starts everything but the traffic.
func (w *world) start(ctx context.Context, r rules) error {
	begin := time.Now()
	fmt.Fprintf(w.out, "building inboard, payment and customer into %s; the first time takes a while ...", w.path("bin"))
	if err := w.build(ctx); err != nil {
		fmt.Fprintln(w.out)
		return err
	}
	fmt.Fprintf(w.out, " %.1fs\n\n", time.Since(begin).Seconds())
	if err := w.configure(ctx, r); err != nil {
		return err
	}
	t := &table{out: w.out, columns: []column{
		{title: "process", width: 13, left: true},
		{title: "pid", width: 7},
		{title: "identity", width: 42, left: true},
		{title: "addresses", left: true},
	}}
	t.header()
	if err := w.startPlane(ctx); err != nil {
		return err
	}
	t.row(w.plane.name, strconv.Itoa(w.plane.pid()), "", fmt.Sprintf("xDS and CA %s, status http://%s/status", w.planeAddresses[0], w.planeAddresses[1]))
	for _, p := range w.payments {
		if err := w.startPayment(ctx, p); err != nil {
			return err
		}
		t.row(p.process.name, strconv.Itoa(p.process.pid()), paymentID, fmt.Sprintf("HTTP %s, gRPC %s", p.addresses[0], p.addresses[1]))
	}
	if err := w.startCustomer(ctx); err != nil {
		return err
	}
	t.row(w.customer.name, strconv.Itoa(w.customer.pid()), customerID, fmt.Sprintf("http://%s/buy", w.customer.ready["http"]))
	return nil
}

// keep leaves everything running until ctx ends.
func (w *world) keep(ctx context.Context) {
	w.keeping.Store(true)
	fmt.Fprintf(w.out, `
Everything runs on, without the traffic. Try

  to buy, also via=http           curl 'http://%[1]s/buy?via=grpc&user=ada'
  what the customer's mesh says   curl http://%[1]s/stats
  what the control plane says     curl http://%[2]s/status
  to break v1-a, or /mend it      curl -X POST http://%[3]s/break
  to edit the configuration       %[4]s

A file takes effect when it is saved. Ctrl-C ends it all.
`, w.customer.ready["http"], w.planeAddresses[1], w.payments[0].addresses[2], w.config)
	<-ctx.Done()
}

// configure writes the first configuration and chooses the addresses in it.
func (w *world) configure(ctx context.Context, r rules) error {
	var endpoints []endpoint
	for _, p := range w.payments {
		var ports [3]string
		for i := range ports {
			address, port, err := w.ports.address(ctx)
			if err != nil {
				return err
			}
			p.addresses[i], ports[i] = address, port
		}
		endpoints = append(endpoints, endpoint{Name: p.name, Version: p.version, HTTPPort: ports[0], GRPCPort: ports[1]})
	}
	return errors.Join(w.config.writeServices(endpoints), w.config.writeTraffic(r), w.config.writeSecurity())
}

// startPlane starts the control plane with its CA, on the addresses that it had
// before if it is not the first time.
func (w *world) startPlane(ctx context.Context) error {
	for i := range w.planeAddresses {
		if w.planeAddresses[i] == "" {
			var err error
			if w.planeAddresses[i], _, err = w.ports.address(ctx); err != nil {
				return err
			}
		}
	}
	p, err := start(ctx, "control plane", w.path("control-plane.log"), nil, w.ended, w.binary("inboard"), "control-plane",
		"--config", string(w.config), "--ca-dir", w.path("ca"), "--listen", w.planeAddresses[0], "--status", w.planeAddresses[1])
	if err != nil {
		return err
	}
	w.plane = p
	return nil
}

// startPayment starts a payment, on the addresses that are in the configuration.
func (w *world) startPayment(ctx context.Context, p *payment) error {
	if p.env == nil {
		var err error
		if p.env, err = w.join(ctx, "payment-"+p.name, "payment", "app=payment,version="+p.version); err != nil {
			return err
		}
	}
	process, err := start(ctx, "payment "+p.name, w.path("payment-"+p.name+".log"), p.env, w.ended, w.binary("payment"),
		"--http", p.addresses[0], "--grpc", p.addresses[1], "--admin", p.addresses[2], "--version", p.version, "--instance", p.name, "--linger", "-1ns")
	if err != nil {
		return err
	}
	p.process = process
	return nil
}

// startCustomer starts the customer.
func (w *world) startCustomer(ctx context.Context) error {
	env, err := w.join(ctx, "customer", "customer", "app=customer")
	if err != nil {
		return err
	}
	w.customer, err = start(ctx, "customer", w.path("customer.log"), env, w.ended, w.binary("customer"), "--listen", "127.0.0.1:0")
	return err
}

// join makes the token and the bootstrap of a workload, and returns the
// environment that its process needs.
func (w *world) join(ctx context.Context, name, account, labels string) (env []string, err error) {
	token, bootstrap := w.tokenFile(name), w.path(name+".bootstrap.json")
	if err := w.inboard(ctx, "token", "--ca-dir", w.path("ca"), "--namespace", namespace, "--service-account", account, "--out", token); err != nil {
		return nil, err
	}
	err = w.inboard(ctx, "bootstrap", "--server", w.planeAddresses[0], "--namespace", namespace, "--service-account", account,
		"--name", name, "--labels", labels, "--token-file", token, "--root-file", w.rootFile(),
		"--certificate-lifetime", certificateLifetime.String(), "--out", bootstrap)
	return []string{"GRPC_XDS_BOOTSTRAP=" + bootstrap}, err
}

func (w *world) tokenFile(name string) string { return w.path(name + ".token") }

func (w *world) rootFile() string { return w.path("ca", "root-cert.pem") }
