package mesh_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// parityProtocol is one of the three ways to call a payment.
type parityProtocol struct {
	name string
	port string
	grpc bool
}

var parityProtocols = []parityProtocol{
	{name: "HTTP/1.1", port: "80"},
	{name: "HTTP/2", port: "82"},
	{name: "gRPC", port: "9090", grpc: true},
}

// parityMethod is the path of most calls. It is a gRPC method, so that the three
// protocols can be matched by the same rules.
const parityMethod = "/grpc.testing.TestService/EmptyCall"

// parityCall is a call that can be made over each protocol.
type parityCall struct {
	path      string // "" is parityMethod
	query     string // HTTP only
	method    string // HTTP only; "" is POST, as gRPC's
	authority string // "" is that of the target
	header    map[string]string
	script    string // what the payments do with it, see worldtest.ScriptHeader
	answer    string // response headers to ask for, see worldtest.AnswerHeader
	host      string // "" is that of the row
	port      string // "" is that of the protocol
	timeout   time.Duration
	// giveUp ends the call when it is closed; nil is never.
	giveUp <-chan struct{}
	// id is the name under which arrivals are counted; "" is a new one.
	id string
}

// parityResult is what became of a call, the same for each protocol.
type parityResult struct {
	// Status and Code are what the caller got: Status of HTTP, Code of gRPC. 0
	// and OK if there is Err.
	Status int
	Code   codes.Code
	Err    error // nil if somebody answered
	// Failure is set if the mesh failed the call.
	Failure *mesh.Error
	// Instance is the payment that answered last, "" if none did.
	Instance string
	Reply    worldtest.Reply
	Body     string
	header   func(name string) []string
	Arrivals int64
	Took     time.Duration
}

// String describes the result for a test's failure.
func (r *parityResult) String() string {
	return fmt.Sprintf("status %d, code %v, error %v, instance %q, %d arrivals, after %v, reply %+v",
		r.Status, r.Code, r.Err, r.Instance, r.Arrivals, r.Took, r.Reply)
}

// sent returns the values of a header as it arrived at the payment.
func (r *parityResult) sent(name string) []string {
	if r.Reply.Proto == "" {
		return nil
	}
	for key, values := range r.Reply.Header {
		if strings.EqualFold(key, name) {
			return values
		}
	}
	return nil
}

// parityWorld is the mesh in which all rows run: payments and a customer.
type parityWorld struct {
	*worldtest.World

	customer *mesh.Mesh
	calls    atomic.Int64

	mu       sync.Mutex
	channels map[string]*grpc.ClientConn  // guarded by mu; by target
	opened   map[string]int               // guarded by mu; connections by cluster
	closed   map[string]int               // guarded by mu; connections by cluster
	ejected  map[string][]string          // guarded by mu; reasons of ejections by cluster
	capacity map[string]*observe.Capacity // guarded by mu; those that are tracked, by cluster
	hellos   []byte                       // guarded by mu; the first bytes of connections
	probed   []probedConn                 // guarded by mu; how connections are kept alive
}

// parityInstances are the payments; what is before the '-' is the label app.
var parityInstances = []string{"v1-a", "v1-b", "v2-a", "strict-a", "port-a", "plain-a", "tokens-a", "guarded-a"}

// blackhole is the network of endpoints that never answer.
const blackhole = "127.99."

func newParityWorld(t *testing.T, rows []parityRow) *parityWorld {
	t.Helper()
	listeners, addresses := parityListeners(t, parityInstances)
	w := &parityWorld{
		World:    worldtest.New(t, parityYAML(rows, addresses)),
		channels: make(map[string]*grpc.ClientConn), opened: make(map[string]int), closed: make(map[string]int),
		ejected: make(map[string][]string), capacity: make(map[string]*observe.Capacity),
	}
	for _, instance := range parityInstances {
		app, _, _ := strings.Cut(instance, "-")
		w.PaymentAt(instance, map[string]string{"app": app}, listeners[instance][0], listeners[instance][1])
	}
	count := func(counts map[string]int) func(observe.ConnEvent) {
		return func(e observe.ConnEvent) {
			if e.Direction != observe.Outbound {
				return
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			counts[e.Cluster]++
		}
	}
	opened := count(w.opened)
	hooks := &observe.Hooks{
		ConnOpened: func(e observe.ConnEvent) {
			if e.Err == nil {
				opened(e)
			}
		},
		ConnClosed: count(w.closed),
		CapacityTracked: func(c *observe.Capacity) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if c.Priority == "default" {
				w.capacity[c.Cluster] = c
			}
		},
		EndpointEjected: func(e observe.EjectionEvent) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.ejected[e.Cluster] = append(w.ejected[e.Cluster], e.Reason)
		},
	}
	w.customer = w.Join("shop", "customer", parityCustomer, mesh.WithHooks(hooks), mesh.Network{Dial: w.dial},
		mesh.Balancing{Policies: map[string]func(hosts []*balancer.Host, _ map[string]any) balancer.Picker{
			"parity.last": func(hosts []*balancer.Host, _ map[string]any) balancer.Picker { return last{len(hosts)} },
		}})
	t.Cleanup(func() {
		for _, conn := range w.channels {
			_ = conn.Close()
		}
	})
	return w
}

