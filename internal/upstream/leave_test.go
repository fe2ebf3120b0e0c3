package upstream

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/inboardmesh/inboard/discovery"
)

// departed is an endpoint that leaves in the midst of something.
type departed struct {
	*world

	t        *testing.T
	cluster  *Cluster
	endpoint *Endpoint
	edit     func(*discovery.Cluster)
	// pass lets a connection be made, or all if it is closed; release lets requests be
	// answered.
	pass, release chan struct{}
}

// ways are how endpoints leave, or what they have leaves them.
var ways = map[string]func(d *departed){
	"it leaves the cluster": func(d *departed) { d.hold(result(d.edit, "10.0.0.2:80")) },
	"the cluster goes":      func(d *departed) { d.manager.Release(map[string]*Cluster{"payment": d.cluster}) },
	"the protocol changes": func(d *departed) {
		d.hold(result(func(c *discovery.Cluster) {
			if d.edit(c); c.Protocol == discovery.HTTP2 {
				c.Protocol = discovery.HTTP1
			} else {
				c.Protocol = discovery.HTTP2
			}
		}, paymentAddress))
	},
}

// TestBN10_WhatRunsWhenAnEndpointLeavesIsFinished, in whatever state it is, and nothing
// is left of its connections: nobody would ever use them, or close them.
func TestBN10_WhatRunsWhenAnEndpointLeavesIsFinished(t *testing.T) {
	t.Parallel()
	for state, run := range map[string]func(t *testing.T, d *departed, leave func()){
		"nothing runs": func(t *testing.T, d *departed, leave func()) {
			close(d.pass)
			close(d.release)
			get(t, d.endpoint)
			leave()
		},
		"a call waits for its answer": func(t *testing.T, d *departed, leave func()) {
			close(d.pass)
			call := start(t.Context(), t, d.endpoint)
			synctest.Wait()
			leave()
			close(d.release)
			call.wait(t)
		},
		"a response is being read": func(t *testing.T, d *departed, leave func()) {
			close(d.pass)
			resp, failure := d.endpoint.RoundTrip(newRequest(t.Context(), t, http.MethodPut, nil), discovery.PriorityDefault)
			if failure != nil {
				t.Fatal(failure.Err)
			}
			leave()
			close(d.release)
			if got := read(t, resp); got != "half and half" {
				t.Errorf("it was %q", got)
			}
		},
		"a request is being sent": func(t *testing.T, d *departed, leave func()) {
			close(d.pass)
			close(d.release)
			body, w := io.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				resp, failure := d.endpoint.RoundTrip(newRequest(t.Context(), t, http.MethodPost, body), discovery.PriorityDefault)
				if failure != nil {
					t.Error(failure.Err)
					return
				}
				if got := read(t, resp); got != "half and half" {
					t.Errorf("it was %q", got)
				}
			}()
			_, _ = io.WriteString(w, "half")
			synctest.Wait()
			leave()
			_, _ = io.WriteString(w, " and half")
			_ = w.Close()
			<-done
		},
		"a connection is being made": func(t *testing.T, d *departed, leave func()) {
			close(d.release)
			call := start(t.Context(), t, d.endpoint)
			synctest.Wait()
			leave()
			close(d.pass)
			call.wait(t)
		},
		"connections are being made of which some are not needed any more": func(t *testing.T, d *departed, leave func()) {
			close(d.release)
			ctx, cancel := context.WithCancel(t.Context())
			one, other := start(ctx, t, d.endpoint), start(t.Context(), t, d.endpoint)
			synctest.Wait()
			leave()
			cancel()
			<-one.done
			close(d.pass)
			other.wait(t)
		},
		"a repeated call waits for a connection of its own": func(t *testing.T, d *departed, leave func()) {
			close(d.release)
			call := start(t.Context(), t, d.endpoint)
			synctest.Wait()
			done := make(chan struct{})
			go func() {
				defer close(done)
				resp, failure := d.endpoint.Send(newRequest(t.Context(), t, http.MethodGet, nil), discovery.PriorityDefault, repetition{})
				if failure != nil {
					t.Error(failure.Err)
					return
				}
				read(t, resp)
			}()
			synctest.Wait()
			leave()
			d.pass <- struct{}{} // for one of them
			call.wait(t)
			synctest.Wait()
			close(d.pass)
			<-done
		},
		"a connection is being made for nobody": func(t *testing.T, d *departed, leave func()) {
			ctx, cancel := context.WithCancel(t.Context())
			call := start(ctx, t, d.endpoint)
			synctest.Wait()
			leave()
			cancel()
			<-call.done
			close(d.pass)
		},
		"a call was routed to it": func(t *testing.T, d *departed, leave func()) {
			close(d.pass)
			close(d.release)
			leave()
			if d.endpoint.Draining() {
				get(t, d.endpoint)
			}
		},
		"a call gives up": func(t *testing.T, d *departed, leave func()) {
			close(d.pass)
			ctx, cancel := context.WithCancel(t.Context())
			call := start(ctx, t, d.endpoint)
			synctest.Wait()
			leave()
			cancel()
			<-call.done
		},
	} {
		for way, leave := range ways {
			for protocol, edit := range map[string]func(*discovery.Cluster){"HTTP/1.1": func(*discovery.Cluster) {}, "HTTP/2": speakHTTP2} {
				t.Run(state+", "+way+", "+protocol, func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						d := newDeparted(t, edit)
						run(t, d, func() {
							leave(d)
							synctest.Wait()
						})
						d.nothingLeft()
					})
				})
			}
		}
	}
}

