package upstream

import (
	"context"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
)

// TestBN1_ConnectionsThatTakeFewRequestsAreMadeTogether, as many as those who wait need: by
// the requests that one may carry, and by the streams that the peer allows, once it has said so.
func TestBN1_ConnectionsThatTakeFewRequestsAreMadeTogether(t *testing.T) {
	t.Parallel()
	few := func(n uint32) func(*discovery.Cluster) {
		return func(c *discovery.Cluster) { speakHTTP2(c); c.MaxRequestsPerConnection = n }
	}
	const connecting, serving = 50 * time.Millisecond, 500 * time.Millisecond
	for name, tt := range map[string]struct {
		edit        func(*discovery.Cluster)
		streams     int
		connections int
		rounds      int // of connecting
	}{
		"one request each":    {few(1), 250, 100, 1},
		"five requests each":  {few(5), 250, 20, 1},
		"the peer allows two": {speakHTTP2, 2, 50, 2},
		"any number":          {speakHTTP2, 250, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					time.Sleep(connecting)
					return w.network.DialContext(ctx, network, address)
				}
				w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
					time.Sleep(serving)
					answer(rw, r)
				}, streams(tt.streams))
				_, e := w.one(tt.edit)
				begin := time.Now()
				calls := make([]*call, 100)
				for i := range calls {
					calls[i] = start(t.Context(), t, e)
				}
				for _, call := range calls {
					call.wait(t)
				}
				if took, most := time.Since(begin), time.Duration(tt.rounds)*connecting+serving; took > most {
					t.Errorf("100 calls took %v, want at most %v", took, most)
				}
				synctest.Wait()
				if opened, _ := w.connections(); opened != tt.connections {
					t.Errorf("%d connections, want %d", opened, tt.connections)
				}
			})
		})
	}
}
