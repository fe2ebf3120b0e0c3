package mesh_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	grpcgzip "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// hostileService answers with as much as it is asked for.
type hostileService struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (hostileService) EmptyCall(context.Context, *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return new(grpc_testing.Empty), nil
}

func (hostileService) UnaryCall(context.Context, *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return new(grpc_testing.SimpleResponse), nil
}

func (hostileService) StreamingOutputCall(_ *grpc_testing.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[grpc_testing.StreamingOutputCallResponse]) error {
	reply := &grpc_testing.StreamingOutputCallResponse{Payload: &grpc_testing.Payload{Body: make([]byte, 64<<10)}}
	for stream.Context().Err() == nil {
		if err := stream.Send(reply); err != nil {
			return err
		}
	}
	return nil
}

// serveRaw serves over gRPC on a listener with the given transport socket and returns
// its address.
func serveRaw(t *testing.T, x *rawXDS, socket string, options ...mesh.Option) string {
	t.Helper()
	return serveRawFiltered(t, x, socket, "", options...)
}

// serveRawFiltered is serveRaw behind HTTP filters.
func serveRawFiltered(t *testing.T, x *rawXDS, socket, filters string, options ...mesh.Option) string {
	t.Helper()
	inner, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := inner.Addr().String()
	x.set(rawListener(t, address, socket, "", filters))
	payment := x.join(options...)
	ln, err := payment.Serve(t.Context(), inner)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(payment.ServerOptions()...)
	grpc_testing.RegisterTestServiceServer(server, hostileService{})
	done := make(chan struct{})
	go func() { // until the test ends
		defer close(done)
		_ = server.Serve(ln)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return address
}

// outsider is a client that is no mesh.
func outsider(t *testing.T, address string, options ...grpc.DialOption) grpc_testing.TestServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return grpc_testing.NewTestServiceClient(conn)
}

// TestV45_DecompressionIsBounded: a message of a gigabyte of zeros, which is a megabyte
// on the wire, is refused before it is a gigabyte here. Responses over HTTP are not
// decompressed by the mesh, and key sets are read as they come.
func TestV45_DecompressionIsBounded(t *testing.T) { //nolint:paralleltest // it reads what the whole process allocates
	x := newRawXDS(t)
	client := outsider(t, serveRaw(t, x, ""), grpc.WithDefaultCallOptions(grpc.UseCompressor(grpcgzip.Name), grpc.MaxCallSendMsgSize(1<<30)))
	large := &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: make([]byte, 64<<20)}}
	if _, err := client.UnaryCall(t.Context(), large); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("64 MiB of zeros: %v", err)
	}
	if _, err := client.EmptyCall(t.Context(), new(grpc_testing.Empty)); err != nil {
		t.Errorf("the next call: %v", err)
	}

	// Over HTTP, what a server compressed is what the application gets, unless it asked
	// for nothing: then it is a stream, and nothing is read ahead.
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	for range 64 {
		_, _ = w.Write(make([]byte, 1<<20))
	}
	_ = w.Close()
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb.Bytes())
	})}
	address := serveHTTP(t, server)
	x.set(rawDestination(t, "bank.shop:80", "bank"), rawCluster(t, "bank", address, ""))
	customer := x.join()
	before := heldNow()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://bank.shop:80/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := customer.Transport().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	if grown := heldNow() - before; grown > 16<<20 {
		t.Errorf("%d MiB are held after the first byte", grown>>20)
	}
	_ = resp.Body.Close()
}

// heldNow is what is in use after a collection.
func heldNow() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// serveHTTP serves a server without a mesh until the test ends.
func serveHTTP(t *testing.T, server *http.Server) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // until the test ends
		defer close(done)
		_ = server.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return ln.Addr().String()
}

// TestV47_AnAnswerToExpectLeavesNoDeadConnection: a server that answers an
// Expect: 100-continue by itself, and reads no body, does not cost the next call.
func TestV47_AnAnswerToExpectLeavesNoDeadConnection(t *testing.T) {
	t.Parallel()
	for _, code := range []int{http.StatusUnauthorized, http.StatusExpectationFailed, http.StatusInternalServerError, http.StatusOK} {
		t.Run(http.StatusText(code), func(t *testing.T) {
			t.Parallel()
			x := newRawXDS(t)
			server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Expect") != "" {
					w.WriteHeader(code)
					return
				}
				body, _ := io.ReadAll(r.Body)
				_, _ = w.Write(body)
			})}
			x.set(rawDestination(t, "bank.shop:80", "bank"), rawCluster(t, "bank", serveHTTP(t, server), ""))
			client := x.join().HTTPClient()
			for i := range 20 {
				for _, expect := range []bool{true, false} {
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
					req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://bank.shop:80/", strings.NewReader(strings.Repeat("a", 100<<10)))
					if err != nil {
						t.Fatal(err)
					}
					want := http.StatusOK
					if expect {
						req.Header.Set("Expect", "100-continue")
						want = code
					}
					resp, err := client.Do(req)
					if err != nil {
						t.Fatalf("call %d, expect %t: %v", i, expect, err)
					}
					body, err := io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					if resp.StatusCode != want || err != nil || !expect && len(body) != 100<<10 {
						t.Errorf("call %d, expect %t: status %d, %d bytes, %v", i, expect, resp.StatusCode, len(body), err)
					}
					cancel()
				}
			}
		})
	}
}

