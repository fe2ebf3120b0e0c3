package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/observe"
)

func TestAConnectionThatTakesNothingIsClosed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		// reads is how often the peer reads a piece, 0 never.
		reads  time.Duration
		during func(s *stall)
		want   time.Duration // 0 is never
	}{
		{"nobody reads", 0, func(*stall) {}, 30 * time.Second},
		{"somebody lets go", 0, func(s *stall) { s.leave() }, 2 * time.Second},
		{"somebody has let go", 0, func(s *stall) { s.leave(); s.left() }, 30 * time.Second},
		{"the mesh is closed", 0, func(s *stall) { s.ending.Store(true); s.leave() }, 0},
		{"a slow peer", 25 * time.Second, func(*stall) {}, -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				near, far := memnet.Pipe()
				c := &rawConn{Conn: near}
				c.watchWrites(defaultWriteBounds(), new(atomic.Bool))
				defer func() { _ = c.Close(); _ = far.Close() }()
				var both sync.WaitGroup
				defer both.Wait()
				var begun time.Time
				both.Go(func() {
					for piece := make([]byte, stallPiece); tt.reads > 0; {
						time.Sleep(tt.reads)
						if _, err := io.ReadFull(far, piece); err != nil {
							return
						}
					}
				})
				ended := make(chan error, 2)
				both.Go(func() {
					_, err := c.Write(make([]byte, 10*stallPiece))
					ended <- err
				})
				both.Go(func() {
					_, err := c.Read(make([]byte, 1))
					ended <- err
				})
				synctest.Wait()
				begun = time.Now()
				tt.during(c.stall)
				if tt.want < 0 {
					if err := <-ended; err != nil {
						t.Errorf("it was written: %v", err)
					}
					_ = c.Close()
					_ = far.Close()
					<-ended
					return
				}
				for range 2 {
					if err := <-ended; !errors.Is(err, errStalled) {
						t.Errorf("it ended with %v", err)
					}
				}
				if took := time.Since(begun); took != tt.want {
					t.Errorf("it took %v, want %v", took, tt.want)
				}
			})
		})
	}
}

// frozen is a connection whose peer stops reading.
type frozen struct {
	net.Conn
	frozen atomic.Bool
	stuck  chan struct{} // closed when a write stands still
	closed chan struct{}
	once   [2]sync.Once
}

func (c *frozen) Write(p []byte) (int, error) {
	if !c.frozen.Load() {
		return c.Conn.Write(p)
	}
	c.once[0].Do(func() { close(c.stuck) })
	<-c.closed
	return 0, net.ErrClosed
}

func (c *frozen) Close() error {
	c.once[1].Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestAPeerThatDoesNotReadHoldsNobodyUp: net/http writes to it when a response is read
// or closed, under the lock that an upload holds. It is a mutex, for which fake time
// does not go on.
func TestAPeerThatDoesNotReadHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		// end ends the download's call.
		end func(m *Manager, body io.Closer)
	}{
		{"the call ends", func(_ *Manager, body io.Closer) { _ = body.Close() }},
		{"the mesh ends", func(m *Manager, body io.Closer) { m.Ending(); _ = body.Close() }},
		{"the mesh is closed", func(m *Manager, _ io.Closer) { m.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := &world{t: t}
			conn := &frozen{stuck: make(chan struct{}), closed: make(chan struct{})}
			w.manager = NewManager(Options{Hooks: new(observe.Hooks), Dial: func(ctx context.Context, network, address string) (_ net.Conn, err error) {
				conn.Conn, err = w.network.DialContext(ctx, network, address)
				return conn, err
			}})
			w.manager.writes.left, w.manager.writes.tick = time.Millisecond, time.Millisecond
			if tt.name != "the call ends" {
				w.manager.writes = defaultWriteBounds()
				w.manager.writes.tick = time.Millisecond
			}
			t.Cleanup(w.manager.Close)
			w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
				_, _ = rw.Write(make([]byte, 60_000))
				_ = http.NewResponseController(rw).Flush()
				<-r.Context().Done()
			})
			_, e := w.one(speakHTTP2)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			resp, failure := e.RoundTrip(newRequest(ctx, t, http.MethodGet, nil), discovery.PriorityDefault)
			if failure != nil {
				t.Fatal(failure.Err)
			}
			conn.frozen.Store(true)
			var others sync.WaitGroup
			others.Go(func() {
				upload := newRequest(t.Context(), t, http.MethodPost, http.NoBody)
				if _, failure := e.RoundTrip(upload, discovery.PriorityDefault); failure == nil {
					t.Error("an upload has been answered")
				}
			})
			<-conn.stuck
			others.Go(func() {
				if _, err := io.Copy(io.Discard, resp.Body); err == nil {
					t.Error("the download came whole")
				}
			})
			cancel()
			others.Go(func() { tt.end(w.manager, resp.Body) })
			others.Wait()
			_ = resp.Body.Close()
		})
	}
}
