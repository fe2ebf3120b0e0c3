// Package grpcmesh carries gRPC calls: an ordinary *grpc.ClientConn whose
// interceptors route, retry and time out, whose load-balancing policy asks the
// mesh for an endpoint once per attempt, and whose credentials do the mutual
// TLS of each endpoint's cluster; and the options of an ordinary gRPC server.
package grpcmesh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"reflect"
	"runtime"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	"github.com/inboardmesh/inboard/internal/inbound"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
)

// Options configure an [Adapter].
type Options struct {
	Outbound  *pipeline.Outbound
	Listeners *inbound.Listeners
	Hooks     *observe.Hooks
	// Dial opens connections to endpoints.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// AllowUnknown sends calls to hosts that the control plane does not know
	// round the mesh, in plaintext. Otherwise they are refused.
	AllowUnknown bool
}

// Adapter makes the options of gRPC clients and servers. Safe for concurrent
// use.
type Adapter struct {
	options Options
	direct  directConns
	mirrors mirrorConns
	conns   clientConns
	// salt makes the numbers of channels the adapter's own.
	salt uint64
}

// New returns an adapter. It starts nothing.
func New(options Options) *Adapter { return &Adapter{options: options, salt: rand.Uint64()} }

// channel is the number that hash policies know a channel by.
func (a *Adapter) channel(cc *grpc.ClientConn) uint64 {
	return (uint64(reflect.ValueOf(cc).Pointer()) ^ a.salt) * 0x9E3779B97F4A7C15
}

// Close closes all connections to endpoints, and the channels of copies and those to
// hosts outside the mesh. It waits for no peer. The channels of the application are its
// own.
func (a *Adapter) Close() error {
	a.conns.close() // first: a channel that is closed says GOAWAY over those that it has
	return errors.Join(a.mirrors.close(), a.direct.close())
}

const (
	// maxConcurrentStreams is Envoy's max_concurrent_streams, of a connection.
	maxConcurrentStreams = 1024
	// maxHeaderBytes is a little above Envoy's 60 KiB, which the listener's
	// configuration applies.
	maxHeaderBytes = 64 << 10
	// maxStreamWorkers bounds what a server holds on a machine with many processors.
	maxStreamWorkers = 128
	// defaultIdleTimeout is Envoy's idle_timeout.
	defaultIdleTimeout = time.Hour
	// longestConnect bounds the connects that nobody waits for any more. Calls
	// wait for as long as their cluster says.
	longestConnect = time.Minute
)

// schemes are the target schemes that the mesh resolves. "xds" is taken over
// for the channels that have these options, so that code written for grpc-go's
// own xDS works unchanged.
var schemes = [...]string{"mesh", "xds"}

// DialOptions returns the options of a client channel.
func (a *Adapter) DialOptions() []grpc.DialOption {
	return append(a.channelOptions(), grpc.WithChainUnaryInterceptor(a.unaryClient), grpc.WithChainStreamInterceptor(a.streamClient))
}

// channelOptions are those of a channel whose calls pass the pipeline elsewhere.
func (a *Adapter) channelOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithResolvers(
			&resolverBuilder{scheme: schemes[0], outbound: a.options.Outbound},
			&resolverBuilder{scheme: schemes[1], outbound: a.options.Outbound},
		),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"` + policyName + `":{}}]}`),
		grpc.WithDisableServiceConfig(),
		grpc.WithTransportCredentials(&clientCredentials{conns: &a.conns, hooks: a.options.Hooks}),
		// Retries are the mesh's: they need the whole request and a new pick.
		grpc.WithDisableRetry(),
		grpc.WithContextDialer(a.dial),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 250 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 10 * time.Second,
			},
			MinConnectTimeout: longestConnect,
		}),
		// An idle channel would close its connections and forget its endpoints.
		grpc.WithIdleTimeout(0),
	}
}

// streamWorkers is how many goroutines a server keeps to run calls on, whose stacks
// have grown already: to grow that of a new one is a tenth of what a call costs its
// server. A connection hands its calls on in bursts, and a call that finds none free
// gets a goroutine of its own, as all do without.
func streamWorkers() uint32 { return uint32(min(8*runtime.GOMAXPROCS(0), maxStreamWorkers)) }

// ServerOptions returns the options of a server that serves on listeners of the
// mesh.
func (a *Adapter) ServerOptions() []grpc.ServerOption {
	s := &server{listeners: a.options.Listeners, hooks: a.options.Hooks}
	headerBytes := max(maxHeaderBytes, a.options.Listeners.MaxHeaderBytes())
	return []grpc.ServerOption{
		// Envoy's, where grpc-go has next to none (row BH3). Options of the
		// application that follow say otherwise.
		grpc.MaxConcurrentStreams(maxConcurrentStreams),
		grpc.MaxHeaderListSize(uint32(headerBytes)),
		grpc.NumStreamWorkers(streamWorkers()),
		// Nor has it an end for a connection of somebody who says nothing.
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: defaultIdleTimeout}),
		// As with Envoy, clients may ask whether the server is there whenever their
		// configuration says so; grpc-go takes that for an attack.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Millisecond, PermitWithoutStream: true}),
		grpc.Creds(&serverCredentials{listeners: a.options.Listeners, hooks: a.options.Hooks, headerBytes: headerBytes}),
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
	}
}

// targetName is the destination's name in the configuration, "host:port", from
// the target that a channel was made with; or "//AUTHORITY/host:port" for one of an
// authority (gRFC A47).
func targetName(target string) (string, error) {
	for _, scheme := range schemes {
		name, ok := strings.CutPrefix(target, scheme+"://")
		if !ok {
			continue
		}
		authority, name, ok := strings.Cut(name, "/")
		if !ok {
			continue
		}
		host, port, err := net.SplitHostPort(name)
		if err != nil {
			return "", noTarget(target, fmt.Errorf("it needs a port: %s:///HOST:PORT", scheme))
		}
		// However it is spelt, a host is the same one: a spelling is no way round
		// the mesh.
		if rooted, ok := strings.CutSuffix(host, "."); ok {
			name = net.JoinHostPort(rooted, port)
		}
		name = strings.ToLower(name)
		if authority != "" {
			name = "//" + authority + "/" + name
		}
		return name, nil
	}
	return "", noTarget(target, errors.New("it is not the mesh's: use mesh:///HOST:PORT"))
}

func noTarget(target string, err error) error {
	return &meshfail.Error{Kind: outcome.UnknownHost, Target: target, Err: err}
}

// hostOf is the "host:port" of a target's name.
func hostOf(name string) string {
	if rest, ok := strings.CutPrefix(name, "//"); ok {
		_, name, _ = strings.Cut(rest, "/")
	}
	return name
}

// mayGoAround reports whether a call may pass round the mesh, if the control plane
// does not know the target. One of an authority is the mesh's whoever knows it.
func (a *Adapter) mayGoAround(name string) bool {
	return a.options.AllowUnknown && !strings.HasPrefix(name, "//")
}
