package nativegrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/credentials/tls/certprovider"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/xds/bootstrap"

	meshbootstrap "github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/relay"
	"github.com/inboardmesh/inboard/internal/strictjson"
)

// credentialsType is the name of the channel credentials by which a bootstrap
// sends native gRPC to the mesh, and of the certificate provider plugin.
const credentialsType = meshbootstrap.ChannelGuest

// maxResponse is the largest response that guests take from the relay; grpc-go's
// default of 4 MiB is less than the endpoints of a large service.
const maxResponse = 256 << 20

func init() {
	// grpc-go has no other way to be told, and asks for init (see the comments on
	// the two functions). What is registered holds no state but the names of the
	// relays: two meshes in one process do not notice each other.
	bootstrap.RegisterChannelCredentials(channelCredentials{})
	for _, plugin := range []string{credentialsType, "istio_ca", "spiffe_workload_api", "sds"} {
		certprovider.Register(providerBuilder{plugin: plugin})
	}
	certprovider.Register(fileBuilder{}) // in the place of grpc-go's, which has been registered before
}

// guests finds relays by the names that bootstraps have, since a bootstrap is
// JSON.
var guests = &registry{relays: make(map[string]*relay.Relay)}

type registry struct {
	mu     sync.Mutex
	relays map[string]*relay.Relay // guarded by mu
	made   uint64                  // guarded by mu
}

func (g *registry) add(r *relay.Relay) (name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.made++
	name = strconv.FormatUint(g.made, 10)
	g.relays[name] = r
	return name
}

func (g *registry) remove(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.relays, name)
}

// find returns the relay of a name. "" is the only one.
func (g *registry) find(name string) (*relay.Relay, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r := g.relays[name]; r != nil {
		return r, nil
	}
	if name != "" {
		return nil, errors.New("native gRPC: the mesh is closed")
	}
	var found *relay.Relay
	for _, r := range g.relays {
		if found != nil && found != r {
			return nil, errors.New("native gRPC: there are several meshes in this process, and the bootstrap does not say which: use the options of nativegrpc.New")
		}
		found = r
	}
	if found == nil {
		return nil, errors.New("native gRPC: there is no mesh in this process yet: call nativegrpc.New first")
	}
	return found, nil
}

// reference is the configuration of the credentials and of the plugin.
type reference struct {
	// Mesh is the name of a relay; "" is that of the only one.
	Mesh string `json:"mesh,omitempty"`
	// Instance is the mesh's certificate provider instance.
	Instance string `json:"instance,omitempty"`
}

func parseReference(config json.RawMessage) (reference, error) {
	var ref reference
	if len(config) == 0 {
		return ref, nil
	}
	if err := strictjson.Decode(config, &ref); err != nil {
		return ref, fmt.Errorf("native gRPC: %w", err)
	}
	return ref, nil
}

// channelCredentials are credentials that replace the connection as well: it is
// in memory, to the relay.
type channelCredentials struct{}

func (channelCredentials) Name() string { return credentialsType }

func (channelCredentials) Build(config json.RawMessage) (credentials.Bundle, func(), error) {
	ref, err := parseReference(config)
	if err != nil {
		return nil, nil, err
	}
	return &bundle{ref: ref}, func() {}, nil
}

type bundle struct{ ref reference }

var _ credentials.Bundle = (*bundle)(nil)

func (b *bundle) TransportCredentials() credentials.TransportCredentials {
	return inMemory{insecure.NewCredentials()}
}

func (b *bundle) PerRPCCredentials() credentials.PerRPCCredentials { return nil }

func (b *bundle) NewWithMode(string) (credentials.Bundle, error) { return b, nil }

// inMemory are the credentials of a connection that does not leave the process. It
// is secure, so that a bootstrap with call credentials, which are for the control
// plane, is taken; the relay has no use for them.
type inMemory struct {
	credentials.TransportCredentials
}

func (c inMemory) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return conn, inMemoryInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
}

func (inMemory) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "memory"}
}

func (c inMemory) Clone() credentials.TransportCredentials { return c }

type inMemoryInfo struct{ credentials.CommonAuthInfo }

func (inMemoryInfo) AuthType() string { return "memory" }

// DialOptions are added by grpc-go to those of its channel to the server. Whatever
// the address is, it is not resolved.
func (b *bundle) DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			r, err := guests.find(b.ref.Mesh)
			if err != nil {
				return nil, err
			}
			return r.DialContext(ctx, "mem", address)
		}),
		grpc.WithResolvers(asIs("dns"), asIs("passthrough"), asIs("unix"), asIs("unix-abstract")),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponse)),
		grpc.WithNoProxy(),
	}
}

// asIs is a resolver of a scheme that takes the name for the address.
type asIs string

func (s asIs) Scheme() string { return string(s) }

func (s asIs) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	return nothing{}, cc.UpdateState(resolver.State{Endpoints: []resolver.Endpoint{{Addresses: []resolver.Address{{Addr: credentialsType}}}}})
}

type nothing struct{}

func (nothing) ResolveNow(resolver.ResolveNowOptions) {}
func (nothing) Close()                                {}
