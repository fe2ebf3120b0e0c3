package mesh_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/mesh"
)

// rawXDS is a control plane that sends the resources that a test gives it: for what
// no Istio YAML says. It speaks the state of the world.
type rawXDS struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	t       *testing.T
	address string

	mu        sync.Mutex
	resources map[string]map[string]*anypb.Any // guarded by mu; by type URL and name
	version   int                              // guarded by mu
	changed   chan struct{}                    // guarded by mu; closed at the next change
	rejected  []string                         // guarded by mu
}

func newRawXDS(t *testing.T) *rawXDS {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x := &rawXDS{t: t, address: ln.Addr().String(), resources: make(map[string]map[string]*anypb.Any), changed: make(chan struct{})}
	server := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, x)
	done := make(chan struct{})
	go func() { // until the test ends
		defer close(done)
		_ = server.Serve(ln)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return x
}

// set adds resources, or replaces them.
func (x *rawXDS) set(resources ...interface {
	proto.Message
	GetName() string
},
) {
	x.t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, m := range resources {
		packed, err := anypb.New(m)
		if err != nil {
			x.t.Fatal(err)
		}
		byName := x.resources[packed.GetTypeUrl()]
		if byName == nil {
			byName = make(map[string]*anypb.Any)
			x.resources[packed.GetTypeUrl()] = byName
		}
		byName[m.GetName()] = packed
	}
	x.changeLocked()
}

// removeSecret takes a secret away.
func (x *rawXDS) removeSecret(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for url := range x.resources {
		delete(x.resources[url], name)
	}
	x.changeLocked()
}

func (x *rawXDS) changeLocked() {
	x.version++
	close(x.changed)
	x.changed = make(chan struct{})
}

func (x *rawXDS) rejections() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.rejected)
}

// response is what is asked for of a type; nil if there is nothing of it.
func (x *rawXDS) response(url string, names []string) (r *discoveryv3.DiscoveryResponse, changed <-chan struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r = &discoveryv3.DiscoveryResponse{TypeUrl: url, VersionInfo: strconv.Itoa(x.version), Nonce: strconv.Itoa(x.version)}
	for _, name := range names {
		if resource := x.resources[url][name]; resource != nil {
			r.Resources = append(r.Resources, resource)
		}
	}
	return r, x.changed
}

