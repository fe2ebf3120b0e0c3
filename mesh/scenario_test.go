package mesh_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/internal/tlstest"
)

func TestS01_AColdStartCostsTheFirstCallNoWait(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		g.payment(1)
		g.plane.Set(tree(1)...)
		g.works()
	})
}

func TestS02_CallsWaitForAControlPlaneThatIsLate(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		g.payment(1)
		g.plane.Set(tree(1)...)
		g.plane.Server.Stop()
		time.AfterFunc(20*time.Second, g.plane.Server.Restart)
		g.each(time.Second, func(protocol, _ string, took time.Duration, err error) {
			// The time that ran out is the caller's; the text says what for.
			if codeOf(err) != codes.DeadlineExceeded || took != time.Second || !strings.Contains(err.Error(), "is unavailable") {
				g.t.Errorf("%s: %v after %v, want that the control plane is away", protocol, err, took)
			}
		})
		g.each(time.Minute, func(protocol, _ string, took time.Duration, err error) {
			if err != nil || took < 18*time.Second || took > 35*time.Second {
				g.t.Errorf("%s: %v after %v, want success when the control plane is there", protocol, err, took)
			}
		})
		if n := len(g.plane.Server.Connects()); n != 1 {
			g.t.Errorf("%d connections", n)
		}
	})
}

func TestS03_AMissingListenerIsNamedAfter15Seconds(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		g.payment(1)
		g.plane.Silence(true)
		g.each(time.Minute, func(protocol, _ string, took time.Duration, err error) {
			if err == nil || !strings.Contains(err.Error(), groundHost) || took < 15*time.Second || took > 16*time.Second {
				g.t.Errorf("%s: %v after %v, want that the Listener does not exist after 15s", protocol, err, took)
			}
		})
		g.plane.Silence(false)
		g.plane.Set(tree(1)...)
		synctest.Wait()
		g.works()
	})
}

func TestS04_EndpointsThatComeAndGoFailNoCall(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		for number := range 10 {
			g.payment(number)
		}
		g.plane.Set(tree(0, 1, 2)...)
		g.works()
		calls := g.traffic(500)
		in := []int{0, 1, 2}
		removed := make(map[int]time.Time)
		added := make(map[int]time.Time)
		const rounds = 100
		for round := range rounds {
			next := (in[len(in)-1] + 1) % 10
			switch round % 3 {
			case 0: // one more
				in = append(in, next)
				added[next] = time.Now()
				delete(removed, next)
				g.plane.Set(groundEndpoints(in...)...)
			case 1: // another weight
				g.plane.Set(assignment(groundHTTP, groundHTTP, 1+round, in...), assignment(groundGRPC, groundGRPC, 1+round, in...))
			case 2: // one less
				removed[in[0]] = time.Now()
				in = in[1:]
				g.plane.Set(groundEndpoints(in...)...)
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		for number, at := range removed {
			if last := calls.lastCall(number); last.Sub(at) > time.Second {
				g.t.Errorf("payment %d was called %v after it was removed", number, last.Sub(at))
			}
		}
		for number, at := range added {
			if first := calls.firstCall(number); first.IsZero() || number > 2 && first.After(at) && first.Sub(at) > time.Second {
				g.t.Errorf("payment %d was called %v after it was added", number, first.Sub(at))
			}
		}
		calls.report(500 * rounds / 10)
	})
}

func TestS05_WhatWasGoodServesUntilTheMistakeIsMended(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		g.payment(1)
		g.plane.Set(tree(1)...)
		g.works()
		calls := g.traffic(50)
		before := g.resource(clusterURL, groundHTTP).Version
		bad := groundCluster(groundHTTP)
		bad.ConnectTimeout.Seconds = -1
		g.plane.Set(bad)
		time.Sleep(5 * time.Second)
		if got := g.resource(clusterURL, groundHTTP); got.State != "NACKED" || got.Version != before || got.RejectedVersion == "" || got.Err == nil {
			g.t.Errorf("the cluster is %+v", got)
		}
		nacks := g.plane.Rejections()
		if len(nacks) != 1 || nacks[0].Nonce == "" || !strings.Contains(nacks[0].Error.GetMessage(), "connect_timeout") {
			g.t.Errorf("rejections %v", nacks)
		}
		g.plane.Set(groundCluster(groundHTTP))
		time.Sleep(5 * time.Second)
		if got := g.resource(clusterURL, groundHTTP); got.State != "ACKED" || got.Err != nil {
			g.t.Errorf("the cluster is %+v", got)
		}
		calls.report(450)
	})
}

