package httpmesh

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
)

// moving is a source whose target the test replaces.
type moving struct {
	fixed

	limit uint32 // of connections; 0 is the default

	mu     sync.Mutex
	notify func(discovery.Update[*discovery.Target]) // guarded by mu
}

func (m *moving) WatchTarget(_ string, notify func(discovery.Update[*discovery.Target])) func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notify = notify
	notify(discovery.Update[*discovery.Target]{Value: m.target})
	return func() {}
}

// replace makes the endpoints of the target those at addresses.
func (m *moving) replace(addresses ...string) {
	var endpoints []balancer.Endpoint
	for _, a := range addresses {
		endpoints = append(endpoints, balancer.Endpoint{Address: a, Weight: 1, Health: balancer.Healthy})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.target = newTarget(over(discovery.HTTP1), func(t *discovery.Target) {
		v1 := t.Clusters["v1"]
		v1.Endpoints = &discovery.Assignment{Localities: []balancer.LocalityEndpoints{{Weight: 1, Endpoints: endpoints}}}
		if m.limit > 0 {
			v1.Cluster.Limits[0].MaxConnections = m.limit
		}
		t.Clusters["v1"] = v1
	})
	if m.notify != nil {
		m.notify(discovery.Update[*discovery.Target]{Value: m.target})
	}
}

// dying is servers of HTTP/1.1 whose connections die whenever a server may end them: when
// they have carried a request and are idle, with a response or behind it, and beneath the
// next request, which was sent in the belief that they live.
type dying struct {
	network memnet.Network
	serving sync.WaitGroup

	mu      sync.Mutex
	random  *rand.Rand     // guarded by mu
	arrived map[string]int // guarded by mu; by the number of the request
	deaths  map[string]int // guarded by mu; by how
}

func (d *dying) draw(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.random.IntN(n)
}

func (d *dying) died(how string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deaths[how]++
}

func (d *dying) serve(address string) (stop func()) {
	ln, err := d.network.Listen(address)
	if err != nil {
		panic(err)
	}
	d.serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			d.serving.Go(func() { d.answer(conn) })
		}
	})
	return func() { _ = ln.Close() }
}

// answer serves one connection until it dies.
func (d *dying) answer(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	br := bufio.NewReader(conn)
	for n := 0; ; n++ {
		if n > 0 { // callers think for as long as this, so that they meet
			_ = conn.SetReadDeadline(time.Now().Add(time.Duration(1+d.draw(4)) * 5 * time.Millisecond))
		}
		if _, err := br.Peek(1); err != nil {
			if n > 0 && d.draw(3) == 0 { // it reads on, and answers nothing
				d.died("half closed when idle")
				_ = conn.(interface{ CloseWrite() error }).CloseWrite()
				_ = conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
				_, _ = io.Copy(io.Discard, br)
			}
			d.died("closed when idle")
			return
		}
		_ = conn.SetReadDeadline(time.Time{})
		if n > 0 && d.draw(10) == 0 {
			d.died("closed at the first byte of a request")
			return
		}
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		id := req.Header.Get("X-Number")
		d.mu.Lock()
		d.arrived[id]++
		d.mu.Unlock()
		if n > 0 && d.draw(10) == 0 {
			d.died("closed behind a request")
			return
		}
		if !d.respond(conn, string(body)) {
			return
		}
	}
}

