package meshtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"google.golang.org/grpc"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// Option says what an instance of a service, or a workload, is. Those that name a
// port are for instances only.
type Option func(*Instance)

// HTTP serves a port with a handler, over HTTP/1.1 and HTTP/2.
func HTTP(port int, handler http.Handler) Option {
	return func(i *Instance) { i.ports = append(i.ports, servedPort{number: port, handler: handler}) }
}

// GRPC serves a port with gRPC services. register adds them to a server; it runs
// again at each [Instance.Restart].
func GRPC(port int, register func(grpc.ServiceRegistrar)) Option {
	return func(i *Instance) { i.ports = append(i.ports, servedPort{number: port, register: register}) }
}

// TCP serves a port with a protocol of the application's own, over the connections of
// [mesh.Mesh.ListenTCP]. serve runs on a goroutine for each connection, which is closed
// when it returns, and when the instance is killed or the test ends: then it must
// return.
func TCP(port int, serve func(net.Conn)) Option {
	return func(i *Instance) { i.ports = append(i.ports, servedPort{number: port, serve: serve}) }
}

// Version is the label "version", by which the subsets of a DestinationRule
// choose.
func Version(version string) Option { return Labels(map[string]string{"version": version}) }

// Labels adds labels. Every instance has "app", the name of its service, and every
// workload "app", the name of its service account.
func Labels(labels map[string]string) Option {
	return func(i *Instance) { maps.Copy(i.labels, labels) }
}

// Locality is where the instance or the workload runs: "region/zone/subzone", of
// which the last parts may be missing. The default is nowhere.
func Locality(locality string) Option { return func(i *Instance) { i.locality = locality } }

// Hooks reports to hooks what the mesh of the instance or of the workload reports,
// beside what the World records; of several, the last is told. They must not be
// changed afterwards. For OpenTelemetry they are those of [meshotel.Telemetry].
//
// [meshotel.Telemetry]: https://pkg.go.dev/github.com/inboardmesh/inboard/otel/meshotel#Telemetry
func Hooks(hooks *observe.Hooks) Option { return func(i *Instance) { i.hooks = hooks } }

// Mesh adds options of [mesh.New], such as [mesh.Balancing] with a policy of the
// application. They come after the World's own, and replace those that they name:
// with another bootstrap or another [mesh.Network] the process is not in the World.
// [mesh.WithHooks] fails the test, since the World could not see it any more: use
// [Hooks].
func Mesh(options ...mesh.Option) Option {
	return func(i *Instance) { i.options = append(i.options, options...) }
}

// Instance is one process of a service. Its methods may be called from any
// goroutine.
type Instance struct {
	world     *World
	service   *service
	name      string
	namespace string
	ip        string
	labels    map[string]string
	locality  string
	ports     []servedPort
	identity  meshtls.Source
	hooks     *observe.Hooks
	options   []mesh.Option
	faults    faults
	served    connections

	// switching holds a token while the instance is started or killed.
	switching chan struct{}
	process   *running // guarded by switching; nil while it is killed
}

// servedPort has either a handler, a register or a serve.
type servedPort struct {
	number   int
	handler  http.Handler
	register func(grpc.ServiceRegistrar)
	serve    func(net.Conn)
}

func (p *servedPort) protocol() string {
	switch {
	case p.serve != nil:
		return "TCP"
	case p.register != nil:
		return "GRPC"
	}
	return "HTTP"
}

