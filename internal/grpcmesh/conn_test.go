package grpcmesh_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

func TestConnectionsAreReported(t *testing.T) {
	t.Parallel()
	for _, transport := range transports {
		t.Run(transport.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				transport.start(f, &backend{})
				conn := f.channel()
				if err := conn.Invoke(withTimeout(t), "/grpc.testing.TestService/EmptyCall", &grpc_testing.Empty{}, &grpc_testing.Empty{}); err != nil {
					t.Fatal(err)
				}
				want := observe.ConnEvent{Cluster: "main", Endpoint: endpoint, Protocol: "grpc"}
				if f.identities["default"] != nil {
					want.TLS, want.PeerID = true, paymentID
				}
				opened, closed := f.seen.connections()
				if len(opened) != 1 || opened[0] != want || len(closed) != 0 {
					t.Errorf("opened %+v, closed %+v", opened, closed)
				}
				time.Sleep(time.Minute)
				if err := conn.Close(); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				want.Duration = time.Minute
				if _, closed = f.seen.connections(); len(closed) != 1 || closed[0] != want {
					t.Errorf("closed %+v, want %+v", closed, want)
				}
			})
		})
	}
}

func TestAConnectionThatCannotBeMadeIsReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.forwardTo(endpoint)
		if err := callUnary(withTimeout(t), f.client()); err == nil {
			t.Fatal("a call succeeded")
		}
		opened, closed := f.seen.connections()
		if len(opened) == 0 || opened[0].Err == nil || opened[0].Cluster != "main" || opened[0].Endpoint != endpoint || len(closed) != 0 {
			t.Errorf("opened %+v, closed %+v", opened, closed)
		}
	})
}

// TestS34_APeerThatIsNotWhoItShouldBeGetsNoCall. The reason is in the error of
// the caller, who refused.
func TestS34_APeerThatIsNotWhoItShouldBeGetsNoCall(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		leaf tlstest.Leaf
		want string
	}{
		{"another workload", tlstest.Leaf{URIs: []string{"spiffe://cluster.local/ns/shop/sa/other"}}, "spiffe://cluster.local/ns/shop/sa/other"},
		{"another trust domain", tlstest.Leaf{URIs: []string{"spiffe://elsewhere/ns/shop/sa/payment"}}, "spiffe://elsewhere/ns/shop/sa/payment"},
		// A server of the mesh notices by itself, and does not present it.
		{"an expired certificate", tlstest.Leaf{URIs: []string{paymentID}, NotAfter: time.Unix(0, 0)}, "remote error: tls: internal error"},
	}
	for _, tt := range tests {
		for _, kind := range callKinds {
			t.Run(tt.name+", "+kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					ca := f.identify(paymentID)
					f.configure(forward("main"), mutual(cluster("main", endpoint), paymentID))
					in := strict(endpoint)
					in.Chains[0].TLS.IdentityInstance = "bad"
					leaf := tt.leaf
					if !leaf.NotAfter.IsZero() {
						leaf.NotBefore, leaf.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Second)
					}
					identity, err := meshtls.NewIdentity(ca.Issue(t, leaf), roots(ca))
					if err != nil {
						t.Fatal(err)
					}
					f.identities["bad"] = meshtls.NewStatic(identity)
					b := &backend{}
					f.serveAs(in, b)
					time.Sleep(time.Minute)
					err = kind.call(withTimeout(t), f.client())
					checkFailure(t, err, outcome.ConnectFailure, codes.Unavailable, 1)
					if failure, _ := errors.AsType[*meshfail.Error](err); failure == nil || !failure.SafeToRetry() {
						t.Errorf("%+v", failure)
					}
					if !strings.Contains(err.Error(), tt.want) || b.calls.Load() != 0 {
						t.Errorf("%v after %d calls", err, b.calls.Load())
					}
					synctest.Wait()
					if opened, _ := f.seen.connections(); len(opened) == 0 || opened[0].Err == nil {
						t.Errorf("opened %+v", opened)
					}
				})
			})
		}
	}
}