// respond answers with what came, and reports whether the connection lives.
func (d *dying) respond(conn net.Conn, body string) bool {
	if d.draw(8) == 0 {
		_, _ = io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\n\r\n")
	}
	time.Sleep(time.Duration(d.draw(3)) * 3 * time.Millisecond)
	const head = "HTTP/1.1 200 OK\r\n"
	how := d.draw(12)
	if how == 3 && body == "" {
		how = 4
	}
	switch how {
	case 0:
		d.died("closed with a response that says so")
		_, _ = fmt.Fprintf(conn, head+"Connection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		return false
	case 1:
		d.died("closed behind a response")
		_, _ = fmt.Fprintf(conn, head+"Content-Length: %d\r\n\r\n%s", len(body), body)
		return false
	case 2:
		d.died("closed as the end of a response")
		_, _ = fmt.Fprintf(conn, head+"Connection: close\r\n\r\n%s", body)
		return false
	case 3:
		_, _ = fmt.Fprintf(conn, head+"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(body), body)
		time.Sleep(time.Millisecond)
		_, _ = io.WriteString(conn, "0\r\n\r\n")
	default:
		_, _ = fmt.Fprintf(conn, head+"Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	return true
}

// TestBN10_BN11_NothingIsLostOrDoubledWhileConnectionsDie: endpoints are replaced under
// load, and connections die at every moment at which a server may end them. No call fails
// that may be made twice, and of the others none arrives twice.
func TestBN10_BN11_NothingIsLostOrDoubledWhileConnectionsDie(t *testing.T) {
	t.Parallel()
	for seed, limit := range []uint32{0, 1, 4, 0, 1, 4} {
		t.Run(fmt.Sprintf("seed %d, %d connections", seed, limit), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { storm(t, uint64(seed), limit) })
		})
	}
}

func storm(t *testing.T, seed uint64, limit uint32) {
	d := &dying{random: rand.New(rand.NewPCG(seed, 1)), arrived: map[string]int{}, deaths: map[string]int{}}
	address := func(n int) string { return fmt.Sprintf("10.0.0.%d:80", n) }
	source := &moving{limit: limit}
	source.replace(address(0), address(1))
	stops := map[int]func(){0: d.serve(address(0)), 1: d.serve(address(1))}
	upstreams := upstream.NewManager(upstream.Options{Dial: d.network.DialContext, Hooks: &observe.Hooks{}})
	outbound := pipeline.NewOutbound(source, upstreams, &observe.Hooks{})
	transport := NewTransport(outbound, nil)
	const callers, calls = 8, 60
	var all sync.WaitGroup
	var mu sync.Mutex
	failures := 0
	for caller := range callers {
		all.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(2+caller)))
			for i := range calls {
				time.Sleep(time.Duration(random.IntN(6)) * 5 * time.Millisecond)
				method := []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodPost}[random.IntN(4)]
				id, body := fmt.Sprint(caller, "-", i), ""
				var content io.Reader
				if method != http.MethodGet {
					body = strings.Repeat("x", random.IntN(3000))
					content = strings.NewReader(body)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				req := newRequest(ctx, t, method, paymentURL, content)
				req.Header.Set("X-Number", id)
				twice := method != http.MethodPost
				if !twice && random.IntN(2) == 0 {
					req.Header.Set("Idempotency-Key", id)
					twice = true
				}
				resp, err := transport.RoundTrip(req)
				switch {
				case err == nil:
					if got := readAll(t, resp); got != body {
						t.Errorf("%s %s: %d bytes of %d", method, id, len(got), len(body))
					}
				case twice:
					t.Errorf("%s %s: %v", method, id, err)
				default:
					mu.Lock()
					failures++
					mu.Unlock()
				}
				cancel()
				d.mu.Lock()
				if n := d.arrived[id]; n > 2 || n > 1 && !twice {
					t.Errorf("%s %s arrived %d times", method, id, n)
				}
				d.mu.Unlock()
			}
		})
	}
	done := make(chan struct{})
	go func() { // ends with the callers
		all.Wait()
		close(done)
	}()
	for next := 2; ; next++ {
		select {
		case <-time.After(50 * time.Millisecond):
			stops[next] = d.serve(address(next))
			source.replace(address(next-1), address(next))
			gone := next - 2
			time.AfterFunc(500*time.Millisecond, stops[gone]) // until who has not heard of it has been there
			continue
		case <-done:
		}
		break
	}
	outbound.Close()
	upstreams.Close()
	time.Sleep(time.Second)
	for _, stop := range stops {
		stop()
	}
	d.serving.Wait()
	if len(d.deaths) < 7 || failures > callers*calls/10 {
		t.Errorf("connections died %v, %d calls failed that must not be made twice", d.deaths, failures)
	}
}
