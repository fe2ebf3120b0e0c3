package ads_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/internal/hangup"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/observe"
)

// closing is a client with what it reports: nothing of that may come once it is closed.
type closing struct {
	*harness

	network *memnet.Network
	second  *adstest.Server // gRFC A71
	third   *adstest.Server // of the authority "far"
	stream  *adstest.Stream
	watches []*recorder
	closed  atomic.Bool
	late    atomic.Int64
}

func (c *closing) note() {
	if c.closed.Load() {
		c.late.Add(1)
	}
}

func (c *closing) follow(typeURL, name string) *recorder {
	r := &recorder{on: c.note}
	r.cancel = c.client.Watch(typeURL, name, r)
	c.watches = append(c.watches, r)
	return r
}

// answer answers the newest request, whatever it is.
func (c *closing) answer(typeURL, version string, resources ...any) {
	synctest.Wait()
	c.respond(c.stream, typeURL, version, "nonce "+version, resources...)
}

// newClosing has a first and a second server, and one of an authority.
func newClosing(t *testing.T, delta bool) *closing {
	network := new(memnet.Network)
	start := func(address string) *adstest.Server {
		return adstest.Start(t, adstest.Config{Network: network, Address: address})
	}
	c := &closing{network: network, second: start("second"), third: start("third")}
	first, lines := start("xds.test"), new(hangup.Lines)
	first.DialWith(grpc.WithTransportCredentials(lines.Secure(insecure.NewCredentials())))
	mode := ads.ModeSotW
	if delta {
		mode = ads.ModeDelta
	}
	c.harness = newHarnessOn(t, first, delta, func(o *ads.Options) {
		o.Servers[0].Lines = lines
		o.Servers = append(o.Servers, ads.ServerConfig{Name: "second", Dial: c.second.Dial, Mode: mode})
		o.Authorities = map[string][]ads.ServerConfig{"far": {{Name: "third", Dial: c.third.Dial, Mode: mode}}}
		resource := func(observe.ResourceEvent) { c.note() }
		o.Hooks = observe.Hooks{ResourceAccepted: resource, ResourceRejected: resource, StreamChanged: func(observe.StreamEvent) { c.note() }}
	})
	return c
}

// closingScript goes to every state that a client can be in.
var closingScript = []struct {
	name string
	step func(*closing)
}{
	{"nothing is watched", func(*closing) {}},
	{"it connects", func(c *closing) { c.follow(cds, "a") }},
	{"the stream is open and silent", func(c *closing) { c.stream = c.server.Accept() }},
	{"half of what is watched has come", func(c *closing) {
		c.follow(cds, "b")
		c.follow(lds, "l")
		c.answer(cds, "1", "a=1")
	}},
	{"something is rejected", func(c *closing) { c.answer(cds, "2", "a=!x", "b=!y") }},
	{"it is rejected again and again", func(c *closing) {
		for i := range 300 {
			c.respond(c.stream, cds, "2", fmt.Sprint("n", i), "a=!x", "b=!y")
		}
	}},
	{"the rejections are paced", func(c *closing) {
		for i := range 300 {
			c.respond(c.stream, cds, "2", fmt.Sprint("m", i), fmt.Sprintf("a=!x%d", i))
		}
	}},
	{"one has a time to live", func(c *closing) {
		c.follow(rds, "r")
		c.answer(rds, "3", &discoveryv3.Resource{Name: "r", Version: "3", Resource: packed(rds, "r=1"), Ttl: durationpb.New(time.Hour)})
	}},
	{"a watch of the wildcard", func(c *closing) {
		c.follow(lds, ads.Wildcard)
		c.answer(lds, "4", "l=1", "other=1")
	}},
	{"many names", func(c *closing) {
		for i := range 2000 {
			c.follow(eds, strings.Repeat("e", 100)+fmt.Sprint(i))
		}
	}},
	{"the authority has a stream", func(c *closing) {
		c.follow(cds, "xdstp://far/envoy.config.cluster.v3.Cluster/x")
		c.third.Accept()
	}},
	{"the server freezes", func(c *closing) {
		c.server.Freeze()
		for i := range 2000 {
			c.follow(eds, strings.Repeat("f", 100)+fmt.Sprint(i))
		}
	}},
	{"it thaws", func(c *closing) { c.server.Thaw() }},
	{"the server is gone", func(c *closing) {
		time.Sleep(time.Second)
		c.server.Stop()
	}},
	{"the second one is asked", func(c *closing) { c.second.Accept() }},
	{"all are gone", func(c *closing) { c.second.Stop(); c.third.Stop() }},
	{"it waits to connect again", func(*closing) { time.Sleep(10 * time.Second) }},
	{"all is released and kept", func(c *closing) {
		for _, w := range c.watches {
			w.cancel()
		}
	}},
	{"a server is back", func(c *closing) { c.second.Restart() }},
	{"the first is back", func(c *closing) { c.server.Restart() }},
	{"something is watched anew", func(c *closing) { c.follow(cds, "a"); time.Sleep(time.Minute) }},
}

// TestX26_CloseTakesNoTimeWhateverTheClientDoes ends a client at every point of a script,
// at rest and in the midst of it, by two at once.
func TestX26_CloseTakesNoTimeWhateverTheClientDoes(t *testing.T) {
	t.Parallel()
	for i := range closingScript {
		for _, delta := range []bool{false, true} {
			for _, rest := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, delta %v, at rest %v", closingScript[i].name, delta, rest), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						c := newClosing(t, delta)
						for j := range closingScript[:i+1] {
							closingScript[j].step(c)
						}
						if rest {
							synctest.Wait()
						}
						c.close()
					})
				})
			}
		}
	}
}

// close closes the client twice at the same time, with watches that come and go.
func (c *closing) close() {
	begun := time.Now()
	closed := make(chan error, 2)
	for range 2 {
		go func() { closed <- c.client.Close() }() // waited for below
	}
	if len(c.watches) > 0 {
		c.watches[0].cancel()
	}
	c.follow(cds, "late")
	if err := errors.Join(<-closed, <-closed); err != nil {
		c.t.Error(err)
	}
	c.closed.Store(true)
	if took := time.Since(begun); took > 0 {
		c.t.Errorf("Close took %v", took)
	}
	c.follow(cds, "later").cancel()
	for _, w := range c.watches {
		w.cancel()
	}
	time.Sleep(48 * time.Hour)
	if n := c.late.Load(); n > 0 {
		c.t.Errorf("%d calls came after Close", n)
	}
}

// A dialer may take its time: it is told when nobody waits any more.
func TestX26_CloseEndsADial(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, true, func(o *ads.Options) {
			o.Servers[0].Dial = func(ctx context.Context) (*grpc.ClientConn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		})
		h.watch(cds, "a")
		synctest.Wait()
		begun := time.Now()
		if err := h.client.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > 0 {
			t.Errorf("Close took %v", took)
		}
	})
}