func TestS06_TheOtherClustersServeBesideABadOne(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		g.payment(1)
		g.plane.Set(tree(1)...)
		for _, port := range []string{groundHTTP, groundGRPC} {
			g.plane.Set(groundCluster("second-"+port), assignment("second-"+port, port, 1, 1), groundRoutes(port, port, "second-"+port))
		}
		g.works()
		calls := g.traffic(50)
		for _, port := range []string{groundHTTP, groundGRPC} {
			bad := groundCluster("third-" + port)
			bad.ConnectTimeout.Seconds = -1
			g.plane.Set(bad)
		}
		time.Sleep(time.Second)
		calls.report(40)
		g.plane.Set(groundRoutes(groundHTTP, groundHTTP, "second-"+groundHTTP, "third-"+groundHTTP))
		synctest.Wait()
		count := func() (served, refused int) {
			for range 300 {
				if _, err := g.callHTTP(g.t.Context()); err == nil {
					served++
				} else {
					refused++
				}
			}
			return served, refused
		}
		// The two that served go on to, and those who have never been served otherwise
		// have what the table says.
		if _, refused := count(); refused > 0 {
			g.t.Errorf("%d calls refused, want all of them served by the two", refused)
		}
		if got := g.resource(clusterURL, "third-"+groundHTTP); got.State != "NACKED" {
			g.t.Errorf("the cluster is %+v", got)
		}
		if err := g.mesh.Close(); err != nil {
			g.t.Error(err)
		}
		g.join(&bootstrap.Config{Servers: []bootstrap.Server{g.server("xds.test")}, Node: bootstrap.Node{ID: "customer-2"}})
		if served, refused := count(); served < 150 || refused < 60 {
			g.t.Errorf("%d calls served and %d refused, want a third of them refused", served, refused)
		}
	})
}

func TestS07_StreamsThatAreResetAllTheTimeFailNoCall(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		g.payment(1)
		g.plane.Set(tree(1)...)
		g.works()
		calls := g.traffic(20)
		synctest.Wait() // the last acknowledgements are under way
		g.plane.Requests()
		var firsts []time.Time
		for range 30 {
			time.Sleep(2 * time.Second)
			g.plane.EndStreams(status.Error(codes.Unavailable, "reset"))
			synctest.Wait()            // or the old stream may still acknowledge what comes next
			g.plane.Touch(endpointURL) // or a delta server would have nothing to say
			time.Sleep(1500 * time.Millisecond)
			asked := make(map[string]bool)
			for _, r := range g.plane.Requests() {
				if r.Node != nil {
					firsts = append(firsts, r.At)
				}
				if first := !asked[r.TypeURL]; first {
					g.checkFirst(r.TypeURL, r)
				}
				asked[r.TypeURL] = true
			}
			if len(asked) != 4 {
				g.t.Errorf("%d types were asked for after a reset", len(asked))
			}
		}
		if n := perSecond(firsts); n > 1 {
			g.t.Errorf("%d streams within a second", n)
		}
		calls.report(2000)
	})
}

// checkFirst checks the first request of a type after a reset.
func (g *ground) checkFirst(typeURL string, r *adstest.Request) {
	g.t.Helper()
	names := 2
	switch got := append(r.Names, r.Subscribe...); {
	case len(got) != names || r.Nonce != "" || r.Error != nil:
		g.t.Errorf("first request of %s: %v", typeURL, r)
	case len(r.Names) > 0 && r.Version == "", len(r.Subscribe) > 0 && len(r.InitialVersions) != names:
		g.t.Errorf("first request of %s has no versions: %v", typeURL, r)
	}
}