// dial is the network, with a hole in it.
func (w *parityWorld) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if strings.HasPrefix(address, blackhole) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &helloConn{Mutable: memnet.NewMutable(conn), world: w}, nil
}

// probedConn is a connection and how it is kept alive.
type probedConn struct {
	config net.KeepAliveConfig
	conn   *helloConn
}

// helloConn remembers the first bytes that are written: with TLS, the names
// that are asked for are in them.
type helloConn struct {
	*memnet.Mutable

	world *parityWorld
	once  sync.Once
}

func (c *helloConn) Write(b []byte) (int, error) {
	c.once.Do(func() {
		c.world.mu.Lock()
		defer c.world.mu.Unlock()
		c.world.hellos = append(c.world.hellos, b...)
	})
	return c.Mutable.Write(b)
}

// SetKeepAliveConfig remembers the configuration: no program sees the probes.
func (c *helloConn) SetKeepAliveConfig(config net.KeepAliveConfig) error {
	c.world.mu.Lock()
	c.world.probed = append(c.world.probed, probedConn{config, c})
	c.world.mu.Unlock()
	return c.Conn.(*net.TCPConn).SetKeepAliveConfig(config)
}

// keptAlive is how many connections were made with a configuration.
func (w *parityWorld) keptAlive(config net.KeepAliveConfig) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, probed := range w.probed {
		if probed.config == config {
			n++
		}
	}
	return n
}

// silence lets nothing pass any more over the connections made with a
// configuration, and does not close them.
func (w *parityWorld) silence(config net.KeepAliveConfig) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, probed := range w.probed {
		if probed.config == config {
			probed.conn.Silence()
		}
	}
}

// greeted reports whether a connection began with bytes that contain text.
func (w *parityWorld) greeted(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Contains(w.hellos, []byte(text))
}

// connections is how many connections the customer has opened to a cluster, and
// how many of them are closed.
func (w *parityWorld) connections(cluster string) (opened, closed int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.opened[cluster], w.closed[cluster]
}

// ejections are the reasons of those of a cluster.
func (w *parityWorld) ejections(cluster string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ejected[cluster])
}