// Service starts an instance of a service and makes it known to the mesh. name
// is "NAME.NAMESPACE", such as "payment.shop": the host is
// payment.shop.svc.cluster.local, the identity the service account payment of
// the namespace shop. More calls with one name start more instances, which must
// serve the same ports. Without [HTTP], [GRPC] and [TCP] an instance answers every HTTP
// request on port 80 with 200 and its name.
//
// Mistakes fail the test at once.
func (w *World) Service(name string, options ...Option) *Instance {
	w.tb.Helper()
	w.changing <- struct{}{}
	defer func() { <-w.changing }()
	i, err := w.newInstance(name, options)
	if err != nil {
		w.tb.Fatalf("meshtest: service %q: %v", name, err)
	}
	// Registered first, so that a start that fails halfway is cleaned up too.
	w.tb.Cleanup(func() {
		i.Kill()
		i.faults.end()
		i.end()
	})
	if err := w.admit(i); err != nil {
		w.tb.Fatalf("meshtest: service %q: %v", name, err)
	}
	w.settle(func(m *member) bool { return !m.serves })
	return i
}

// admit starts an instance and makes it known. Before a process that serves TCP is
// asked what it may do, it must be known that it does.
func (w *World) admit(i *Instance) error {
	if slices.ContainsFunc(i.ports, func(p servedPort) bool { return p.serve != nil }) {
		if err := w.register(i); err != nil {
			return err
		}
		return i.start()
	}
	if err := i.start(); err != nil {
		return err
	}
	return w.register(i)
}

func (w *World) newInstance(name string, options []Option) (*Instance, error) {
	short, namespace, err := splitName(name)
	if err != nil {
		return nil, err
	}
	i := &Instance{
		world: w, namespace: namespace, labels: map[string]string{"app": short}, switching: make(chan struct{}, 1),
	}
	if err := i.take(options); err != nil {
		return nil, err
	}
	if len(i.ports) == 0 {
		HTTP(80, http.HandlerFunc(i.answer))(i)
	}
	if err := i.check(); err != nil {
		return nil, err
	}
	if i.identity, err = w.identity(namespace, short); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	i.service = w.serviceLocked(short, namespace)
	if i.service == nil {
		i.service = &service{name: short, namespace: namespace, ports: portsOf(i)}
	} else if want := i.service.ports; !slices.Equal(want, portsOf(i)) {
		return nil, fmt.Errorf("an instance serves %v and the others serve %v: all instances of a service serve the same ports", portsOf(i), want)
	}
	base := short
	if version := i.labels["version"]; version != "" {
		base += "-" + version
	}
	i.name = base
	for n := 2; w.instances[i.name] != nil; n++ {
		i.name = base + "-" + strconv.Itoa(n)
	}
	number := len(w.instances) + 1
	i.ip = net.IPv4(10, byte(number>>16), byte(number>>8), byte(number)).String()
	w.instances[i.name], w.byIP[i.ip] = i, i
	return i, nil
}

// take applies options.
func (i *Instance) take(options []Option) error {
	for n, option := range options {
		if option == nil {
			return fmt.Errorf("option %d is nil", n)
		}
		option(i)
	}
	return nil
}

// check finds mistakes in the options.
func (i *Instance) check() error {
	seen := make(map[int]bool)
	for _, p := range i.ports {
		switch {
		case p.number < 1 || p.number > 65535:
			return fmt.Errorf("%d is not a port: use 1..65535", p.number)
		case seen[p.number]:
			return fmt.Errorf("port %d is served twice", p.number)
		case p.handler == nil && p.register == nil && p.serve == nil:
			return fmt.Errorf("port %d: the handler is nil", p.number)
		}
		seen[p.number] = true
	}
	return nil
}

// answer is what an instance without a handler serves.
func (i *Instance) answer(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte(i.name)) // the caller went away
}

// Name is the name of the instance in [World.Calls]: that of the service with
// its version, and with a number if there are several.
func (i *Instance) Name() string { return i.name }

// Kill ends the instance at once, as a crash does: its connections break and new
// ones are refused. The mesh goes on to believe that it is there. It does not
// wait for handlers, so that one may call it; the test's cleanup does, and for the
// connections too. It may be called again.
func (i *Instance) Kill() {
	i.switching <- struct{}{}
	defer func() { <-i.switching }()
	if i.process == nil {
		return
	}
	if err := i.process.stop(); err != nil {
		i.world.tb.Errorf("meshtest: kill %q: %v", i.name, err)
	}
	i.process = nil
}