func TestS08_AFrozenControlPlaneFailsNoCall(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		g.payment(1)
		g.plane.Set(tree(1)...)
		g.works()
		calls := g.traffic(20)
		g.plane.Silence(true)
		g.plane.EndStreams(nil)
		time.Sleep(5 * time.Second)
		start := time.Now()
		resp, err := g.client.Get("http://unknown.shop:80/")
		if err == nil {
			resp.Body.Close()
		}
		if took := time.Since(start); err == nil || took < 15*time.Second || took > 16*time.Second {
			g.t.Errorf("an unknown host: %v after %v", err, took)
		}
		time.Sleep(5 * time.Minute)
		calls.report(6000)
	})
}

func TestS09_AReconnectOverDeltaBringsNothingTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGround(t, func(c *bootstrap.Config) { c.Servers[0].API = bootstrap.APIDelta })
		g.payment(1)
		const clusters = 1000
		resources := tree(1)
		names := make([]string, 0, clusters)
		for i := range clusters {
			name := fmt.Sprintf("c-%d", i)
			names = append(names, name)
			resources = append(resources, groundCluster(name), assignment(name, groundHTTP, 1, 1))
		}
		resources = append(resources, groundRoutes(groundHTTP, names...))
		g.plane.Set(resources...)
		g.works()
		calls := g.traffic(50)
		synctest.Wait()
		want := make(map[string]string)
		for _, s := range g.mesh.Resources() {
			want[s.TypeURL+" "+s.Name] = s.Version
		}
		g.plane.Requests()
		sent := g.plane.Answers().Sent
		g.plane.EndStreams(nil)
		time.Sleep(20 * time.Second)
		got := make(map[string]string)
		for _, r := range g.plane.Requests() {
			for name, version := range r.InitialVersions {
				got[r.TypeURL+" "+name] = version
			}
		}
		if len(want) != 2*clusters+6 || !maps.Equal(got, want) {
			t.Errorf("%d versions were told after a reconnect, want exactly the %d that are held", len(got), len(want))
		}
		if again := g.plane.Answers().Sent - sent; again != 0 {
			t.Errorf("%d responses after a reconnect", again)
		}
		calls.report(900)
	})
}

func TestS10_EndpointsThatAreWronglyRemovedGoOnServing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGround(t, func(c *bootstrap.Config) { c.Servers[0].API = bootstrap.APIDelta })
		g.payment(1)
		g.plane.Set(tree(1)...)
		g.works()
		calls := g.traffic(20)
		g.plane.Remove(endpointURL, groundHTTP, groundGRPC)
		g.plane.Remove(routeURL, groundHTTP, groundGRPC)
		time.Sleep(time.Minute)
		for _, url := range []string{endpointURL, routeURL} {
			if got := g.resource(url, groundHTTP); got.State != "DOES_NOT_EXIST" || got.Version == "" || got.Err == nil {
				t.Errorf("%s is %+v, want that it is kept and reported", url, got)
			}
		}
		calls.report(1100)
	})
}

func TestS11_AResourceLivesAsLongAsItsTimeToLive(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		g.payment(1)
		g.plane.Set(tree(1)...)
		g.plane.SetTTL(10*time.Second, groundListener(groundHTTP))
		g.works()
		calls := g.traffic(20)
		for range 6 { // heartbeats, in the form of the same resource again
			time.Sleep(8 * time.Second)
			g.plane.SetTTL(10*time.Second, groundListener(groundHTTP))
		}
		calls.report(900)
		time.Sleep(9 * time.Second)
		if _, err := g.callHTTP(g.t.Context()); err != nil {
			g.t.Errorf("within the time to live: %v", err)
		}
		time.Sleep(2 * time.Second)
		ctx, cancel := context.WithTimeout(g.t.Context(), 5*time.Second)
		defer cancel()
		if _, err := g.callHTTP(ctx); err == nil {
			g.t.Error("a call after the time to live succeeded")
		}
		if _, err := g.callGRPC(ctx); err != nil {
			g.t.Errorf("the other destination: %v", err)
		}
	})
}

