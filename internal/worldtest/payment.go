package worldtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/mesh"
)

// Payment is a server of the world: HTTP and gRPC, each on its own address.
// What it answers can be scripted while it runs.
type Payment struct {
	Instance string
	// HTTP and GRPC are the addresses.
	HTTP, GRPC string
	// Mesh is the payment's own.
	Mesh *mesh.Mesh

	// Fail, if positive, is the number of coming requests that are answered
	// with Status (HTTP) or Code (gRPC).
	Fail   atomic.Int64
	Status atomic.Int64
	Code   atomic.Uint32
	// Hang makes requests wait until their context ends.
	Hang atomic.Bool
	// Calls counts the requests that arrived.
	Calls atomic.Int64

	httpServer *http.Server
	grpcServer *grpc.Server
	wg         sync.WaitGroup
}

// Reply is what a payment answers over HTTP. The gRPC reply carries the same
// in its response headers.
type Reply struct {
	Instance string              `json:"instance"`
	Method   string              `json:"method"`
	Path     string              `json:"path"`
	Query    string              `json:"query"`
	Host     string              `json:"host"`
	Proto    string              `json:"proto"`
	Peer     string              `json:"peer"`
	Header   map[string][]string `json:"header"`
	BodySHA  string              `json:"bodySHA"`
	Deadline int64               `json:"deadlineMillis"`
}

// Payment starts a payment of the workload payment in the namespace shop.
func (w *World) Payment(instance string, labels map[string]string, options ...mesh.Option) *Payment {
	w.tb.Helper()
	return w.PaymentAt(instance, labels, w.listen("127.0.0.1:0"), w.listen("127.0.0.1:0"), options...)
}

// PaymentAt starts a payment on listeners that are open already: their
// addresses can be in the configuration before the payment asks for its own.
func (w *World) PaymentAt(instance string, labels map[string]string, httpInner, grpcInner net.Listener, options ...mesh.Option) *Payment {
	w.tb.Helper()
	p := &Payment{Instance: instance, Mesh: w.Join("shop", "payment", labels, options...)}
	p.Status.Store(http.StatusServiceUnavailable)
	p.Code.Store(uint32(codes.Unavailable))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	httpLn, err := p.Mesh.Serve(ctx, httpInner)
	if err != nil {
		w.tb.Fatal(err)
	}
	grpcLn, err := p.Mesh.Serve(ctx, grpcInner)
	if err != nil {
		w.tb.Fatal(err)
	}
	p.HTTP, p.GRPC = httpLn.Addr().String(), grpcLn.Addr().String()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	p.httpServer = &http.Server{Handler: p.Mesh.Handler(p), Protocols: protocols, ReadHeaderTimeout: 10 * time.Second}
	p.grpcServer = grpc.NewServer(p.Mesh.ServerOptions()...)
	grpc_testing.RegisterTestServiceServer(p.grpcServer, &grpcPayment{payment: p})
	p.wg.Go(func() {
		if err := p.httpServer.Serve(httpLn); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			w.tb.Errorf("payment %s: %v", instance, err)
		}
	})
	p.wg.Go(func() {
		if err := p.grpcServer.Serve(grpcLn); err != nil && !errors.Is(err, net.ErrClosed) {
			w.tb.Errorf("payment %s: %v", instance, err)
		}
	})
	w.tb.Cleanup(p.Kill)
	return p
}

// Kill ends the payment at once: its connections break. It may be called again.
func (p *Payment) Kill() {
	_ = p.httpServer.Close() // the listener may be closed already
	p.grpcServer.Stop()
	p.wg.Wait()
}

// Stop ends the payment when its requests have ended.
func (p *Payment) Stop(ctx context.Context) {
	_ = p.httpServer.Shutdown(ctx)
	p.grpcServer.GracefulStop()
	p.wg.Wait()
}

// failing reports whether this request is to fail.
func (p *Payment) failing() bool {
	for {
		n := p.Fail.Load()
		if n <= 0 {
			return false
		}
		if p.Fail.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// ServeHTTP answers with what arrived.
func (p *Payment) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.Calls.Add(1)
	hash := sha256.New()
	_, err := io.Copy(hash, r.Body)
	if p.Hang.Load() {
		<-r.Context().Done()
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("X-Instance", p.Instance)
	if p.failing() {
		http.Error(w, "scripted failure", int(p.Status.Load()))
		return
	}
	reply := Reply{
		Instance: p.Instance, Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery,
		Host: r.Host, Proto: r.Proto, Header: r.Header, BodySHA: hex.EncodeToString(hash.Sum(nil)),
	}
	if id, ok := mesh.PeerID(r.Context()); ok {
		reply.Peer = id.String()
	}
	if deadline, ok := r.Context().Deadline(); ok {
		reply.Deadline = time.Until(deadline).Milliseconds()
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(reply) //nolint:errchkjson // the caller went away
}

// grpcPayment is the payment's gRPC service.
type grpcPayment struct {
	grpc_testing.UnimplementedTestServiceServer
	payment *Payment
}

func (g *grpcPayment) begin(ctx context.Context) error {
	p := g.payment
	p.Calls.Add(1)
	if p.Hang.Load() {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	if p.failing() {
		return status.Error(codes.Code(p.Code.Load()), "scripted failure")
	}
	md := metadata.Pairs("x-instance", p.Instance)
	if id, ok := mesh.PeerID(ctx); ok {
		md.Set("x-peer", id.String())
	}
	if deadline, ok := ctx.Deadline(); ok {
		md.Set("x-deadline-millis", strconv.FormatInt(time.Until(deadline).Milliseconds(), 10))
	}
	in, _ := metadata.FromIncomingContext(ctx)
	for name, values := range in {
		for _, value := range values {
			if name != "x-instance" && !strings.HasPrefix(name, ":") {
				md.Append("seen-"+name, value)
			}
		}
	}
	return grpc.SetHeader(ctx, md)
}

func (g *grpcPayment) EmptyCall(ctx context.Context, _ *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return &grpc_testing.Empty{}, g.begin(ctx)
}

func (g *grpcPayment) UnaryCall(ctx context.Context, req *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	if err := g.begin(ctx); err != nil {
		return nil, err
	}
	return &grpc_testing.SimpleResponse{Payload: req.GetPayload(), Username: g.payment.Instance}, nil
}

func (g *grpcPayment) StreamingOutputCall(req *grpc_testing.StreamingOutputCallRequest, stream grpc_testing.TestService_StreamingOutputCallServer) error {
	if err := g.begin(stream.Context()); err != nil {
		return err
	}
	for _, p := range req.GetResponseParameters() {
		if err := stream.Send(&grpc_testing.StreamingOutputCallResponse{Payload: &grpc_testing.Payload{Body: make([]byte, p.GetSize())}}); err != nil {
			return err
		}
	}
	return nil
}

func (g *grpcPayment) StreamingInputCall(stream grpc_testing.TestService_StreamingInputCallServer) error {
	if err := g.begin(stream.Context()); err != nil {
		return err
	}
	var size int32
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&grpc_testing.StreamingInputCallResponse{AggregatedPayloadSize: size})
		}
		if err != nil {
			return err
		}
		size += int32(len(m.GetPayload().GetBody()))
	}
}

func (g *grpcPayment) FullDuplexCall(stream grpc_testing.TestService_FullDuplexCallServer) error {
	if err := g.begin(stream.Context()); err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&grpc_testing.StreamingOutputCallResponse{Payload: m.GetPayload()}); err != nil {
			return err
		}
	}
}
