package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// world is a manager and servers on a network in memory.
type world struct {
	t       *testing.T
	network memnet.Network
	manager *Manager
	// dial replaces the network's, if not nil. Set it before the first call.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	// opening is called before a connection's opening is recorded, if not nil: before
	// the connection is offered to a call. Set it before the first call.
	opening func()
	// identities are the certificate provider instances.
	identities map[string]meshtls.Source

	mu        sync.Mutex
	opened    []observe.ConnEvent     // guarded by mu
	closed    []observe.ConnEvent     // guarded by mu
	overflows []observe.OverflowEvent // guarded by mu
}

// newWorld is for a test in a bubble. The manager is closed with the test, which
// then checks that every connection that was opened has been closed.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, identities: map[string]meshtls.Source{}}
	w.manager = NewManager(Options{
		Identity: func(instance string) (meshtls.Source, error) {
			if source := w.identities[instance]; source != nil {
				return source, nil
			}
			return nil, errors.New("no instance " + strconv.Quote(instance))
		},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if w.dial != nil {
				return w.dial(ctx, network, address)
			}
			return w.network.DialContext(ctx, network, address)
		},
		Hooks: &observe.Hooks{
			ConnOpened: func(e observe.ConnEvent) {
				if w.opening != nil {
					w.opening()
				}
				record(&w.mu, &w.opened, e)
			},
			ConnClosed: func(e observe.ConnEvent) { record(&w.mu, &w.closed, e) },
			Overflowed: func(e observe.OverflowEvent) { record(&w.mu, &w.overflows, e) },
		},
	})
	t.Cleanup(func() {
		w.manager.Close()
		synctest.Wait()
		if opened, closed := w.connections(); opened != closed {
			t.Errorf("%d connections were opened, %d closed", opened, closed)
		}
	})
	return w
}

func record[E any](mu *sync.Mutex, to *[]E, event E) {
	mu.Lock()
	defer mu.Unlock()
	*to = append(*to, event)
}

// connections returns how many connections were opened, and how many of those
// were closed again.
func (w *world) connections() (opened, closed int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.opened {
		if e.Err == nil {
			opened++
		}
	}
	return opened, len(w.closed)
}

// expectConnections waits until nothing moves and compares.
func (w *world) expectConnections(opened, closed int) {
	w.t.Helper()
	synctest.Wait()
	if o, c := w.connections(); o != opened || c != closed {
		w.t.Errorf("%d connections opened and %d closed, want %d and %d", o, c, opened, closed)
	}
}

func (w *world) expectOverflows(want ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var got []string
	for _, e := range w.overflows {
		if e.Cluster != "payment" {
			w.t.Errorf("overflow of cluster %q", e.Cluster)
		}
		got = append(got, e.Resource)
	}
	if len(got) != len(want) {
		w.t.Errorf("overflows %q, want %q", got, want)
		return
	}
	for i := range want {
		if got[i] != want[i] {
			w.t.Errorf("overflows %q, want %q", got, want)
			return
		}
	}
}

type connectionKey struct{}

// server is an HTTP server on the network.
type server struct {
	*http.Server
	listener *memnet.Listener
	calls    atomic.Int64
	// connections counts what was accepted; connection reads it for a request.
	connections atomic.Int64
	running     sync.WaitGroup
}

// connection is the number of a request's connection, from 1.
func connection(r *http.Request) int64 { return r.Context().Value(connectionKey{}).(int64) }

// serve starts a server that speaks HTTP/1.1 and HTTP/2 without TLS. It is
// stopped with the test.
func (w *world) serve(address string, handler http.HandlerFunc, edit ...func(*http.Server)) *server {
	w.t.Helper()
	listener, err := w.network.Listen(address)
	if err != nil {
		w.t.Fatal(err)
	}
	s := &server{listener: listener, Server: &http.Server{Protocols: new(http.Protocols)}}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	s.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		s.running.Add(1)
		defer s.running.Done()
		handler(rw, r)
	})
	s.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, connectionKey{}, s.connections.Add(1))
	}
	for _, e := range edit {
		e(s.Server)
	}
	done := make(chan struct{})
	go func() { // ends with the server
		defer close(done)
		if s.TLSConfig != nil {
			_ = s.ServeTLS(listener, "", "")
			return
		}
		_ = s.Serve(listener)
	}()
	w.t.Cleanup(func() {
		_ = s.Close()
		<-done
		s.running.Wait()
	})
	return s
}