func TestS12_CallsToOneAuthorityDoNotNeedTheOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &ground{t: t, network: newGroundNetwork()}
		g.plane = adstest.Serve(t, adstest.Config{Network: g.network})
		far := adstest.Serve(t, adstest.Config{Network: g.network, Address: "far.test"})
		g.join(&bootstrap.Config{
			Servers:     []bootstrap.Server{g.server("xds.test")},
			Authorities: map[string]bootstrap.Authority{"far": {Servers: []bootstrap.Server{g.server("far.test")}}},
			Node:        bootstrap.Node{ID: "customer-1"},
		})
		g.payment(1)
		// HTTP is near, and gRPC needs a cluster of the far authority.
		const cluster = "xdstp://far/envoy.config.cluster.v3.Cluster/payment?b=2&a=1"
		const endpoints = "xdstp://far/envoy.config.endpoint.v3.ClusterLoadAssignment/payment"
		remote := groundCluster(cluster)
		remote.EdsClusterConfig.ServiceName = endpoints
		g.plane.Set(tree(1)...)
		g.plane.Set(groundRoutes(groundGRPC, cluster))
		remote.Name = "xdstp://far/envoy.config.cluster.v3.Cluster/payment?a=1&b=2"
		far.Set(remote, assignment(endpoints, groundGRPC, 1, 1))

		far.Server.Stop()
		g.each(5*time.Second, func(protocol, _ string, took time.Duration, err error) {
			if (err == nil) != (protocol == "HTTP") {
				t.Errorf("%s: %v after %v", protocol, err, took)
			}
		})
		far.Server.Restart()
		time.Sleep(10 * time.Second)
		g.works()
		far.Server.Stop()
		time.Sleep(time.Minute)
		g.works()
	})
}

func TestS12_ATargetMayNameItsAuthority(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &ground{t: t, network: newGroundNetwork()}
		g.plane = adstest.Serve(t, adstest.Config{Network: g.network})
		far := adstest.Serve(t, adstest.Config{Network: g.network, Address: "far.test"})
		g.join(&bootstrap.Config{
			Servers:     []bootstrap.Server{g.server("xds.test")},
			Authorities: map[string]bootstrap.Authority{"Far": {Servers: []bootstrap.Server{g.server("far.test")}}},
			Node:        bootstrap.Node{ID: "customer-1"},
		})
		g.payment(1)
		listener := groundListener(groundGRPC)
		listener.Name = "xdstp://Far/envoy.config.listener.v3.Listener/" + groundHost + ":" + groundGRPC
		far.Set(listener)
		g.plane.Set(tree(1)...) // routes, clusters and endpoints have plain names
		g.plane.Remove(listenerURL, groundHost+":"+groundGRPC)
		for target, works := range map[string]bool{
			"xds://Far/" + groundHost + ":" + groundGRPC:    true,
			"mesh://Far/" + groundHost + ":" + groundGRPC:   true,
			"xds:///" + groundHost + ":" + groundGRPC:       false,
			"xds://Nobody/" + groundHost + ":" + groundGRPC: false,
		} {
			conn, err := grpc.NewClient(target, g.mesh.DialOptions()...)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			_, err = grpc_testing.NewTestServiceClient(conn).UnaryCall(ctx, &grpc_testing.SimpleRequest{})
			cancel()
			if (err == nil) != works || !works && status.Code(err) != codes.Unavailable {
				t.Errorf("%s: %v", target, err)
			}
			_ = conn.Close()
		}
	})
}