// TestV48_ASlowReaderHoldsLittle: an endless response is not read ahead of its reader,
// over HTTP/1.1, HTTP/2 and gRPC; when it is given up, the next call finds its windows.
func TestV48_ASlowReaderHoldsLittle(t *testing.T) { //nolint:paralleltest // it reads what the whole process holds
	x := newRawXDS(t)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/short" {
			return
		}
		piece := make([]byte, 64<<10)
		for r.Context().Err() == nil {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	address := serveHTTP(t, server)
	x.set(
		rawDestination(t, "bank.shop:80", "bank"), rawCluster(t, "bank", address, ""),
		rawDestination(t, "bank.shop:82", "bank2"), withHTTP2(t, rawCluster(t, "bank2", address, "")),
		rawDestination(t, "bank.shop:90", "rpc"), rawCluster(t, "rpc", serveRaw(t, x, ""), ""),
	)
	customer := x.join()
	const most = 32 << 20
	for _, port := range []string{"80", "82"} {
		before := heldNow()
		for range 5 {
			resp := getPath(t, customer, "http://bank.shop:"+port+"/long")
			if _, err := io.CopyN(io.Discard, resp.Body, 1<<20); err != nil {
				t.Errorf("port %s: %v", port, err)
			}
			if grown := heldNow() - before; grown > most {
				t.Errorf("port %s: %d MiB are held for one reader", port, grown>>20)
			}
			_ = resp.Body.Close()
			short := getPath(t, customer, "http://bank.shop:"+port+"/short")
			_ = short.Body.Close()
		}
	}
	conn, err := grpc.NewClient("mesh:///bank.shop:90", customer.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := grpc_testing.NewTestServiceClient(conn)
	before := heldNow()
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := client.StreamingOutputCall(ctx, new(grpc_testing.StreamingOutputCallRequest))
		if err != nil {
			t.Fatal(err)
		}
		for range 16 {
			if _, err := stream.Recv(); err != nil {
				t.Error(err)
			}
		}
		if grown := heldNow() - before; grown > most {
			t.Errorf("gRPC: %d MiB are held for one reader", grown>>20)
		}
		cancel()
		if _, err := client.EmptyCall(t.Context(), new(grpc_testing.Empty)); err != nil {
			t.Error(err)
		}
	}
}

func getPath(t *testing.T, m *mesh.Mesh, url string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := m.Transport().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// lines is a log that can be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestV51_APeerCannotWriteLinesOfTheLog, nor break its JSON: by a name in its hello, by
// the protocols that it offers, by its certificate, and by what the control plane
// calls things.
func TestV51_APeerCannotWriteLinesOfTheLog(t *testing.T) {
	t.Parallel()
	const hostile = "a\r\nlevel=ERROR msg=\"forged\"\x1b[31m\u2028\"}{"
	root := tlstest.NewCA(t)
	identity, err := meshtls.NewIdentity(root.Workload(t, paymentID), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, handler := range map[string]func(io.Writer) slog.Handler{
		"JSON": func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
		"text": func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log lines
			x := newRawXDS(t)
			address := serveRaw(t, x, `"commonTlsContext": {"alpnProtocols": ["h2"], "tlsCertificateProviderInstance": {"instanceName": "default"},
				"validationContext": {"caCertificateProviderInstance": {"instanceName": "default"}}}`,
				mesh.WithLogger(slog.New(handler(&log))), mesh.WithIdentity("default", meshtls.NewStatic(identity)))
			for _, config := range []*tls.Config{
				{NextProtos: []string{hostile}},
				{NextProtos: []string{"h2"}, ServerName: hostile},
				{NextProtos: []string{"h2"}, Certificates: []tls.Certificate{root.Issue(t, tlstest.Leaf{DNSNames: []string{"a\r\nb"}, URIs: []string{"spiffe://a/%0d%0ab"}})}},
			} {
				config.InsecureSkipVerify = true
				conn, err := tls.Dial("tcp", address, config)
				if err != nil {
					continue
				}
				_, _ = conn.Read(make([]byte, 1))
				_ = conn.Close()
			}
			x.set(rawCluster(t, "c\r\nforged", "10.0.0.1:1", `"validationContextSdsSecretConfig": {"name": "s", "sdsConfig": {"ads": {}}}`), rawDestination(t, "h:80", "c\r\nforged"))
			customer := x.join(mesh.WithLogger(slog.New(handler(&log))))
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://h:80/", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			if resp, err := customer.Transport().RoundTrip(req); err == nil {
				_ = resp.Body.Close()
				t.Error("the cluster is not refused")
			}
			until(t, "both are logged", func() bool {
				return strings.Contains(log.String(), "connection refused") && strings.Contains(log.String(), "xDS response rejected")
			})
			for line := range strings.SplitSeq(strings.TrimSuffix(log.String(), "\n"), "\n") {
				if strings.ContainsAny(line, "\r\x1b\u2028") {
					t.Errorf("a line holds what ends it for some: %q", line)
				}
				var object map[string]any
				if name == "JSON" && json.Unmarshal([]byte(line), &object) != nil || name == "text" && !strings.HasPrefix(line, "time=") {
					t.Errorf("not a line of the log: %q", line)
				}
			}
		})
	}
}

