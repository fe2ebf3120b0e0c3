package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/discovery"
)

func preconnect(ratio float64, more ...func(*discovery.Cluster)) func(*discovery.Cluster) {
	return func(c *discovery.Cluster) {
		c.PreconnectRatio = ratio
		for _, edit := range more {
			edit(c)
		}
	}
}

// Connections are there before the calls that will need them.
func TestBN7_ConnectionsAreMadeForCallsToCome(t *testing.T) {
	t.Parallel()
	limited := func(n uint32) func(*discovery.Cluster) {
		return func(c *discovery.Cluster) { c.Limits[0].MaxConnections = n }
	}
	perHost := func(n uint32) func(*discovery.Cluster) {
		return func(c *discovery.Cluster) { c.HostConnections[0] = n }
	}
	for _, tt := range []struct {
		name  string
		edit  func(*discovery.Cluster)
		limit int   // of streams, for HTTP/2
		calls []int // that run at a time
		want  []int // connections that are open then
	}{
		{"no policy", preconnect(0), 0, []int{1, 2, 4}, []int{1, 2, 4}},
		{"one for one", preconnect(1), 0, []int{1, 2, 4}, []int{1, 2, 4}},
		{"two for one", preconnect(2), 0, []int{1, 2, 4}, []int{2, 4, 8}},
		{"three for two", preconnect(1.5), 0, []int{1, 2, 3, 4}, []int{2, 3, 5, 6}},
		{"three for one, up to the limit of the cluster", preconnect(3, limited(4)), 0, []int{1, 2, 4}, []int{3, 4, 4}},
		{"three for one, up to the limit of the endpoint", preconnect(3, perHost(4)), 0, []int{1, 2, 4}, []int{3, 4, 4}},
		{"HTTP/2 has room", preconnect(3, speakHTTP2), 100, []int{1, 2, 4}, []int{1, 1, 1}},
		{"HTTP/2 has not enough room", preconnect(2, speakHTTP2), 4, []int{1, 2, 3, 4, 5}, []int{1, 1, 2, 2, 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				release := make(chan struct{})
				handler := func(rw http.ResponseWriter, r *http.Request) {
					<-release
					answer(rw, r)
				}
				if tt.limit > 0 {
					w.serve(paymentAddress, handler, streams(tt.limit))
				} else {
					w.serve(paymentAddress, handler)
				}
				c, e := w.one(tt.edit)
				w.expectConnections(0, 0) // an endpoint without calls has none
				var calls []*call
				for i, n := range tt.calls {
					calls = append(calls, startOneByOne(t, e, n-len(calls))...)
					if opened, _ := w.connections(); opened != tt.want[i] {
						t.Errorf("%d connections for %d calls, want %d", opened, n, tt.want[i])
					}
				}
				close(release)
				for _, call := range calls {
					call.wait(t)
				}
				if opened, _ := w.connections(); opened != tt.want[len(tt.want)-1] {
					t.Errorf("%d connections in the end", opened)
				}
				expectIdle(t, c, uint32(tt.want[len(tt.want)-1]))
				w.expectOverflows() // to anticipate is no call that is refused
			})
		})
	}
}

// A connection that nobody needs fails nobody, and is not tried for again and again.
func TestBN7_AConnectionThatNobodyNeedsMayFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			<-release
			answer(rw, r)
		})
		dials := 0
		w.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			w.mu.Lock()
			dials++
			n := dials
			w.mu.Unlock()
			if n == 1 { // the first of two, which wait for each other
				return nil, errors.New("refused")
			}
			return w.network.DialContext(ctx, network, address)
		}
		_, e := w.one(preconnect(2))
		call := start(t.Context(), t, e)
		synctest.Wait()
		close(release)
		call.wait(t)
		synctest.Wait()
		if dials != 2 {
			t.Errorf("%d dials", dials)
		}
	})
}