func TestS13_ARotationAtTheControlPlaneIsNoMatterOfCalls(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "root.pem")
	synctest.Test(t, func(t *testing.T) {
		authority := tlstest.NewCA(t)
		trust := func(cas ...*tlstest.CA) {
			var bundle []byte
			for _, ca := range cas {
				certificate, _ := ca.PEM(t)
				bundle = append(bundle, certificate...)
			}
			if err := os.WriteFile(root, bundle, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		trust(authority)
		var certificate atomic.Pointer[tls.Certificate]
		rotate := func(ca *tlstest.CA) {
			issued := ca.Issue(t, tlstest.Leaf{DNSNames: []string{"xds.test"}})
			certificate.Store(&issued)
		}
		rotate(authority)
		g := &ground{t: t, network: newGroundNetwork()}
		g.plane = adstest.Serve(t, adstest.Config{Network: g.network, Credentials: credentials.NewTLS(&tls.Config{
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate.Load(), nil },
			MinVersion:     tls.VersionTLS13,
		})})
		server := g.server("xds.test")
		server.ChannelCreds = bootstrap.Credentials{Type: "tls", Config: fmt.Appendf(nil, `{"ca_certificate_file": %q}`, root)}
		g.join(&bootstrap.Config{Servers: []bootstrap.Server{server}, Node: bootstrap.Node{ID: "customer-1"}})
		g.payment(1)
		g.payment(2)
		g.plane.Set(tree(1)...)
		g.works()
		calls := g.traffic(20)

		rotate(authority)
		time.Sleep(10 * time.Second)
		if n := len(g.plane.Server.Connects()); n != 1 {
			t.Errorf("%d connections, want that the first one survives", n)
		}
		next := tlstest.NewCA(t)
		trust(authority, next)
		rotate(next)
		g.plane.Server.Stop()
		g.plane.Server.Restart()
		time.Sleep(30 * time.Second)
		g.plane.Set(tree(2)...) // which shows that the stream is there
		time.Sleep(2 * time.Second)
		if last := calls.lastCall(1); time.Since(last) < time.Second {
			t.Errorf("the payment that was removed was called %v ago", time.Since(last))
		}
		calls.report(800)
	})
}

func TestX52_NoStatusOfTheControlPlaneReachesTheCaller(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{
		codes.OK, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.Aborted,
		codes.OutOfRange, codes.DataLoss, codes.PermissionDenied, codes.Unauthenticated,
	} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := newGround(t)
				refused := grpc.StreamInterceptor(func(any, grpc.ServerStream, *grpc.StreamServerInfo, grpc.StreamHandler) error {
					return status.Error(code, "the control plane's own")
				})
				g.plane.Server.Stop()
				ln, err := g.network.Listen("xds.test")
				if err != nil {
					t.Fatal(err)
				}
				server := refusing(ln, refused)
				defer server()
				g.each(3*time.Second, func(protocol, _ string, _ time.Duration, err error) {
					// What ran out is the caller's time.
					if got := codeOf(err); got != codes.DeadlineExceeded || !strings.Contains(err.Error(), "is unavailable") {
						t.Errorf("%s: code %v of %v", protocol, got, err)
					}
				})
			})
		})
	}
}

// refusing serves nothing but a status.
func refusing(ln net.Listener, option grpc.ServerOption) (stop func()) {
	server := grpc.NewServer(option, grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return errors.New("unreachable") }))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ln)
	}()
	return func() {
		server.Stop()
		<-done
	}
}

func TestX72_AClusterWithoutItsCertificatesIsNotUsed(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		g.payment(1)
		g.plane.Set(tree(1)...)
		secure := parsed(groundCluster("secure"), `{"name": "secure", "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}, "serviceName": "80"},
			"transportSocket": {"name": "envoy.transport_sockets.tls", "typedConfig": {
				"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
				"commonTlsContext": {
					"tlsCertificateProviderInstance": {"instanceName": "absent"},
					"combinedValidationContext": {
						"defaultValidationContext": {"matchSubjectAltNames": [{"exact": "spiffe://cluster.local/ns/shop/sa/payment"}]},
						"validationContextCertificateProviderInstance": {"instanceName": "absent"}}}}}}`)
		g.plane.Set(secure, groundRoutes(groundHTTP, groundHTTP, "secure"))
		synctest.Wait()
		served, refused := 0, 0
		for range 200 {
			switch _, err := g.callHTTP(g.t.Context()); {
			case err == nil:
				served++
			case strings.Contains(err.Error(), `cluster "secure"`) && strings.Contains(err.Error(), `"absent" is not configured`):
				refused++
			default:
				g.t.Fatal(err)
			}
		}
		// A payment would answer in plaintext, so each refusal is one of TLS.
		if served < 60 || refused < 60 {
			g.t.Errorf("%d calls served and %d refused, want a half of each", served, refused)
		}
	})
}