// answer tells which connection the request came by, and its protocol.
func answer(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("X-Connection", strconv.FormatInt(connection(r), 10))
	_, _ = io.WriteString(rw, r.Proto)
}

// result is a cluster "payment" with these endpoints.
func result(edit func(*discovery.Cluster), addresses ...string) map[string]discovery.ClusterResult {
	c := &discovery.Cluster{Name: "payment", Limits: [2]breaker.Limits{breaker.DefaultLimits, breaker.DefaultLimits}}
	if edit != nil {
		edit(c)
	}
	return map[string]discovery.ClusterResult{"payment": {Cluster: c, Endpoints: assignment(addresses...)}}
}

func assignment(addresses ...string) *discovery.Assignment {
	a := &discovery.Assignment{Name: "payment", Localities: []balancer.LocalityEndpoints{{Weight: 1}}}
	for _, address := range addresses {
		a.Localities[0].Endpoints = append(a.Localities[0].Endpoints, balancer.Endpoint{Address: address, Health: balancer.Healthy})
	}
	return a
}

// hold applies a configuration of the cluster "payment" and returns it.
func (w *world) hold(results map[string]discovery.ClusterResult) *Cluster {
	w.t.Helper()
	held := w.manager.Hold(results)
	return held["payment"]
}

// endpoint returns the endpoint at an address, which the cluster must have.
func endpoint(t *testing.T, c *Cluster, address string) *Endpoint {
	t.Helper()
	for e := range c.Endpoints {
		if e.Address() == address {
			return e
		}
	}
	t.Fatalf("cluster %q has no endpoint %s", c.Name(), address)
	return nil
}

// one returns a cluster of one endpoint, at 10.0.0.1:80, and that endpoint.
func (w *world) one(edit func(*discovery.Cluster)) (*Cluster, *Endpoint) {
	w.t.Helper()
	c := w.hold(result(edit, paymentAddress))
	return c, endpoint(w.t, c, paymentAddress)
}

const paymentAddress = "10.0.0.1:80"

func newRequest(ctx context.Context, t *testing.T, method string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "http://payment.shop/charge", body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// get sends a GET and returns what answer said: the connection and the protocol.
func get(t *testing.T, e *Endpoint) (connection, proto string) {
	t.Helper()
	resp, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), discovery.PriorityDefault)
	if failure != nil {
		t.Fatalf("%v (sent: %t): %v", failure.Kind, failure.Sent, failure.Err)
	}
	return resp.Header.Get("X-Connection"), read(t, resp)
}

func read(t *testing.T, resp *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("read the body: %v", err)
	}
	_ = resp.Body.Close()
	return string(body)
}

// call is a GET on a goroutine of its own.
type call struct {
	done       chan struct{}
	connection string
	body       string
	failure    *Failure
}

func start(ctx context.Context, t *testing.T, e *Endpoint) *call {
	t.Helper()
	c := &call{done: make(chan struct{})}
	req := newRequest(ctx, t, http.MethodGet, nil)
	go func() { // the test waits for done
		defer close(c.done)
		resp, failure := e.RoundTrip(req, discovery.PriorityDefault)
		if c.failure = failure; failure == nil {
			c.connection, c.body = resp.Header.Get("X-Connection"), read(t, resp)
		}
	}()
	return c
}

// wait returns which connection the answer came by.
func (c *call) wait(t *testing.T) (connection string) {
	t.Helper()
	<-c.done
	if c.failure != nil {
		t.Errorf("%v (sent: %t): %v", c.failure.Kind, c.failure.Sent, c.failure.Err)
	}
	return c.connection
}

func expectIdle(t *testing.T, c *Cluster, connections uint32) {
	t.Helper()
	synctest.Wait()
	want := breaker.Usage{Connections: connections}
	if got := c.Gate(discovery.PriorityDefault).Usage(); got != want {
		t.Errorf("in use: %+v, want %+v", got, want)
	}
}
