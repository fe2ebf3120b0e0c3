package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// hangingNetwork is one on which nothing gets on: what is dialed hangs, or is a
// connection over which nothing is read and nothing comes.
type hangingNetwork struct {
	silent bool

	mu    sync.Mutex
	hangs bool       // guarded by mu; or it refuses
	dials int        // guarded by mu
	peers []net.Conn // guarded by mu
}

func (n *hangingNetwork) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	n.mu.Lock()
	hangs := n.hangs
	n.dials++
	n.mu.Unlock()
	if !hangs {
		return nil, &mesh.Error{Kind: outcome.UnknownHost} // the World asks for some
	}
	if !n.silent {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	// Without a buffer, as nobody reads: the first write hangs already.
	client, server := net.Pipe()
	n.mu.Lock()
	n.peers = append(n.peers, server)
	n.mu.Unlock()
	return client, nil
}

// hang has it hang from now on.
func (n *hangingNetwork) hang() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hangs, n.dials = true, 0
}

func (n *hangingNetwork) close() {
	for _, c := range n.peers {
		_ = c.Close()
	}
}

// TestCloseEndsWhatIsBeingConnected: whoever waits for a connection that is being made,
// in whatever protocol, is told at once, and nothing goes on with it.
func TestCloseEndsWhatIsBeingConnected(t *testing.T) {
	t.Parallel()
	for _, silent := range []bool{false, true} {
		for _, mode := range []string{"STRICT", "DISABLE"} {
			for call := range connectingCalls(t, nil) {
				t.Run(fmt.Sprintf("%s, silent %v, %s", call, silent, mode), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						w := meshtest.New(t)
						w.Service("payment.shop", meshtest.HTTP(80, http.NotFoundHandler()), meshtest.GRPC(90, func(r grpc.ServiceRegistrar) {
							grpc_testing.RegisterTestServiceServer(r, grpc_testing.UnimplementedTestServiceServer{})
						}), meshtest.TCP(5432, func(net.Conn) {}))
						w.Service("ledger.shop", meshtest.HTTP(80, http.NotFoundHandler()))
						w.Apply(fmt.Sprintf(connectingRules, mode))
						network := &hangingNetwork{silent: silent}
						defer network.close()
						var closed atomic.Bool
						var late atomic.Int64
						m := w.Workload("customer.shop", meshtest.Hooks(lateHooks(&closed, &late)), meshtest.Mesh(
							mesh.Network{Dial: network.dial, Transport: &http.Transport{DialContext: network.dial}}, mesh.WithOutboundPolicy(mesh.AllowAny)))
						network.hang()
						run := connectingCalls(t, m)[call]
						var calls sync.WaitGroup
						var ended time.Time
						calls.Go(func() {
							if err := run(t.Context()); !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) { // as net.Pipe has it
								t.Errorf("the call ended with %v", err)
							}
							ended = time.Now()
						})
						synctest.Wait()
						if network.dials == 0 {
							t.Fatal("nothing is being connected")
						}
						begun := time.Now()
						var closes sync.WaitGroup
						for range 2 {
							closes.Go(func() {
								if err := m.Close(); err != nil {
									t.Error(err)
								}
							})
						}
						closes.Wait()
						if took := time.Since(begun); took > 0 {
							t.Errorf("Close took %v", took)
						}
						calls.Wait()
						if after := ended.Sub(begun); after > 0 {
							t.Errorf("the caller was told %v after Close", after)
						}
						synctest.Wait() // what its goroutine tells of the call
						closed.Store(true)
						before := network.dials
						time.Sleep(48 * time.Hour)
						if n := late.Load(); n > 0 {
							t.Errorf("%d hooks were called after Close", n)
						}
						if network.dials != before {
							t.Errorf("%d dials after Close", network.dials-before)
						}
					})
				})
			}
		}
	}
}

const connectingRules = `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec:
  host: payment
  trafficPolicy: {connectionPool: {tcp: {connectTimeout: 60s}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ledger, namespace: shop}
spec:
  host: ledger
  trafficPolicy: {connectionPool: {tcp: {connectTimeout: 60s}, http: {h2UpgradePolicy: UPGRADE}}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: %s}}
`

// lateHooks count what is told once closed is set.
func lateHooks(closed *atomic.Bool, late *atomic.Int64) *observe.Hooks {
	note := func() {
		if closed.Load() {
			late.Add(1)
		}
	}
	return &observe.Hooks{
		ConnOpened: func(observe.ConnEvent) { note() }, ConnClosed: func(observe.ConnEvent) { note() },
		StreamChanged: func(observe.StreamEvent) { note() }, ResourceAccepted: func(observe.ResourceEvent) { note() },
		HealthChecked: func(observe.HealthCheck) { note() }, HealthChanged: func(observe.HealthEvent) { note() },
		EndpointEjected: func(observe.EjectionEvent) { note() }, EndpointReturned: func(observe.EjectionEvent) { note() },
		NameResolved: func(observe.ResolveEvent) { note() }, Mirrored: func(observe.MirrorEvent) { note() },
		CertificateChanged: func(observe.CertificateEvent) { note() }, HandshakeFailed: func(observe.HandshakeEvent) { note() },
		CallEnded: func(context.Context, *observe.Call) { note() }, AttemptEnded: func(context.Context, *observe.Attempt) { note() },
	}
}

// connectingCalls are calls that need a connection.
func connectingCalls(t *testing.T, m *mesh.Mesh) map[string]func(context.Context) error {
	t.Helper()
	overHTTP := func(url string) func(context.Context) error {
		return func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
			if err != nil {
				return err
			}
			resp, err := m.Transport().RoundTrip(req)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				err = errors.Join(err, resp.Body.Close())
			}
			return err
		}
	}
	tcp := func(address string) func(context.Context) error {
		return func(ctx context.Context) error {
			conn, err := m.Dial(ctx, "tcp", address)
			if err != nil {
				return err
			}
			defer conn.Close()
			if address == "outside.example:5432" {
				return net.ErrClosed // it is the caller's alone
			}
			_, err = conn.Read(make([]byte, 1))
			return err
		}
	}
	onChannel := func(call func(context.Context, grpc_testing.TestServiceClient) error) func(context.Context) error {
		return func(ctx context.Context) error {
			cc, err := grpc.NewClient("mesh:///payment.shop:90", m.DialOptions()...)
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = cc.Close() })
			return call(ctx, grpc_testing.NewTestServiceClient(cc))
		}
	}
	return map[string]func(context.Context) error{
		"HTTP/1.1":      overHTTP("http://payment.shop/"),
		"HTTP/2":        overHTTP("http://ledger.shop/"),
		"HTTP outside":  overHTTP("http://outside.example/"),
		"HTTPS outside": overHTTP("https://outside.example/"),
		"TCP":           tcp("payment.shop:5432"),
		"TCP outside":   tcp("outside.example:5432"),
		"unary": onChannel(func(ctx context.Context, c grpc_testing.TestServiceClient) error {
			_, err := c.EmptyCall(ctx, new(grpc_testing.Empty))
			return err
		}),
		"unary that waits for ready": onChannel(func(ctx context.Context, c grpc_testing.TestServiceClient) error {
			_, err := c.EmptyCall(ctx, new(grpc_testing.Empty), grpc.WaitForReady(true))
			return err
		}),
		"stream": onChannel(func(ctx context.Context, c grpc_testing.TestServiceClient) error {
			s, err := c.FullDuplexCall(ctx)
			if err == nil {
				_, err = s.Recv()
			}
			return err
		}),
	}
}
