package nativegrpc

import (
	"encoding/json"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	xdscreds "google.golang.org/grpc/credentials/xds"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/xds"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/internal/relay"
	"github.com/inboardmesh/inboard/mesh"
)

// Guest makes native gRPC clients and servers guests of a mesh. Make it with
// [New]. It ends with the mesh, of which nothing has to be closed before: its
// guests go on with the configuration that they have, but not with certificates.
// Close channels and stop servers first. Safe for concurrent use.
type Guest struct {
	relay     *relay.Relay
	bootstrap []byte
	resolver  resolver.Builder
	client    credentials.TransportCredentials
	server    *permissive
}

// New opens a mesh to native gRPC. Each call gives another Guest of it.
func New(m *mesh.Mesh) (*Guest, error) {
	r, err := m.Relay()
	if err != nil {
		return nil, err
	}
	return newGuest(r)
}

func newGuest(r *relay.Relay) (*Guest, error) {
	g := &Guest{relay: r}
	name := guests.add(r)
	r.OnClose(func() { guests.remove(name) })
	var err error
	if g.bootstrap, err = bootstrapFor(name, r); err != nil {
		return nil, fmt.Errorf("native gRPC: %w", err)
	}
	if g.resolver, err = xds.NewXDSResolverWithConfigForTesting(g.bootstrap); err != nil {
		return nil, fmt.Errorf("native gRPC: %w", err)
	}
	// The fallback is for what the control plane configures without TLS.
	if g.client, err = xdscreds.NewClientCredentials(xdscreds.ClientOptions{FallbackCreds: insecure.NewCredentials()}); err != nil {
		return nil, fmt.Errorf("native gRPC: %w", err)
	}
	server, err := xdscreds.NewServerCredentials(xdscreds.ServerOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		return nil, fmt.Errorf("native gRPC: %w", err)
	}
	g.server = &permissive{
		TransportCredentials: server, relay: r, conns: &sniffedConns{open: make(map[connKey]*sniffedConn)}, peers: new(peers),
	}
	return g, nil
}

// DialOptions are the options of a channel to "xds:///HOST:PORT": where its
// configuration comes from, and credentials that do TLS as the configuration says,
// or none if it says so. The channel does not idle (grpc.WithIdleTimeout is 0, where
// grpc-go's default is 30 minutes): one that idles gives its configuration up, and if
// the control plane is away by the next call, nobody can give it again. Options of the
// application may follow; transport credentials of its own take the place of the
// mesh's certificates. The application closes the channel, before the mesh.
func (g *Guest) DialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithResolvers(g.resolver), grpc.WithTransportCredentials(g.client), grpc.WithIdleTimeout(0)}
}

// ServerOptions are the options of xds.NewGRPCServer, as [Guest.DialOptions] are
// those of a channel. The server serves on TCP, under the configuration of the
// listener's address; until there is one, and when it cannot be enforced by
// grpc-go, it accepts no connection. Where plaintext is allowed beside mutual TLS
// (PERMISSIVE), [Guest.Listener] is needed for it. Handlers learn from [mesh.PeerID]
// who calls, and so do interceptors of grpc.ChainUnaryInterceptor and
// grpc.ChainStreamInterceptor that follow; what grpc.UnaryInterceptor and
// grpc.StreamInterceptor set runs before, and finds it in the credentials.TLSInfo of
// peer.FromContext. The application stops the server, before the mesh.
func (g *Guest) ServerOptions() []grpc.ServerOption {
	return append([]grpc.ServerOption{xds.BootstrapContentsForTesting(g.bootstrap), grpc.Creds(g.server)}, g.server.peers.options()...)
}

// Bootstrap is the bootstrap of the guests, in JSON, for what takes one in another
// way. It is good within this process and while the mesh is there. The caller may
// change it.
func (g *Guest) Bootstrap() []byte { return append([]byte(nil), g.bootstrap...) }

// guestBootstrap is the part of grpc-go's bootstrap that guests need.
type guestBootstrap struct {
	Servers        []server             `json:"xds_servers"`
	Authorities    map[string]authority `json:"authorities,omitempty"`
	Node           node                 `json:"node"`
	Providers      map[string]provider  `json:"certificate_providers,omitempty"`
	ServerTemplate string               `json:"server_listener_resource_name_template"`
	ClientTemplate string               `json:"client_default_listener_resource_name_template"`
}

// authority has no servers of its own: the relay is the server of all of them.
type authority struct {
	ClientTemplate string `json:"client_listener_resource_name_template"`
}

type server struct {
	URI         string      `json:"server_uri"`
	Credentials []typedJSON `json:"channel_creds"`
	Features    []string    `json:"server_features"`
}

type typedJSON struct {
	Type   string `json:"type"`
	Config any    `json:"config,omitempty"`
}

type node struct {
	ID       string         `json:"id"`
	Cluster  string         `json:"cluster,omitempty"`
	Locality *locality      `json:"locality,omitempty"`
	Metadata map[string]any `json:"metadata,omitempty"`
}

type locality struct {
	Region  string `json:"region,omitempty"`
	Zone    string `json:"zone,omitempty"`
	SubZone string `json:"sub_zone,omitempty"`
}

type provider struct {
	Plugin string `json:"plugin_name"`
	Config any    `json:"config"`
}

// bootstrapFor is the bootstrap of the guests of a relay.
func bootstrapFor(name string, r *relay.Relay) ([]byte, error) {
	config := r.Config()
	b := guestBootstrap{
		Servers: []server{{
			URI: "passthrough:///" + credentialsType, Features: []string{"xds_v3"},
			Credentials: []typedJSON{{Type: credentialsType, Config: reference{Mesh: name}}},
		}},
		Node:           node{ID: config.Node.ID, Cluster: config.Node.Cluster, Metadata: config.Node.Metadata},
		Authorities:    make(map[string]authority),
		Providers:      make(map[string]provider),
		ServerTemplate: r.ServerTemplate(),
		ClientTemplate: r.ClientTemplate(),
	}
	if l := config.Node.Locality; l != (balancer.Locality{}) {
		b.Node.Locality = &locality{Region: l.Region, Zone: l.Zone, SubZone: l.SubZone}
	}
	for name, template := range r.Authorities() {
		b.Authorities[name] = authority{ClientTemplate: template}
	}
	for _, instance := range r.Instances() {
		b.Providers[instance] = provider{Plugin: credentialsType, Config: reference{Mesh: name, Instance: instance}}
	}
	return json.Marshal(b)
}
