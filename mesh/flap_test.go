package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/adstest"
)

// extraHost is a destination whose calls go where all others go.
func extraHost(n int) string { return fmt.Sprintf("extra-%d.shop", n) }

func extraListener(n int) *listenerv3.Listener {
	l := groundListener(groundHTTP)
	l.Name = extraHost(n) + ":" + groundHTTP
	return l
}

// A primary that comes and goes, is replaced by a second server with other content
// whenever something new is wanted meanwhile, and changes what it says (gRFC A71).
func TestX98_X99_APrimaryThatFlapsFailsNoCall(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		for _, api := range []bootstrap.APIType{bootstrap.APIDelta, bootstrap.APISotW} {
			t.Run(fmt.Sprintf("%v %d", api, seed), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { flap(t, api, rand.New(rand.NewPCG(seed, 1))) })
			})
		}
	}
}

func flap(t *testing.T, api bootstrap.APIType, random *rand.Rand) {
	g := &ground{t: t, network: newGroundNetwork()}
	g.plane = adstest.Serve(t, adstest.Config{Network: g.network})
	second := adstest.Serve(t, adstest.Config{Network: g.network, Address: "second.test"})
	config := &bootstrap.Config{Servers: []bootstrap.Server{g.server("xds.test"), g.server("second.test")}, Node: bootstrap.Node{ID: "customer-1"}}
	for i := range config.Servers {
		config.Servers[i].API = api
	}
	const steps, last = 16, 7
	for n := range last + 1 {
		g.payment(n)
	}
	for n := range steps {
		g.plane.Set(extraListener(n))
		second.Set(extraListener(n))
	}
	g.plane.Set(tree(0)...)
	second.Set(tree(3)...)
	g.join(config)
	g.works()
	calls := g.traffic(3)
	up := true
	for n := range steps {
		switch random.IntN(6) {
		case 0, 1:
			if up {
				g.plane.Server.Stop()
			} else {
				g.plane.Restarted()
				g.plane.Server.Restart()
			}
			up = !up
		case 2:
			g.plane.EndStreams([]error{nil, errors.New("restart")}[random.IntN(2)])
		case 3:
			g.plane.Set(groundEndpoints(random.IntN(3))...)
		case 4:
			second.Set(groundEndpoints(3 + random.IntN(3))...)
		case 5:
			second.EndStreams(nil)
		}
		time.Sleep(time.Duration(random.IntN(5000)) * time.Millisecond)
		// It is new: without the primary the second server is asked.
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+extraHost(n)+":"+groundHTTP+"/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := g.client.Do(req)
		if err != nil {
			t.Errorf("step %d, primary up %v: %v", n, up, err)
		} else {
			resp.Body.Close()
		}
		cancel()
	}
	if !up {
		g.plane.Server.Restart()
	}
	g.plane.Set(tree(last)...)
	time.Sleep(150 * time.Second) // the longest back-off
	settled := time.Now()
	time.Sleep(5 * time.Second)
	for n := range last {
		if calls.lastCall(n).After(settled) {
			t.Errorf("payment %d is called, the primary has named %d alone", n, last)
		}
	}
	if len(second.Server.Connects()) == 0 {
		t.Error("the second server was never asked")
	}
	if n := second.Server.Open(); n != 0 {
		t.Errorf("%d connections to the second server are open", n)
	}
	if n := len(g.plane.Rejections()) + len(second.Rejections()); n != 0 {
		t.Errorf("%d rejections", n)
	}
	calls.report(300)
}

// What has a time to live is renewed by whoever can be reached in time, whatever
// becomes of the stream in between.
func TestX90_X91_HeartbeatsAreEnoughThroughLostStreams(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		random := rand.New(rand.NewPCG(3, 4))
		g.payment(1)
		g.payment(2)
		g.plane.SetTTL(time.Minute, tree(1)...)
		g.works()
		calls := g.traffic(3)
		for n := range 20 {
			switch random.IntN(4) {
			case 0:
				g.plane.Server.Stop()
				time.Sleep(time.Duration(random.IntN(15)) * time.Second)
				g.plane.Server.Restart()
			case 1:
				g.plane.EndStreams(nil)
			case 2:
				g.plane.Server.Freeze()
				time.Sleep(time.Duration(random.IntN(15)) * time.Second)
				g.plane.Server.Thaw()
			}
			g.plane.SetTTL(time.Minute, tree(1+n%2)...)
			time.Sleep(time.Duration(random.IntN(4000)) * time.Millisecond)
		}
		calls.report(120)
		g.plane.Server.Stop()
		time.Sleep(time.Minute + time.Second)
		g.each(time.Second, func(protocol, _ string, _ time.Duration, err error) {
			if err == nil {
				g.t.Errorf("%s: a call after the time to live", protocol)
			}
		})
	})
}
