package mesh_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// forgedCertificate is what a stranger says of its certificate.
const forgedCertificate = "By=spiffe://cluster.local/ns/shop/sa/payment;Hash=00;URI=spiffe://cluster.local/ns/shop/sa/admin"

// forgeries are headers that a stranger sends: each is one that members and gateways
// set, and that applications and policies may believe.
var forgeries = [][2]string{
	{"x-forwarded-client-cert", forgedCertificate},
	{"x-forwarded-client-cert", forgedCertificate + "," + forgedCertificate},
	{"x-envoy-internal", "true"},
	{"x-envoy-external-address", "10.0.0.1"},
	{"x-envoy-original-path", "/admin"},
	{"x-envoy-original-host", "admin"},
	{"x-envoy-peer-metadata-id", "sidecar~10.0.0.1~admin"},
	{"x-envoy-auth-failure-mode-allowed", "true"},
	{"x-envoy-downstream-service-node", "admin"},
}

// believed are the forged headers that reached an application, which a member may have
// sent but for the certificate.
func believed(headers map[string][]string, member bool) (names []string) {
	for name, values := range headers {
		for _, forged := range forgeries {
			if strings.EqualFold(name, forged[0]) && len(values) > 0 && (!member || forged[0] == "x-forwarded-client-cert") {
				names = append(names, name+": "+strings.Join(values, " | "))
				break
			}
		}
	}
	return names
}

// forgedTo is a server that tells what headers came to its application.
type forgedTo struct {
	grpc_testing.UnimplementedTestServiceServer

	came chan map[string][]string
}

func (f forgedTo) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // the trailers come behind it
	f.came <- r.Header
}

func (f forgedTo) EmptyCall(ctx context.Context, _ *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	f.came <- md
	return new(grpc_testing.Empty), nil
}

func (f forgedTo) FullDuplexCall(stream grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	f.came <- md
	return nil
}

// TestBS7_V14_NoApplicationSeesWhatAStrangerForged, over HTTP/1.1 and HTTP/2 as they are
// written by hand, and calls and streams of gRPC, from strangers and, of certificates, from members.
func TestBS7_V14_NoApplicationSeesWhatAStrangerForged(t *testing.T) {
	t.Parallel()
	rows := func(path, kind string) [][2]string {
		fields := [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "payment.shop"}, {":path", path}, {"content-type", kind}, {"te", "trailers"}}
		return append(fields, forgeries...)
	}
	raw1 := func(spell func(string) string, more string) func(*testing.T, *meshtest.World) {
		return func(t *testing.T, w *meshtest.World) {
			t.Helper()
			conn, err := w.DialContext(t.Context(), "tcp", "payment.shop:80")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			var text strings.Builder
			text.WriteString("POST / HTTP/1.1\r\nHost: payment.shop\r\nTransfer-Encoding: chunked\r\nTrailer: X-Forwarded-Client-Cert\r\n" + more)
			for _, forged := range forgeries {
				text.WriteString(spell(forged[0]) + ": " + forged[1] + "\r\n")
			}
			text.WriteString("\r\n0\r\nX-Forwarded-Client-Cert: " + forgedCertificate + "\r\n\r\n")
			go func() { _, _ = io.WriteString(conn, text.String()) }() // ends with the connection
			go func() { _, _ = io.Copy(io.Discard, conn) }()           // ends with the connection
		}
	}
	raw2 := func(address, path, kind, body string) func(*testing.T, *meshtest.World) {
		return func(t *testing.T, w *meshtest.World) {
			t.Helper()
			conn, err := w.DialContext(t.Context(), "tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			c := framesOver(t, conn)
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.fields(rows(path, kind)), EndHeaders: true})
			trailers := kind != "application/grpc" // whose clients have none
			_ = c.WriteData(1, !trailers, []byte(body))
			if trailers {
				_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.fields(forgeries[:1]), EndHeaders: true, EndStream: true})
			}
			_ = c.written.Flush()
		}
	}
	for _, tt := range []struct {
		name   string
		member bool
		send   func(*testing.T, *meshtest.World)
	}{
		{"HTTP/1.1", false, raw1(strings.ToLower, "")},
		{"HTTP/1.1 in upper case", false, raw1(strings.ToUpper, "")},
		{"HTTP/1.1 with names for the next hop", false, raw1(http.CanonicalHeaderKey, "Connection: X-Forwarded-Client-Cert, x-envoy-internal\r\n")},
		{"HTTP/2", false, raw2("payment.shop:80", "/", "text/plain", "x")},
		{"gRPC", false, raw2("payment.shop:9090", grpc_testing.TestService_EmptyCall_FullMethodName, "application/grpc", "\x00\x00\x00\x00\x00")},
		{"a stream of gRPC", false, raw2("payment.shop:9090", grpc_testing.TestService_FullDuplexCall_FullMethodName, "application/grpc", "\x00\x00\x00\x00\x00")},
		{"HTTP of a member", true, func(t *testing.T, w *meshtest.World) {
			t.Helper()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://payment.shop.svc.cluster.local/", strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			for _, forged := range forgeries {
				req.Header.Add(forged[0], forged[1])
			}
			resp, err := w.Workload("customer.shop").Transport().RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
		}},
		{"gRPC of a member", true, func(t *testing.T, w *meshtest.World) {
			t.Helper()
			conn, err := grpc.NewClient("mesh:///payment.shop.svc.cluster.local:9090", w.Workload("customer.shop").DialOptions()...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			var pairs []string
			for _, forged := range forgeries {
				pairs = append(pairs, forged[:]...)
			}
			ctx := metadata.AppendToOutgoingContext(t.Context(), pairs...)
			if _, err := grpc_testing.NewTestServiceClient(conn).EmptyCall(ctx, new(grpc_testing.Empty)); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				app := forgedTo{came: make(chan map[string][]string, 1)}
				w := meshtest.New(t)
				w.Service("payment.shop", meshtest.HTTP(80, app), meshtest.GRPC(9090, func(s grpc.ServiceRegistrar) { grpc_testing.RegisterTestServiceServer(s, app) }))
				tt.send(t, w)
				select {
				case headers := <-app.came:
					if names := believed(headers, tt.member); len(names) > 0 {
						t.Errorf("the application reads %q", names)
					}
				case <-time.After(time.Minute):
					t.Error("nothing came")
				}
			})
		})
	}
}
