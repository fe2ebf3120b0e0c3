package upstream

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
)

// upgrading is a server that takes a while to switch protocols.
func (w *world) upgrading(address string) {
	w.serve(address, func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			answer(rw, r)
			return
		}
		time.Sleep(time.Second)
		conn, buffered, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			w.t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		go func() { // ends with the connection
			_, _ = io.Copy(conn, buffered)
			_ = conn.Close()
		}()
	})
}

// upgrade asks for another protocol, on a goroutine that ends with the answer.
func upgrade(ctx context.Context, t *testing.T, e *Endpoint) <-chan io.Closer {
	t.Helper()
	req := newRequest(ctx, t, http.MethodGet, nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	done := make(chan io.Closer, 1)
	go func() { // the test waits for it
		defer close(done)
		resp, failure := e.RoundTrip(req, discovery.PriorityDefault)
		if failure != nil {
			t.Errorf("%v (sent: %t): %v", failure.Kind, failure.Sent, failure.Err)
			return
		}
		done <- resp.Body
	}()
	return done
}

var oneConnection = map[string]func(*discovery.Cluster){
	"of the cluster":   func(c *discovery.Cluster) { c.Limits[0].MaxConnections = 1 },
	"of each endpoint": func(c *discovery.Cluster) { c.HostConnections[0] = 1 },
}

// readingConn is one of which nobody can tell whether its peer has closed it, so that
// net/http has it.
type readingConn struct{ net.Conn }

// TestBC1_AnUpgradedConnectionBindsAsOneInUse until it is closed, as in Envoy's pools: whoever
// comes meanwhile waits, in the order of coming, and nobody is forgotten.
func TestBC1_AnUpgradedConnectionBindsAsOneInUse(t *testing.T) {
	t.Parallel()
	for name, edit := range oneConnection {
		for whose, wrap := range map[string]func(net.Conn) net.Conn{
			"": func(c net.Conn) net.Conn { return c }, ", of net/http": func(c net.Conn) net.Conn { return readingConn{c} },
		} {
			t.Run(name+whose, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					w.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
						c, err := w.network.DialContext(ctx, network, address)
						if err != nil {
							return nil, err
						}
						return wrap(c), nil
					}
					w.upgrading(paymentAddress)
					c, e := w.one(edit)
					first := upgrade(t.Context(), t, e)
					synctest.Wait()
					second := start(t.Context(), t, e) // waits when the first switches protocols
					upgraded := <-first
					w.expectConnections(1, 0)
					third := upgrade(t.Context(), t, e)
					time.Sleep(time.Minute)
					w.expectConnections(1, 0)
					if got, want := c.Gate(0).Usage(), (breaker.Usage{Connections: 1, Pending: 2}); got != want {
						t.Errorf("in use: %+v, want %+v", got, want)
					}
					select {
					case <-second.done:
						t.Error("a call passed the limit")
					default:
					}
					_ = upgraded.Close()
					second.wait(t)
					if upgraded := <-third; upgraded != nil {
						w.expectConnections(2, 1)
						_ = upgraded.Close()
					}
					get(t, e)
					expectIdle(t, c, 1)
				})
			})
		}
	}
}

// Whoever waits for a connection that switches protocols goes on as soon as there may be
// another: that its call ends before the next comes.
func TestBC1_WhoWaitsBesideAnUpgradeIsNotForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.upgrading(paymentAddress)
		results := result(oneConnection["of the cluster"], paymentAddress)
		c := w.hold(results)
		e := endpoint(t, c, paymentAddress)
		first := upgrade(t.Context(), t, e)
		synctest.Wait()
		second := start(t.Context(), t, e)
		upgraded := <-first
		time.Sleep(time.Minute)
		more := *results["payment"].Cluster
		more.Limits[0].MaxConnections = 2
		w.hold(map[string]discovery.ClusterResult{"payment": {Cluster: &more, Endpoints: assignment(paymentAddress)}})
		begin := time.Now()
		second.wait(t)
		if took := time.Since(begin); took != 0 {
			t.Errorf("the call has waited %v for nothing", took)
		}
		_ = upgraded.Close()
		expectIdle(t, c, 1)
	})
}