// TestBH3_ACallWithTooManyHeadersIsRefused over gRPC, and the next one is served.
func TestBH3_ACallWithTooManyHeadersIsRefused(t *testing.T) {
	t.Parallel()
	client := outsider(t, serveRaw(t, newRawXDS(t), ""))
	for name, md := range map[string]metadata.MD{
		"too many": func() metadata.MD {
			md := metadata.MD{}
			for i := range 200 {
				md.Append(fmt.Sprintf("x-%d", i), "a")
			}
			return md
		}(),
		"too many of one name": {"x-a": strings.Split(strings.Repeat("a,", 200), ",")},
		"too large":            {"x-a": {strings.Repeat("a", 61<<10)}},
	} {
		if _, err := client.EmptyCall(metadata.NewOutgoingContext(t.Context(), md), new(grpc_testing.Empty)); err == nil {
			t.Errorf("%s: served", name)
		} else if code := status.Code(err); code != codes.ResourceExhausted && code != codes.Internal && code != codes.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := client.EmptyCall(t.Context(), new(grpc_testing.Empty)); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
}

// TestV25_ACallerWhoseCertificateExpiresIsServedNoMore, over gRPC, on the connection
// that it made while it was good, and on no new one; no session is resumed.
func TestV25_ACallerWhoseCertificateExpiresIsServedNoMore(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA(t)
	own, err := meshtls.NewIdentity(root.Workload(t, paymentID), certificatesOf(root))
	if err != nil {
		t.Fatal(err)
	}
	address := serveRaw(t, newRawXDS(t), `"requireClientCertificate": true, "commonTlsContext": {"tlsCertificateProviderInstance": {"instanceName": "default"},
		"validationContext": {"caCertificateProviderInstance": {"instanceName": "default"}}}`, mesh.WithIdentity("default", meshtls.NewStatic(own)))
	const life = 1500 * time.Millisecond
	end := time.Now().Add(life)
	cert := root.Issue(t, tlstest.Leaf{URIs: []string{customerID}, NotAfter: end})
	config := &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"h2"},
		Certificates: []tls.Certificate{cert}, ClientSessionCache: tls.NewLRUClientSessionCache(0), ServerName: "payment",
	}
	client := outsider(t, address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if _, err := client.EmptyCall(t.Context(), new(grpc_testing.Empty)); err != nil {
		t.Fatal(err)
	}
	until(t, "it is served no more", func() bool {
		_, err := client.EmptyCall(t.Context(), new(grpc_testing.Empty))
		if err == nil && time.Since(end) > 10*time.Second {
			t.Fatal("served long after the certificate has expired")
		}
		return err != nil
	})
	if time.Now().Before(end.Truncate(time.Second)) { // certificates have whole seconds
		t.Error("refused before the certificate has expired")
	}
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return // refused in the handshake
	}
	defer conn.Close()
	if conn.ConnectionState().DidResume {
		t.Error("a session was resumed")
	}
	if _, err := bufio.NewReader(conn).ReadByte(); err == nil {
		// The server's first frame would be its settings.
		t.Error("a new connection is served")
	}
}

// TestG22_SilentConnectionsDoNotHurtLegitimateCalls: 2,000 connections to a PERMISSIVE
// port say nothing, or half a hello, while calls go on over HTTP and gRPC, each over a
// new connection.
func TestG22_SilentConnectionsDoNotHurtLegitimateCalls(t *testing.T) {
	if testing.Short() {
		t.Skip("opens thousands of connections")
	}
	t.Parallel()
	w := worldtest.New(t, "")
	payment := w.Payment("v1-a", map[string]string{"app": "payment"})
	w.Apply(services(payment)) // nothing said is PERMISSIVE
	load := newLoad(t, w.Join("shop", "customer", nil))
	for _, kind := range load.kinds {
		load.one(kind)
	}
	for i := range 2000 {
		address := payment.HTTP
		if i%4 > 1 {
			address = payment.GRPC
		}
		conn, err := (&net.Dialer{Timeout: 20 * time.Second}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%2 == 1 {
			_, _ = conn.Write([]byte{0x16, 0x03, 0x01, 0x02})
		}
		if i%100 == 0 {
			load.one(load.kinds[i/100%len(load.kinds)])
			fresh := newLoad(t, w.Join("shop", "customer", nil))
			fresh.one(fresh.kinds[i/100%len(fresh.kinds)])
			fresh.report(t, "a new caller")
		}
	}
	for range 25 {
		for _, kind := range load.kinds {
			load.one(kind)
		}
	}
	load.report(t, "with 2,000 silent connections")
}
