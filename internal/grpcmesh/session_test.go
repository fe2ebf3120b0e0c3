package grpcmesh_test

import (
	"context"
	"encoding/base64"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

// A caller stays with one backend, while it drains too, until it is gone. What the
// caller brings reaches no backend of another cluster.
func TestS22_BL10_StickyCookie(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			var asked sync.Map // the addresses that connections were wanted to
			f.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				asked.Store(address, true)
				return f.network.DialContext(ctx, network, address)
			}
			stranger := &backend{}
			f.serve("10.0.9.9:9090", stranger)
			backends, c := balanced(f, 2, balancer.Config{Pinnable: balancer.NewHealthSet(balancer.Unknown, balancer.Healthy, balancer.Draining)})
			session := &discovery.StatefulSession{Cookie: "session", NewCookie: &discovery.NewCookie{}, Strict: strict, StatusMissing: 503}
			configure := func(endpoints ...balancer.Endpoint) {
				c.Endpoints = &discovery.Assignment{Name: "main", Localities: []discovery.LocalityEndpoints{{Weight: 1, Endpoints: endpoints}}}
				f.source.setTarget(target, &discovery.Target{
					Name:     target,
					Listener: &discovery.APIListener{Name: target, Filters: []discovery.HTTPFilter{{Name: "session", Config: session}}},
					Routes: &discovery.RouteTable{Name: target, VirtualHosts: []*discovery.VirtualHost{{
						Name: target, Domains: []string{"*"}, Routes: []*discovery.Route{forward("main")},
					}}},
					Clusters: clustersByName([]discovery.ClusterResult{c}),
				})
				synctest.Wait()
			}
			ends := []balancer.Endpoint{{Address: "10.0.1.1:9090"}, {Address: "10.0.1.2:9090"}}
			configure(ends...)
			client := f.client()
			call := func(cookie string) (set string, err error) {
				ctx := withTimeout(t)
				if cookie != "" {
					ctx = metadata.AppendToOutgoingContext(ctx, "cookie", "session="+cookie)
				}
				var header metadata.MD
				_, err = client.EmptyCall(ctx, &grpc_testing.Empty{}, grpc.Header(&header))
				if values := header.Get("set-cookie"); len(values) > 0 {
					set, _, _ = strings.Cut(strings.TrimPrefix(values[0], `session="`), `"`)
				}
				return set, err
			}
			state := func(address string) string { return base64.StdEncoding.EncodeToString([]byte(address)) }

			cookie, err := call("")
			mine := 0
			if backends[1].calls.Load() == 1 {
				mine = 1
			}
			if want := state(ends[mine].Address); err != nil || cookie != want {
				t.Fatalf("the cookie is %q, %v, want %q", cookie, err, want)
			}
			stays := func(when string) {
				t.Helper()
				before := backends[mine].calls.Load()
				for range 10 {
					if set, err := call(cookie); set != "" || err != nil {
						t.Errorf("%s: the cookie is set to %q, %v", when, set, err)
					}
				}
				if got := backends[mine].calls.Load() - before; got != 10 {
					t.Errorf("%s: %d of 10 calls stayed", when, got)
				}
			}
			stays("in the beginning")
			ends[mine].Health = balancer.Draining
			configure(ends...)
			stays("while the backend drains")
			before := backends[mine].calls.Load()
			for range 10 {
				if _, err := call(""); err != nil {
					t.Fatal(err)
				}
			}
			if backends[mine].calls.Load() != before {
				t.Error("a new caller came to the backend that drains")
			}
			configure(ends[1-mine])
			for _, gone := range []string{
				cookie, state("10.0.9.9:9090"), state("10.0.9.8:9090"), state("127.0.0.1:22"), state("[::1]:80"), state(":9090"), state("10.0.9.9"),
				state("10.0.9.9:9090;main"), state("10.0.9.9:9090;other"), state("10.0.9.9:9090,10.0.9.8:9090"), state("10.0.9.9:9090\x00" + ends[1-mine].Address),
			} {
				set, err := call(gone)
				if strict && status.Code(err) != codes.Unavailable || !strict && (err != nil || set != state(ends[1-mine].Address)) {
					t.Errorf("to a backend that is not there: cookie %q, %v", set, err)
				}
			}
			for _, nothing := range []string{"", "!", "=", state(""), strings.TrimRight(state("10.0.9.9:9090"), "="), state(strings.Repeat("10.0.9.9:9090,", 500))} {
				if set, err := call(nothing); err != nil || set != state(ends[1-mine].Address) {
					t.Errorf("%.100q: cookie %q, %v", nothing, set, err)
				}
			}
			asked.Range(func(address, _ any) bool {
				if address != ends[0].Address && address != ends[1].Address {
					t.Errorf("%v was dialed", address)
				}
				return true
			})
			if n := stranger.calls.Load(); n != 0 {
				t.Errorf("%d calls reached the backend of another cluster", n)
			}
		})
	}
}

