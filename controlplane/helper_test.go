package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/internal/memnet"
)

const (
	lds = resource.ListenerType
	rds = resource.RouteType
	cds = resource.ClusterType
	eds = resource.EndpointType
)

// service is a ServiceEntry with one HTTP port, 8080.
func service(name string, addresses ...string) istio.File {
	var endpoints strings.Builder
	for _, address := range addresses {
		fmt.Fprintf(&endpoints, "  - address: %s\n", address)
	}
	return istio.File{Name: name + ".yaml", Data: []byte(`apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: ` + name + `
  namespace: shop
spec:
  hosts: [` + host(name) + `]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {number: 8080, name: http, protocol: HTTP}
  endpoints:
` + endpoints.String())}
}

func host(name string) string { return name + ".shop.svc.cluster.local" }

func cluster(name string) string { return "outbound|8080||" + host(name) }

// logBuffer collects log lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logBuffer) count(text string) int { return strings.Count(l.String(), text) }

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func mustNew(t testing.TB, config Config) *Server {
	t.Helper()
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func mustUpdate(t testing.TB, s *Server, files ...istio.File) {
	t.Helper()
	if problems := s.Update(files); len(problems) > 0 {
		t.Fatal(problems)
	}
}

// serveMemory serves on a network in memory at "plaintext:1" and, with a CA,
// at "secure:1".
func serveMemory(t testing.TB, s *Server) *memnet.Network {
	t.Helper()
	network := new(memnet.Network)
	listen := func(address string) net.Listener {
		l, err := network.Listen(address)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	listeners := Listeners{Plaintext: listen("plaintext:1")}
	if s.ca != nil {
		listeners.Secure = listen("secure:1")
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		if err := s.Serve(ctx, listeners); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return network
}

func dial(t testing.TB, network *memnet.Network, address string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	if len(options) == 0 {
		options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	conn, err := grpc.NewClient("passthrough:///"+address, append(options,
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return network.DialContext(ctx, "mem", address)
		}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func node(namespace, account string) *core.Node {
	fields := map[string]*structpb.Value{}
	for key, value := range map[string]string{"NAMESPACE": namespace, "SERVICE_ACCOUNT": account} {
		if value != "" {
			fields[key] = structpb.NewStringValue(value)
		}
	}
	return &core.Node{Id: "sidecar~127.0.0.1~x." + namespace + "~" + namespace + ".svc.cluster.local", Metadata: &structpb.Struct{Fields: fields}}
}

// streamOf receives on a goroutine of its own, so that a test in a bubble can
// tell that nothing came.
type streamOf[T any] struct {
	t         testing.TB
	responses chan T
	ended     chan struct{}
	err       error // when ended is closed
}

func receive[T any](t testing.TB, recv func() (T, error)) *streamOf[T] {
	s := &streamOf[T]{t: t, responses: make(chan T, 100), ended: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(s.ended)
		for {
			response, err := recv()
			if err != nil {
				s.err = err
				return
			}
			s.responses <- response
		}
	})
	t.Cleanup(wg.Wait)
	return s
}

func (s *streamOf[T]) next() (response T) {
	s.t.Helper()
	select {
	case response = <-s.responses:
	case <-s.ended:
		s.t.Fatalf("stream ended: %v", s.err)
	case <-time.After(10 * time.Second):
		s.t.Fatal("no response")
	}
	return response
}

// quiet says that nothing more comes. It works in a bubble only.
func (s *streamOf[T]) quiet() {
	s.t.Helper()
	synctest.Wait()
	select {
	case response := <-s.responses:
		s.t.Fatalf("unexpected response: %v", response)
	case <-s.ended:
		s.t.Fatalf("stream ended: %v", s.err)
	default:
	}
}

func (s *streamOf[T]) end() error {
	s.t.Helper()
	select {
	case <-s.ended:
		return s.err
	case <-time.After(10 * time.Second):
		s.t.Fatal("stream goes on")
	}
	return nil
}

// deltaClient speaks the delta protocol.
type deltaClient struct {
	*streamOf[*discovery.DeltaDiscoveryResponse]
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	node   *core.Node
}

func newDelta(t testing.TB, conn *grpc.ClientConn, node *core.Node) *deltaClient {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	c := &deltaClient{streamOf: receive(t, stream.Recv), stream: stream, node: node}
	t.Cleanup(cancel)
	return c
}

func (c *deltaClient) send(request *discovery.DeltaDiscoveryRequest) {
	c.t.Helper()
	request.Node, c.node = c.node, nil
	// io.EOF means that the stream ended; Recv tells why.
	if err := c.stream.Send(request); err != nil && !errors.Is(err, io.EOF) {
		c.t.Fatal(err)
	}
}

func (c *deltaClient) subscribe(typeURL string, names ...string) {
	c.t.Helper()
	c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names})
}

func (c *deltaClient) ack(response *discovery.DeltaDiscoveryResponse) {
	c.t.Helper()
	c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: response.GetTypeUrl(), ResponseNonce: response.GetNonce()})
}

func (c *deltaClient) nack(response *discovery.DeltaDiscoveryResponse, message string) {
	c.t.Helper()
	c.send(&discovery.DeltaDiscoveryRequest{
		TypeUrl: response.GetTypeUrl(), ResponseNonce: response.GetNonce(),
		ErrorDetail: status.New(codes.InvalidArgument, message).Proto(),
	})
}

// want receives a response, compares it and acknowledges it.
func (c *deltaClient) want(typeURL string, names, removed []string) *discovery.DeltaDiscoveryResponse {
	c.t.Helper()
	response := c.next()
	got := slices.Sorted(maps.Keys(versions(response)))
	if response.GetTypeUrl() != typeURL || !slices.Equal(got, names) || !slices.Equal(response.GetRemovedResources(), removed) {
		c.t.Fatalf("got %s with %q without %q, want %s with %q without %q", shortType(response.GetTypeUrl()), got, response.GetRemovedResources(),
			shortType(typeURL), names, removed)
	}
	c.ack(response)
	return response
}

func versions(response *discovery.DeltaDiscoveryResponse) map[string]string {
	all := make(map[string]string)
	for _, r := range response.GetResources() {
		all[r.GetName()] = r.GetVersion()
	}
	return all
}

// sotwClient speaks the state of the world protocol.
type sotwClient struct {
	*streamOf[*discovery.DiscoveryResponse]
	stream  discovery.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	node    *core.Node
	last    map[string]*discovery.DiscoveryResponse // by type
	version map[string]string                       // taken last, by type
}

func newSotw(t testing.TB, conn *grpc.ClientConn, node *core.Node) *sotwClient {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	c := &sotwClient{
		streamOf: receive(t, stream.Recv), stream: stream, node: node,
		last: make(map[string]*discovery.DiscoveryResponse), version: make(map[string]string),
	}
	t.Cleanup(cancel)
	return c
}

func (c *sotwClient) request(typeURL string, err string, names ...string) {
	c.t.Helper()
	request := &discovery.DiscoveryRequest{
		TypeUrl: typeURL, ResourceNames: names, Node: c.node,
		VersionInfo: c.version[typeURL], ResponseNonce: c.last[typeURL].GetNonce(),
	}
	if err != "" {
		request.ErrorDetail = status.New(codes.InvalidArgument, err).Proto()
	}
	c.node = nil
	if err := c.stream.Send(request); err != nil && !errors.Is(err, io.EOF) {
		c.t.Fatal(err)
	}
}

// subscribe changes the names, or begins with them.
func (c *sotwClient) subscribe(typeURL string, names ...string) {
	c.t.Helper()
	c.request(typeURL, "", names...)
}

// want receives a response, compares it and acknowledges it for the
// subscription.
func (c *sotwClient) want(typeURL string, names []string, subscription ...string) *discovery.DiscoveryResponse {
	c.t.Helper()
	response := c.next()
	got := namesOf(c.t, response)
	if response.GetTypeUrl() != typeURL || !slices.Equal(got, names) {
		c.t.Fatalf("got %s with %q, want %s with %q", shortType(response.GetTypeUrl()), got, shortType(typeURL), names)
	}
	c.last[typeURL], c.version[typeURL] = response, response.GetVersionInfo()
	c.request(typeURL, "", subscription...)
	return response
}

// namesOf decodes the names of a response, sorted.
func namesOf(t testing.TB, response *discovery.DiscoveryResponse) []string {
	t.Helper()
	var names []string
	for _, r := range response.GetResources() {
		message, err := r.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		switch message := message.(type) {
		case interface{ GetClusterName() string }:
			names = append(names, message.GetClusterName())
		case interface{ GetName() string }:
			names = append(names, message.GetName())
		}
	}
	slices.Sort(names)
	return names
}