func newDeparted(t *testing.T, edit func(*discovery.Cluster)) *departed {
	t.Helper()
	d := &departed{world: newWorld(t), t: t, edit: edit, pass: make(chan struct{}), release: make(chan struct{})}
	d.serve(paymentAddress, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPut:
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush() // the client is there
			d.wait(r)
			_, _ = io.WriteString(w, " and half")
		case http.MethodPost:
			_, _ = io.Copy(w, r.Body)
		default:
			d.wait(r)
		}
	})
	d.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		select {
		case <-d.pass:
			return d.network.DialContext(ctx, network, address)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	d.cluster, d.endpoint = d.one(edit)
	return d
}

func (d *departed) wait(r *http.Request) {
	select {
	case <-d.release:
	case <-r.Context().Done():
	}
}

// nothingLeft expects no connection to be open.
func (d *departed) nothingLeft() {
	d.t.Helper()
	synctest.Wait()
	if opened, closed := d.connections(); opened != closed {
		d.t.Errorf("%d connections were opened, %d closed", opened, closed)
	}
	expectIdle(d.t, d.cluster, 0)
}

// TestBN10_AConnectionWithoutRoomIsLetGoWithTheLastWhoWaits: a peer that takes no streams
// for now is not asked by anybody any more once the endpoint has left.
func TestBN10_AConnectionWithoutRoomIsLetGoWithTheLastWhoWaits(t *testing.T) {
	t.Parallel()
	for way, leave := range ways {
		for when, late := range map[string]bool{"before they give up": false, "when they have given up": true} {
			t.Run(way+", "+when, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					d := &departed{world: w, t: t, edit: speakHTTP2}
					none := http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0}
					d.http2Server(paymentAddress, func(*http2.Framer, uint32) { t.Error("a stream was opened") }, none)
					d.cluster, d.endpoint = d.one(d.edit)
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					calls := []*call{start(ctx, t, d.endpoint), start(ctx, t, d.endpoint)}
					d.expectConnections(1, 0)
					if !late {
						leave(d)
					}
					for _, call := range calls {
						<-call.done
					}
					if late {
						leave(d)
					}
					d.nothingLeft()
				})
			})
		}
	}
}