// call makes a call of a row and says what became of it.
func (w *parityWorld) call(t *testing.T, p parityProtocol, rowHost string, c parityCall) *parityResult {
	t.Helper()
	if c.timeout == 0 {
		c.timeout = 10 * time.Second
	}
	if c.path == "" {
		c.path = parityMethod
	}
	if c.host == "" {
		c.host = rowHost
	}
	if c.port == "" {
		c.port = p.port
	}
	c.authority = strings.ReplaceAll(c.authority, "HOST", rowHost)
	c.host = strings.ReplaceAll(c.host, "HOST", rowHost)
	ctx, cancel := context.WithTimeout(t.Context(), c.timeout)
	defer cancel()
	if c.giveUp != nil {
		go func() { // until the call has ended
			select {
			case <-c.giveUp:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	name := c.id
	if name == "" {
		name = w.newID(p, rowHost)
	}
	header := map[string]string{worldtest.CallHeader: name}
	maps.Copy(header, c.header)
	if c.script != "" {
		header[worldtest.ScriptHeader] = c.script
	}
	if c.answer != "" {
		header[worldtest.AnswerHeader] = c.answer
	}
	start := time.Now()
	var r *parityResult
	if p.grpc {
		r = w.callGRPC(ctx, t, c, header)
	} else {
		r = w.callHTTP(ctx, t, c, header)
	}
	r.Took = time.Since(start)
	r.Failure, _ = errors.AsType[*mesh.Error](r.Err)
	r.Arrivals = w.Arrivals(name)
	return r
}

// newID is a name for a call.
func (w *parityWorld) newID(p parityProtocol, host string) string {
	return fmt.Sprintf("%s %s %d", host, p.name, w.calls.Add(1))
}

func (w *parityWorld) callHTTP(ctx context.Context, t *testing.T, c parityCall, header map[string]string) *parityResult {
	t.Helper()
	method := c.method
	if method == "" {
		method = http.MethodPost
	}
	url := "http://" + net.JoinHostPort(c.host, c.port) + c.path
	if c.query != "" {
		url += "?" + c.query
	}
	req, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range header {
		req.Header.Set(key, value)
	}
	req.Host = c.authority
	resp, err := w.customer.Transport().RoundTrip(req)
	if err != nil {
		return &parityResult{Err: err, header: func(string) []string { return nil }}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	r := &parityResult{
		Status: resp.StatusCode, Err: err, Body: string(body),
		Instance: resp.Header.Get("X-Instance"), header: resp.Header.Values,
	}
	if resp.Header.Get("Content-Type") == "application/json" {
		if err := json.Unmarshal(body, &r.Reply); err != nil {
			t.Errorf("%v: %s", err, body)
		}
	}
	return r
}

func (w *parityWorld) channel(t *testing.T, target string) *grpc.ClientConn {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	conn := w.channels[target]
	if conn == nil {
		var err error
		if conn, err = grpc.NewClient("mesh:///"+target, w.customer.DialOptions()...); err != nil {
			t.Fatal(err)
		}
		w.channels[target] = conn
	}
	return conn
}

func (w *parityWorld) callGRPC(ctx context.Context, t *testing.T, c parityCall, header map[string]string) *parityResult {
	t.Helper()
	ctx = metadata.NewOutgoingContext(ctx, metadata.New(header))
	var md, trailer metadata.MD
	options := []grpc.CallOption{grpc.Header(&md), grpc.Trailer(&trailer)}
	if c.authority != "" {
		options = append(options, grpc.CallAuthority(c.authority))
	}
	empty := new(grpc_testing.Empty)
	err := w.channel(t, net.JoinHostPort(c.host, c.port)).Invoke(ctx, c.path, empty, new(grpc_testing.Empty), options...)
	r := &parityResult{Code: status.Code(err), header: md.Get}
	if _, ok := errors.AsType[*mesh.Error](err); ok {
		r.Err = err
	} else if err != nil {
		r.Body = status.Convert(err).Message()
	}
	for _, block := range []metadata.MD{md, trailer} {
		if values := block.Get("x-instance"); len(values) > 0 {
			r.Instance = values[0]
		}
	}
	if values := md.Get(worldtest.ReplyHeader); len(values) == 1 {
		if err := json.Unmarshal([]byte(values[0]), &r.Reply); err != nil {
			t.Error(err)
		}
	}
	return r
}

// parityWant is what must become of a call.
type parityWant struct {
	status   int        // of HTTP; 0 if the mesh fails the call
	code     codes.Code // of gRPC
	kind     outcome.Kind
	instance string // the instance, or the version, that answers; "" is none, "*" is any
	arrivals int64  // 0 is any number
}

var (
	// answered is the answer of any payment.
	answered = parityWant{status: http.StatusOK, instance: "*"}
	// unrouted is no answer for want of a route.
	unrouted = parityWant{code: codes.Unavailable, kind: outcome.NoRoute}
)

// by is an answer of a version, or of an instance.
func by(instance string) parityWant { return parityWant{status: http.StatusOK, instance: instance} }

// failedBy is a failure that the mesh reports.
func failedBy(kind outcome.Kind, code codes.Code) parityWant {
	return parityWant{code: code, kind: kind}
}

func (want parityWant) check(t *testing.T, p parityProtocol, r *parityResult) {
	t.Helper()
	fail := func(what string) {
		t.Helper()
		t.Errorf("%s; want %+v; got %v", what, want, r)
	}
	failed := want.kind != outcome.Response
	switch {
	case failed && r.Failure == nil, failed && r.Failure.Kind != want.kind:
		fail("not the failure of the mesh that it must be")
	case !failed && r.Err != nil:
		fail("an error")
	case !p.grpc && !failed && r.Status != want.status:
		fail("another status")
	case p.grpc && r.Code != want.code:
		fail("another code")
	case want.instance == "" && r.Instance != "", want.instance != "" && r.Instance == "",
		want.instance != "*" && !strings.HasPrefix(r.Instance, want.instance):
		fail("another instance")
	case want.arrivals != 0 && r.Arrivals != want.arrivals:
		fail("another number of arrivals")
	}
}
