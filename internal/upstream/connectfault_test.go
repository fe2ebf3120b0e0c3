package upstream

import (
	"context"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// refusing ejects an endpoint after so many connections that could not be made.
func refusing(threshold uint32, edit ...func(*discovery.Cluster)) func(*discovery.Cluster) {
	return func(c *discovery.Cluster) {
		detecting(func(o *balancer.OutlierConfig) {
			o.MaxEjectionPercent, o.SplitLocalOrigin, o.ConsecutiveLocal.Threshold = 100, true, threshold
		})(c)
		for _, e := range edit {
			e(c)
		}
	}
}

// mute is a network on which nothing ever answers. It counts the tries.
func (w *world) mute() *atomic.Int64 {
	dials := new(atomic.Int64)
	w.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		dials.Add(1)
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return dials
}

func over(protocol discovery.HTTPProtocol) func(*discovery.Cluster) {
	return func(c *discovery.Cluster) { c.Protocol = protocol }
}

func expectEjected(t *testing.T, e *Endpoint, want bool) {
	t.Helper()
	synctest.Wait()
	if _, got := e.Host().Ejected(); got != want {
		t.Errorf("ejected: %t, want %t", got, want)
	}
}

// A connection that cannot be made is one failure, whoever waits for it by then.
func TestBO2_AConnectionThatCannotBeMadeCountsOnce(t *testing.T) {
	t.Parallel()
	const timeout = 5 * time.Second // the default for connecting
	for _, tt := range []struct {
		name     string
		protocol discovery.HTTPProtocol
		callers  int
		patience time.Duration
		dials    int64 // that are made for them
	}{
		{"the caller has given up, HTTP/1.1", discovery.HTTP1, 1, time.Second, 1},
		{"the caller has given up, HTTP/2", discovery.HTTP2, 1, time.Second, 1},
		{"the caller gives up at the same moment, HTTP/1.1", discovery.HTTP1, 1, timeout, 1},
		{"the caller gives up at the same moment, HTTP/2", discovery.HTTP2, 1, timeout, 1},
		{"one waits, HTTP/1.1", discovery.HTTP1, 1, time.Minute, 1},
		{"many wait, each for its own, HTTP/1.1", discovery.HTTP1, 10, time.Minute, 10},
		{"many wait for one, HTTP/2", discovery.HTTP2, 10, time.Minute, 1},
	} {
		for _, enough := range []bool{true, false} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					dials := w.mute()
					threshold := uint32(tt.dials)
					if !enough {
						threshold++
					}
					_, e := w.one(refusing(threshold, over(tt.protocol)))
					ctx, cancel := context.WithTimeout(t.Context(), tt.patience)
					defer cancel()
					for range tt.callers {
						start(ctx, t, e)
					}
					time.Sleep(timeout - time.Millisecond)
					expectEjected(t, e, false)
					time.Sleep(time.Millisecond)
					expectEjected(t, e, enough)
					if got := dials.Load(); got != tt.dials {
						t.Errorf("%d connections were tried, want %d", got, tt.dials)
					}
				})
			})
		}
	}
}

// One call finds out whether the endpoint is back; the others go elsewhere meanwhile.
func TestAfterAFailureOneConnectionIsTriedWhileTheOthersAvoidTheEndpoint(t *testing.T) {
	t.Parallel()
	for _, protocol := range []discovery.HTTPProtocol{discovery.HTTP1, discovery.HTTP2} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.mute()
			_, e := w.one(over(protocol))
			reachable := func(when string, want bool) {
				t.Helper()
				synctest.Wait()
				if got := e.Host().Reachable(); got != want {
					t.Errorf("%s it counts as reachable: %t, want %t", when, got, want)
				}
			}
			first := start(t.Context(), t, e)
			reachable("while it is not known to be out of order", true)
			<-first.done
			reachable("after the failure", false)
			time.Sleep(2 * firstBackoff)
			reachable("after the back-off", true)
			second := start(t.Context(), t, e)
			reachable("while another connection is made", false)
			<-second.done
			time.Sleep(4 * firstBackoff)
			reachable("after the second back-off", true)
			w.serve(paymentAddress, answer)
			w.dial = nil
			get(t, e)
			reachable("once it is connected", true)
			// A back-off that ends while a connection is being made does not end that.
			w.mute()
			e.backOff()
			third := start(t.Context(), t, e)
			if protocol == discovery.HTTP2 {
				<-third.done // by the connection that there is
				reachable("at once", false)
				time.Sleep(2 * firstBackoff)
				reachable("after the back-off", true)
				return
			}
			<-third.done
			time.Sleep(2 * firstBackoff)
			reachable("after the back-off", true)
		})
	}
}

// What this process lacks is not the endpoint's fault.
func TestConnectionsThatThisProcessCannotMakeEjectNobody(t *testing.T) {
	t.Parallel()
	socket := func(errno syscall.Errno) func(context.Context, string, string) (net.Conn, error) {
		return func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)}
		}
	}
	for name, tt := range map[string]struct {
		dial     func(context.Context, string, string) (net.Conn, error)
		identity meshtls.Source
		ejected  bool
	}{
		"no more files":       {dial: socket(syscall.EMFILE)},
		"no more ports":       {dial: socket(syscall.EADDRNOTAVAIL)},
		"refused":             {dial: socket(syscall.ECONNREFUSED), ejected: true},
		"no identity yet":     {identity: new(meshtls.Static)},
		"no route to anybody": {dial: socket(syscall.ENETUNREACH), ejected: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.dial = tt.dial
				edits := []func(*discovery.Cluster){}
				if tt.identity != nil {
					w.serve(paymentAddress, answer)
					w.identities["default"] = tt.identity
					edits = append(edits, mutualTLS)
				}
				_, e := w.one(refusing(1, edits...))
				if _, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), 0); failure == nil {
					t.Fatal("a call succeeded")
				}
				expectEjected(t, e, tt.ejected)
				if e.Host().Reachable() {
					t.Error("the endpoint is not avoided")
				}
			})
		})
	}
}
