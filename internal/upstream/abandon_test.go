package upstream

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
)

// leaving is the context of a call that gives up, and is handed a connection before it
// has said so.
type leaving struct {
	context.Context // which is never done

	done   chan struct{}
	handed func() // returns when the call has a connection
}

func (l *leaving) Done() <-chan struct{} { return l.done }

func (l *leaving) Err() error {
	l.handed()
	return context.Canceled
}

// TestAConnectionThatACallDoesNotWantAnyMoreIsForTheNext: it is no connection in use.
func TestAConnectionThatACallDoesNotWantAnyMoreIsForTheNext(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*discovery.Cluster){"HTTP/1.1": func(*discovery.Cluster) {}, "HTTP/2": speakHTTP2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				release := make(chan struct{})
				w.serve(paymentAddress, answer)
				w.opening = func() { <-release }
				c, e := w.one(edit)
				protocol := wireHTTP1
				if name == "HTTP/2" {
					protocol = wireHTTP2
				}
				p := e.pool(poolKey{protocol, discovery.PriorityDefault})
				ctx := &leaving{Context: context.Background(), done: make(chan struct{}), handed: func() {
					close(release)
					time.Sleep(time.Second)
				}}
				close(ctx.done)
				if got, err := p.get(ctx, wanting{}); got != nil || err != context.Canceled {
					t.Fatalf("got %v, %v", got, err)
				}
				expectIdle(t, c, 1)
				p.mu.Lock()
				for c := range p.conns {
					if c.busyLocked() {
						t.Error("the connection is in use by a call that has given up")
					}
				}
				p.mu.Unlock()
				if by, _ := get(t, e); by != "1" {
					t.Errorf("the next call went by connection %s", by)
				}
				p.drain()
				w.expectConnections(1, 1)
			})
		})
	}
}
