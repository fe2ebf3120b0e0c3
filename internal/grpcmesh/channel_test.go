package grpcmesh_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
	"github.com/inboardmesh/inboard/retry"
)

func TestNoCallFailsWhileOneEndpointIsUp(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				up := &backend{}
				f.serve("10.0.0.3:1", up)
				f.forwardTo("10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1") // nobody listens at the first two
				client := f.client()
				for range 100 {
					if err := kind.call(withTimeout(t), client); err != nil {
						t.Fatal(err)
					}
					time.Sleep(50 * time.Millisecond) // back-offs pass, and connects fail again
				}
			})
		})
	}
}

// TestAnEndpointThatGoesDownIsReplaced: its server stops without a word to the
// control plane, and no call was under way.
func TestAnEndpointThatGoesDownIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		down := f.serve("10.0.0.1:1", &backend{})
		f.serve("10.0.0.2:1", &backend{})
		f.forwardTo("10.0.0.1:1", "10.0.0.2:1")
		client := f.client()
		for i := range 40 {
			if i == 20 {
				down.stop()
				synctest.Wait()
			}
			if err := callUnary(withTimeout(t), client); err != nil {
				t.Fatalf("call %d: %v", i, err)
			}
		}
	})
}

// TestAnEndpointThatComesBackIsUsedAtOnce: the only one of a cluster, after a
// time in which connects failed again and again.
func TestAnEndpointThatComesBackIsUsedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		first := f.serve(endpoint, &backend{})
		f.forwardTo(endpoint)
		client := f.client()
		if err := callUnary(withTimeout(t), client); err != nil {
			t.Fatal(err)
		}
		first.stop()
		synctest.Wait()
		for range 20 {
			err := callUnary(withTimeout(t), client)
			checkFailure(t, err, outcome.ConnectFailure, codes.Unavailable, 1)
			if failure, _ := errors.AsType[*meshfail.Error](err); failure == nil || !failure.SafeToRetry() || failure.Endpoint != endpoint {
				t.Errorf("%v: %+v", err, failure)
			}
			time.Sleep(3 * time.Second)
		}
		f.serve(endpoint, &backend{})
		if err := callUnary(withTimeout(t), client); err != nil {
			t.Errorf("after the restart: %v", err)
		}
	})
}

// TestG7_ASilentEndpointCostsOneConnectTimeout: packets to it are lost. The call
// that has to find out waits for the cluster's connect timeout; the others go
// elsewhere, also while it is tried again.
func TestG7_ASilentEndpointCostsOneConnectTimeout(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{200 * time.Millisecond, 3 * time.Second} {
		t.Run(timeout.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					if address == "10.0.0.1:1" {
						<-ctx.Done()
						return nil, ctx.Err()
					}
					return f.network.DialContext(ctx, network, address)
				}
				f.serve("10.0.0.2:1", &backend{})
				c := cluster("main", "10.0.0.1:1", "10.0.0.2:1")
				c.Cluster.ConnectTimeout = timeout
				f.configure(forward("main"), c)
				client := f.client()
				var slow int
				for range 2000 {
					start := time.Now()
					if err := callUnary(withTimeout(t), client); err != nil {
						t.Fatal(err)
					}
					switch took := time.Since(start); {
					case took > timeout:
						t.Fatalf("a call took %v", took)
					case took > 0:
						slow++
					}
					time.Sleep(100 * time.Millisecond)
				}
				if slow != 1 {
					t.Errorf("%d calls waited", slow)
				}
			})
		})
	}
}

func TestBT6_AConnectTimeoutIsTheClusters(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{200 * time.Millisecond, 10 * time.Second} { // 10 s is Istio's default
		t.Run(timeout.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				c := cluster("main", endpoint)
				c.Cluster.ConnectTimeout = timeout
				f.configure(forward("main"), c)
				start := time.Now()
				err := callUnary(t.Context(), f.client())
				if got := time.Since(start); got != timeout {
					t.Errorf("%v after %v", err, got)
				}
				checkFailure(t, err, outcome.ConnectFailure, codes.Unavailable, 1)
			})
		})
	}
}

func TestWaitForReadyWaitsForAnEndpoint(t *testing.T) {
	t.Parallel()
	prepare := []struct {
		name   string
		before func(f *fixture)
		then   func(f *fixture)
	}{
		{"that comes up", func(f *fixture) { f.forwardTo(endpoint) }, func(f *fixture) { f.serve(endpoint, &backend{}) }},
		{
			"that is added", func(f *fixture) { f.forwardTo() },
			func(f *fixture) { f.serve(endpoint, &backend{}); f.forwardTo(endpoint) },
		},
		{"of a target that is configured later", func(*fixture) {}, func(f *fixture) { f.serve(endpoint, &backend{}); f.forwardTo(endpoint) }},
	}
	for _, p := range prepare {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				p.before(f)
				client := f.client(grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
				done := make(chan error, 1)
				go func() { done <- callUnary(withTimeout(t), client) }()
				time.Sleep(3 * time.Second)
				select {
				case err := <-done:
					t.Fatalf("did not wait: %v", err)
				default:
				}
				p.then(f)
				start := time.Now()
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				if got := time.Since(start); got > 12*time.Second {
					t.Errorf("waited for %v more", got)
				}
			})
		})
	}
}

func TestAClusterWithoutEndpointsIsUnavailableAtOnce(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.configure(retrying(3, ^retry.Conditions(0)), cluster("main"))
				client := f.client()
				start := time.Now()
				err := kind.call(withTimeout(t), client)
				if got := time.Since(start); got != 0 {
					t.Errorf("failed after %v", got)
				}
				checkFailure(t, err, outcome.NoEndpoint, codes.Unavailable, 1)
				if !strings.Contains(err.Error(), `cluster "main": no endpoint in the cluster`) {
					t.Errorf("text %q", err)
				}
			})
		})
	}
}