// StreamAggregatedResources answers at first, when a client asks for other names, and
// at every change.
func (x *rawXDS) StreamAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	requests := make(chan *discoveryv3.DiscoveryRequest)
	go func() { // until the stream ends
		defer close(requests)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			if r.GetErrorDetail() != nil {
				x.mu.Lock()
				x.rejected = append(x.rejected, r.GetErrorDetail().GetMessage())
				x.mu.Unlock()
			}
			select {
			case requests <- r:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	asked := make(map[string][]string)
	send := func(urls ...string) (changed <-chan struct{}, err error) {
		for _, url := range urls {
			var r *discoveryv3.DiscoveryResponse
			if r, changed = x.response(url, asked[url]); len(r.GetResources()) > 0 {
				if err := stream.Send(r); err != nil {
					return nil, err
				}
			}
		}
		return changed, nil
	}
	_, changed := x.response("", nil)
	for {
		select {
		case r, ok := <-requests:
			if !ok {
				return nil
			}
			if names := slices.Sorted(slices.Values(r.GetResourceNames())); !slices.Equal(names, asked[r.GetTypeUrl()]) {
				asked[r.GetTypeUrl()] = names
				if _, err := send(r.GetTypeUrl()); err != nil {
					return err
				}
			}
		case <-changed:
			next, err := send(slices.Sorted(maps.Keys(asked))...)
			if err != nil {
				return err
			}
			changed = next
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// join is a mesh of that control plane. Listeners are called "inbound/ADDRESS".
func (x *rawXDS) join(options ...mesh.Option) *mesh.Mesh {
	x.t.Helper()
	config := &bootstrap.Config{
		Servers: []bootstrap.Server{{
			URI: x.address, ChannelCreds: bootstrap.Credentials{Type: "insecure"}, API: bootstrap.APISotW,
		}},
		Node: bootstrap.Node{ID: "test"}, ServerListenerTemplate: "inbound/%s",
	}
	ctx, cancel := context.WithTimeout(x.t.Context(), 30*time.Second)
	defer cancel()
	m, err := mesh.New(ctx, append([]mesh.Option{mesh.WithBootstrap(config)}, options...)...)
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() {
		if err := m.Close(); err != nil {
			x.t.Errorf("close: %v", err)
		}
	})
	return m
}

// rawJSON reads a resource in protobuf's JSON.
func rawJSON[M proto.Message](t *testing.T, m M, text string) M {
	t.Helper()
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	return m
}

const (
	rawManager = `"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"`
	rawRouter  = `{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}`
)

// rawDestination is a destination, "host:port", whose calls go to one cluster.
func rawDestination(t *testing.T, name, cluster string) *listenerv3.Listener {
	t.Helper()
	return rawJSON(t, &listenerv3.Listener{}, fmt.Sprintf(`{"name": %q, "apiListener": {"apiListener": {%s, "routeConfig": {"name": "r",
		"virtualHosts": [{"name": "h", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": %q, "timeout": "10s"}}]}]},
		"httpFilters": [%s]}}}`, name, rawManager, cluster, rawRouter))
}

// rawCluster is a cluster with one endpoint; socket is its transport socket, if any.
func rawCluster(t *testing.T, name, address, socket string) *clusterv3.Cluster {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	if socket != "" {
		socket = `, "transportSocket": {"name": "tls", "typedConfig": {
			"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "commonTlsContext": {` + socket + `}}}`
	}
	return rawJSON(t, &clusterv3.Cluster{}, fmt.Sprintf(`{"name": %q, "type": "STATIC", "loadAssignment": {"clusterName": %q, "endpoints": [{"lbEndpoints": [
		{"endpoint": {"address": {"socketAddress": {"address": %q, "portValue": %s}}}}]}]}%s}`, name, name, host, port, socket))
}

// rawListener is a listener of a process; socket is its transport socket, if any,
// network and filters are filters before the connection manager and in it.
func rawListener(t *testing.T, address, socket, network, filters string) *listenerv3.Listener {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	if socket != "" {
		socket = `"transportSocket": {"name": "tls", "typedConfig": {
			"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", ` + socket + `}}, `
	}
	return rawJSON(t, &listenerv3.Listener{}, fmt.Sprintf(`{"name": "inbound/%s", "address": {"socketAddress": {"address": %q, "portValue": %s}},
		"defaultFilterChain": {%s"filters": [%s{"name": "hcm", "typedConfig": {%s, "routeConfig": {"name": "r", "virtualHosts": [
			{"name": "h", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "nonForwardingAction": {}}]}]}, "httpFilters": [%s%s]}}]}}`,
		address, host, port, socket, network, rawManager, filters, rawRouter))
}

// rawSecret is a certificate with its key.
func rawSecret(name string, chain, key []byte) *tlsv3.Secret {
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: rawInline(chain), PrivateKey: rawInline(key),
	}}}
}

// rawRoots are roots with revocation lists, if crl is not nil.
func rawRoots(name string, roots, crl []byte) *tlsv3.Secret {
	v := &tlsv3.CertificateValidationContext{TrustedCa: rawInline(roots)}
	if crl != nil {
		v.Crl = rawInline(crl)
	}
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_ValidationContext{ValidationContext: v}}
}

// withHTTP2 lets a cluster speak HTTP/2.
func withHTTP2(t *testing.T, c *clusterv3.Cluster) *clusterv3.Cluster {
	t.Helper()
	options := rawJSON(t, &anypb.Any{}, `{"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicitHttpConfig": {"http2ProtocolOptions": {}}}`)
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
	return c
}

func certificatesOf(authorities ...*tlstest.CA) []*x509.Certificate {
	var all []*x509.Certificate
	for _, ca := range authorities {
		all = append(all, ca.Certificate)
	}
	return all
}
