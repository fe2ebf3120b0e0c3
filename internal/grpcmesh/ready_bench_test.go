package grpcmesh_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/cputime"
	"github.com/inboardmesh/inboard/internal/memnet"
)

// settled are peers that do nothing but to settle connections, and say when so many
// are.
type settled struct {
	peers sync.WaitGroup
	ready chan struct{} // gets one for each
}

func (s *settled) dial(context.Context, string, string) (net.Conn, error) {
	near, far := memnet.Pipe()
	s.peers.Go(func() { // ends with the connection
		defer far.Close()
		if _, err := io.ReadFull(far, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		framer := http2.NewFramer(far, far)
		_ = framer.WriteSettings()
		for {
			f, err := framer.ReadFrame()
			if err != nil {
				return
			}
			if f, ok := f.(*http2.SettingsFrame); ok {
				if f.IsAck() {
					s.ready <- struct{}{}
				} else {
					_ = framer.WriteSettingsAck()
				}
			}
		}
	})
	return near, nil
}

func manyAddresses(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("10.%d.%d.%d:9090", i>>16, i>>8&255, i&255)
	}
	return list
}

// BenchmarkChannelReady is a channel that gets so many endpoints and connects to all
// of them, beside grpc-go's own round_robin. The mesh connects when a call comes, so
// that a stream to each is in its figure: round_robin is there without and with streams.
// cpu-ns/endpoint is what one costs.
func BenchmarkChannelReady(b *testing.B) {
	for _, n := range []int{500, 1000, 2000, 4000, 10_000} {
		measure := func(b *testing.B, open func(s *settled) (end func())) {
			b.Helper()
			s := &settled{ready: make(chan struct{}, n)}
			begin, known := cputime.Used()
			for range b.N {
				end := open(s)
				for range n {
					<-s.ready
				}
				end()
			}
			s.peers.Wait()
			if end, _ := cputime.Used(); known {
				b.ReportMetric(float64(end-begin)/float64(b.N*n), "cpu-ns/endpoint")
			}
		}
		b.Run(fmt.Sprintf("mesh/%d", n), func(b *testing.B) {
			f := newFixture(b)
			c := cluster("main", manyAddresses(n)...)
			c.Cluster.Limits[discovery.PriorityDefault] = breaker.Limits{
				MaxConnections: math.MaxUint32, MaxPendingRequests: math.MaxUint32, MaxRequests: math.MaxUint32, MaxRetries: 1,
			}
			f.configure(forward("main"), c)
			measure(b, func(s *settled) func() {
				f.dial = s.dial
				cc, err := grpc.NewClient("mesh:///"+target, f.adapter.DialOptions()...)
				if err != nil {
					b.Fatal(err)
				}
				cancel := streams(b, cc, n)
				return func() {
					cancel()
					_ = cc.Close()
				}
			})
		})
		for _, c := range []struct {
			name    string
			streams int
		}{{"round_robin", 0}, {"round_robin with streams", n}} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				measure(b, func(s *settled) func() {
					r := manual.NewBuilderWithScheme("many")
					var state resolver.State
					for _, a := range manyAddresses(n) {
						state.Addresses = append(state.Addresses, resolver.Address{Addr: a})
					}
					r.InitialState(state)
					cc, err := grpc.NewClient("many:///x", grpc.WithResolvers(r), grpc.WithTransportCredentials(insecure.NewCredentials()),
						grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
						grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return s.dial(ctx, "tcp", address) }))
					if err != nil {
						b.Fatal(err)
					}
					cc.Connect()
					return func() {
						streams(b, cc, c.streams)()
						_ = cc.Close()
					}
				})
			})
		}
	}
}

// streams opens so many, which end with cancel.
func streams(b *testing.B, cc *grpc.ClientConn, n int) (cancel func()) {
	b.Helper()
	client := grpc_testing.NewTestServiceClient(cc)
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	for range n { // round robin: each goes to another endpoint
		if _, err := client.FullDuplexCall(ctx); err != nil {
			b.Fatal(err)
		}
	}
	return cancel
}