// TestBL10_ABackendIsFoundByEachOfItsAddresses, as over HTTP.
func TestBL10_ABackendIsFoundByEachOfItsAddresses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		backends, c := balanced(f, 2, balancer.Config{})
		c.Endpoints.Localities[0].Endpoints[0].Additional = []string{"[fd00::1]:9090"}
		c.Endpoints.Localities[0].Endpoints[1].Additional = []string{"[fd00::2]:9090"}
		f.source.setTarget(target, &discovery.Target{
			Name: target,
			Listener: &discovery.APIListener{Name: target, Filters: []discovery.HTTPFilter{{
				Name: "session", Config: &discovery.StatefulSession{Header: "x-session", Strict: true, StatusMissing: 503},
			}}},
			Routes: &discovery.RouteTable{Name: target, VirtualHosts: []*discovery.VirtualHost{{
				Name: target, Domains: []string{"*"}, Routes: []*discovery.Route{forward("main")},
			}}},
			Clusters: clustersByName([]discovery.ClusterResult{c}),
		})
		client := f.client()
		call := func(addresses string) (string, error) {
			ctx := metadata.AppendToOutgoingContext(withTimeout(t), "x-session", base64.StdEncoding.EncodeToString([]byte(addresses)))
			var header metadata.MD
			_, err := client.EmptyCall(ctx, &grpc_testing.Empty{}, grpc.Header(&header))
			if set := header.Get("x-session"); len(set) > 0 {
				text, err := base64.StdEncoding.DecodeString(set[0])
				return string(text), err
			}
			return "", err
		}
		const whole = "10.0.1.2:9090,[fd00::2]:9090"
		for brought, want := range map[string]string{
			whole: "", "[fd00::2]:9090": whole, "10.9.9.9:9090,[fd00::2]:9090": whole,
		} {
			before := backends[1].calls.Load()
			if set, err := call(brought); set != want || err != nil || backends[1].calls.Load() != before+1 {
				t.Errorf("%s: the header is set to %q, %v, want %q", brought, set, err, want)
			}
		}
		if _, err := call("10.9.9.9:9090,[fd00::9]:9090"); status.Code(err) != codes.Unavailable {
			t.Errorf("addresses of nobody: %v", err)
		}
	})
}

// TestBL10_SessionsStayInTheirCluster: with several clusters the header names one, and an
// address of one of them is no address of another, as over HTTP.
func TestBL10_SessionsStayInTheirCluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		addresses := []string{"10.0.1.1:9090", "10.0.1.2:9090"}
		backends := []*backend{{}, {}}
		for i, b := range backends {
			f.serve(addresses[i], b)
		}
		r := forward("v1")
		r.Forward.Clusters = []discovery.WeightedCluster{{Name: "v1", Weight: 50}, {Name: "v2", Weight: 50}, {Name: "v3"}}
		f.source.setTarget(target, &discovery.Target{
			Name: target,
			Listener: &discovery.APIListener{Name: target, Filters: []discovery.HTTPFilter{{
				Name: "session", Config: &discovery.StatefulSession{Header: "x-session", Strict: true, StatusMissing: 503},
			}}},
			Routes: &discovery.RouteTable{Name: target, VirtualHosts: []*discovery.VirtualHost{{
				Name: target, Domains: []string{"*"}, Routes: []*discovery.Route{r},
			}}},
			Clusters: clustersByName([]discovery.ClusterResult{cluster("v1", addresses[0]), cluster("v2", addresses[1])}),
		})
		client := f.client()
		call := func(state string) (set string, err error) {
			ctx := withTimeout(t)
			if state != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "x-session", base64.StdEncoding.EncodeToString([]byte(state)))
			}
			var header metadata.MD
			_, err = client.EmptyCall(ctx, &grpc_testing.Empty{}, grpc.Header(&header))
			if values := header.Get("x-session"); len(values) > 0 {
				text, _ := base64.StdEncoding.DecodeString(values[0])
				set = string(text)
			}
			return set, err
		}
		for range 20 {
			if set, err := call(addresses[1] + ";v2"); set != "" || err != nil {
				t.Fatalf("set to %q, %v", set, err)
			}
		}
		if backends[0].calls.Load() != 0 {
			t.Error("a session changed its cluster")
		}
		before := backends[1].calls.Load()
		for _, forged := range []string{";v1", ";v3", ";v4", ";", ";v2;v1"} {
			if _, err := call(addresses[1] + forged); status.Code(err) != codes.Unavailable {
				t.Errorf("%q: %v", forged, err)
			}
		}
		if backends[0].calls.Load() != 0 || backends[1].calls.Load() != before {
			t.Error("a forged session has come to a backend")
		}
		if set, err := call(""); err != nil || set != addresses[0]+";v1" && set != addresses[1]+";v2" {
			t.Errorf("set to %q, %v", set, err)
		}
	})
}
