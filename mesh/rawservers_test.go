package mesh_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/mesh"
)

// rawServers are a server of HTTP and one of gRPC, each with a listener as it comes over
// xDS, and whoever calls them.
type rawServers struct {
	xds        *rawXDS
	web, calls string // the addresses
}

func serveRawServers(t *testing.T, x *rawXDS, listener func(address string) *listenerv3.Listener, web http.Handler, calls grpc_testing.TestServiceServer, options ...mesh.Option) *rawServers {
	t.Helper()
	s := &rawServers{xds: x}
	var inner [2]net.Listener
	for i := range inner {
		ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		inner[i] = ln
	}
	s.web, s.calls = inner[0].Addr().String(), inner[1].Addr().String()
	s.xds.set(listener(s.web), listener(s.calls))
	m := s.xds.join(options...)
	var outer [2]net.Listener
	for i := range outer {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		ln, err := m.Serve(ctx, inner[i])
		cancel()
		if err != nil {
			t.Fatal(err, s.xds.rejections())
		}
		outer[i] = ln
	}
	serveUntilEnd(t, m.Server(web), outer[0])
	server := grpc.NewServer(m.ServerOptions()...)
	grpc_testing.RegisterTestServiceServer(server, calls)
	done := make(chan struct{})
	go func() { // until the test ends
		defer close(done)
		_ = server.Serve(outer[1])
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return s
}

// send calls over a protocol, from 127.0.0.1, with the given headers and, over TLS, the
// given certificate. It returns the HTTP status; of gRPC, 200 or the error.
func (s *rawServers) send(t *testing.T, protocol string, cert *tls.Certificate, headers [][2]string) (int, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	config := func(protocol string) *tls.Config {
		if cert == nil {
			return nil
		}
		return strangerTLS(*cert, protocol)
	}
	if protocol == "gRPC" {
		creds := insecure.NewCredentials()
		if cert != nil {
			creds = credentials.NewTLS(config("h2"))
		}
		conn, err := grpc.NewClient("passthrough:///"+s.calls, grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		pairs := make([]string, 0, 2*len(headers))
		for i := range headers {
			pairs = append(pairs, headers[i][:]...)
		}
		ctx = metadata.AppendToOutgoingContext(ctx, pairs...)
		_, err = grpc_testing.NewTestServiceClient(conn).EmptyCall(ctx, new(grpc_testing.Empty))
		return http.StatusOK, err
	}
	tr := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: config(map[string]string{"HTTP/1.1": "http/1.1", "HTTP/2": "h2"}[protocol])}
	tr.Protocols.SetHTTP1(protocol == "HTTP/1.1")
	tr.Protocols.SetHTTP2(protocol == "HTTP/2")
	tr.Protocols.SetUnencryptedHTTP2(protocol == "HTTP/2")
	defer tr.CloseIdleConnections()
	scheme := "http://"
	if cert != nil {
		scheme = "https://"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+s.web+"/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		req.Header.Add(h[0], h[1])
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// withManager sets fields of a listener's connection manager.
func withManager(t *testing.T, l *listenerv3.Listener, fields string) *listenerv3.Listener {
	t.Helper()
	filters := l.GetDefaultFilterChain().GetFilters()
	last := filters[len(filters)-1]
	m := new(hcmv3.HttpConnectionManager)
	if err := last.GetTypedConfig().UnmarshalTo(m); err != nil {
		t.Fatal(err)
	}
	proto.Merge(m, rawJSON(t, new(hcmv3.HttpConnectionManager), "{"+fields+"}"))
	packed, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	last.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed}
	return l
}