// Restart starts a killed instance again, at the same address. It fails the test
// if it cannot, and does nothing if the instance runs.
func (i *Instance) Restart() {
	i.world.tb.Helper()
	if err := i.start(); err != nil {
		i.world.tb.Errorf("meshtest: restart %q: %v", i.name, err)
	}
}

func (i *Instance) start() error {
	i.switching <- struct{}{}
	defer func() { <-i.switching }()
	if i.process != nil {
		return nil
	}
	process, err := i.run()
	if err != nil {
		return err
	}
	i.process = process
	return nil
}

// alive reports whether the instance runs.
func (i *Instance) alive() bool {
	i.switching <- struct{}{}
	defer func() { <-i.switching }()
	return i.process != nil
}

// running is a started instance.
type running struct {
	world  *World
	member *member
	stops  []func()
	served sync.WaitGroup
}

// run starts the instance's mesh and its servers.
func (i *Instance) run() (_ *running, err error) {
	w := i.world
	m, err := w.join(&process{
		name: i.name, namespace: i.namespace, account: i.service.name, address: i.ip,
		labels: i.labels, locality: i.locality, identity: i.identity, hooks: i.hooks, options: i.options, serves: true,
	})
	if err != nil {
		return nil, err
	}
	r := &running{world: w, member: m}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.stop())
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for _, p := range i.ports {
		inner, err := w.network.Listen(net.JoinHostPort(i.ip, strconv.Itoa(p.number)))
		if err != nil {
			return nil, err
		}
		listen := m.mesh.Serve
		if p.serve != nil {
			listen = m.mesh.ServeTCP
		}
		ln, err := listen(ctx, inner)
		if err != nil {
			return nil, err
		}
		switch {
		case p.serve != nil:
			r.serveTCP(i, ln, p.serve)
		case p.handler != nil:
			r.serveHTTP(i, ln, p.handler)
		default:
			r.serveGRPC(i, ln, p.register)
		}
	}
	return r, nil
}

func (r *running) serveHTTP(i *Instance, ln net.Listener, handler http.Handler) {
	server := r.member.mesh.Server(i.faults.handler(handler))
	server.Handler = i.faults.arrival(server.Handler)
	server.ConnState = i.served.changed
	server.ErrorLog = slog.NewLogLogger(r.world.logger.Handler(), slog.LevelWarn)
	r.serve(i, func() error { return server.Serve(ln) }, func() { _ = server.Close() }) // the mesh's listener may be closed already
}

func (r *running) serveGRPC(i *Instance, ln net.Listener, register func(grpc.ServiceRegistrar)) {
	server := grpc.NewServer(append(r.member.mesh.ServerOptions(),
		grpc.ChainUnaryInterceptor(i.faults.unary),
		grpc.ChainStreamInterceptor(i.faults.stream),
	)...)
	register(server)
	r.serve(i, func() error { return server.Serve(ln) }, server.Stop)
}

func (r *running) serveTCP(i *Instance, ln net.Listener, serve func(net.Conn)) {
	ctx, cancel := context.WithCancel(context.Background())
	stop := func() {
		_ = ln.Close() // the mesh may have closed it already
		cancel()
	}
	r.serve(i, func() error {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return err
			}
			r.served.Go(func() { // ends with the connection
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
				serve(conn)
			})
		}
	}, stop)
}

func (r *running) serve(i *Instance, serve func() error, stop func()) {
	r.stops = append(r.stops, stop)
	r.served.Go(func() { // until stop
		if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			r.world.tb.Errorf("meshtest: %s: %v", i.name, err)
		}
	})
}

// stop breaks every connection and waits for what runs.
func (r *running) stop() error {
	for _, stop := range r.stops {
		stop()
	}
	r.served.Wait()
	return r.world.leave(r.member)
}
