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

// Payment is a server of the world: HTTP and gRPC, each on its own address. A
// request can say what becomes of it, see [ScriptHeader].
type Payment struct {
	Instance string
	// HTTP and GRPC are the addresses.
	HTTP, GRPC string
	// Mesh is the payment's own.
	Mesh *mesh.Mesh

	// Calls counts the requests that arrived.
	Calls atomic.Int64

	arrivals   *arrivals
	httpServer *http.Server
	grpcServer *grpc.Server
	wg         sync.WaitGroup
	kill       func()
	leave      func()
}

// AnswerHeader makes a request ask for response headers: "name=value", separated
// by commas.
const AnswerHeader = "Test-Answer"

// EchoPath is where an HTTP payment answers with the query parameter "document",
// and nothing else.
const EchoPath = "/echo"

// ReplyHeader is the response header of a gRPC answer that holds the [Reply] as
// JSON.
const ReplyHeader = "x-reply-bin"

// Reply is what a payment answers: what arrived. Over HTTP it is the body. A
// response header, or for a gRPC failure a trailer, names the instance always.
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
	p := &Payment{Instance: instance, arrivals: &w.arrivals}
	p.Mesh, p.leave = w.join("shop", "payment", labels, options...)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
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
	p.httpServer = p.Mesh.Server(p)
	p.httpServer.Handler = rememberCaller(p.httpServer.Handler)
	service := &grpcPayment{payment: p}
	p.grpcServer = grpc.NewServer(append(p.Mesh.ServerOptions(), grpc.UnknownServiceHandler(service.anyMethod))...)
	grpc_testing.RegisterTestServiceServer(p.grpcServer, service)
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
	p.kill = w.cleanup(p.Kill)
	return p
}

// callerKey is where requests keep the context that ends when the caller is gone.
type callerKey struct{}

// rememberCaller lets a handler wait for longer than the deadline that came with
// the request.
func rememberCaller(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, r.Context())))
	})
}

// Kill ends the payment at once: its connections break. It may be called again.
func (p *Payment) Kill() {
	_ = p.httpServer.Close() // the listener may be closed already
	p.grpcServer.Stop()
	p.wg.Wait()
}

// End kills the payment and closes its mesh. The world forgets it: tests with many
// payments do not keep them all.
func (p *Payment) End() {
	p.kill()
	p.leave()
}

// Stop ends the payment when its requests have ended. Its callers must have heard
// that it goes.
func (p *Payment) Stop(ctx context.Context) {
	_, _ = p.Drain(ctx, mesh.DrainPolicy{Listen: -1, Quiet: -1, Immediate: true})
}

// Drain ends the payment as a policy says.
func (p *Payment) Drain(ctx context.Context, policy mesh.DrainPolicy) (mesh.DrainReport, error) {
	report, err := p.Mesh.Drain(ctx, policy)
	p.wg.Go(p.grpcServer.GracefulStop)
	_ = p.httpServer.Shutdown(ctx)
	p.wg.Wait()
	return report, err
}

// answers calls f for every response header that a request asks for.
func answers(wanted string, f func(name, value string)) {
	for pair := range strings.SplitSeq(wanted, ",") {
		if name, value, ok := strings.Cut(pair, "="); ok {
			f(name, value)
		}
	}
}

// ServeHTTP answers with what arrived.
func (p *Payment) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == EchoPath {
		_, _ = io.WriteString(w, r.URL.Query().Get("document")) //nolint:gosec // that it answers what it is asked to is its purpose
		return
	}
	p.Calls.Add(1)
	hash := sha256.New()
	if _, err := io.Copy(hash, r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("X-Instance", p.Instance)
	answers(r.Header.Get(AnswerHeader), w.Header().Add)
	failure, err := p.arrivals.follow(r.Context(), r.Header.Get(CallHeader), r.Header.Get(ScriptHeader))
	switch {
	case r.Context().Err() != nil:
		return // nobody waits for it
	case err != nil:
		http.Error(w, err.Error(), http.StatusTeapot)
		return
	case failure.Status != 0:
		http.Error(w, "scripted failure", failure.Status)
		return
	}
	reply := p.reply(r.Context())
	reply.Method, reply.Path, reply.Query = r.Method, r.URL.EscapedPath(), r.URL.RawQuery
	reply.Host, reply.Proto, reply.Header, reply.BodySHA = r.Host, r.Proto, r.Header, hex.EncodeToString(hash.Sum(nil))
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(reply) //nolint:errchkjson // the caller went away
}

func (p *Payment) reply(ctx context.Context) Reply {
	reply := Reply{Instance: p.Instance}
	if id, ok := mesh.PeerID(ctx); ok {
		reply.Peer = id.String()
	}
	if deadline, ok := ctx.Deadline(); ok {
		reply.Deadline = time.Until(deadline).Milliseconds()
	}
	return reply
}

// grpcPayment is the payment's gRPC service.
type grpcPayment struct {
	grpc_testing.UnimplementedTestServiceServer
	payment *Payment
}

// anyMethod answers calls of methods that are not of the service, as HTTP does
// for any path.
func (g *grpcPayment) anyMethod(_ any, stream grpc.ServerStream) error {
	if err := stream.RecvMsg(new(grpc_testing.Empty)); err != nil {
		return err
	}
	if err := g.begin(stream.Context()); err != nil {
		return err
	}
	return stream.SendMsg(new(grpc_testing.Empty))
}

func (g *grpcPayment) begin(ctx context.Context) error {
	p := g.payment
	p.Calls.Add(1)
	in, _ := metadata.FromIncomingContext(ctx)
	first := func(name string) string {
		if values := in.Get(name); len(values) > 0 {
			return values[0]
		}
		return ""
	}
	failure, err := p.arrivals.follow(ctx, first(CallHeader), first(ScriptHeader))
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case err != nil:
		return status.Error(codes.InvalidArgument, err.Error())
	case failure.Status != 0:
		if err := grpc.SetTrailer(ctx, metadata.Pairs("x-instance", p.Instance)); err != nil {
			return err
		}
		return status.Error(failure.Code, "scripted failure")
	}
	reply := p.reply(ctx)
	reply.Path, _ = grpc.Method(ctx)
	reply.Method, reply.Host, reply.Proto, reply.Header = http.MethodPost, first(":authority"), "HTTP/2.0", in
	text, err := json.Marshal(reply)
	if err != nil {
		return err
	}
	md := metadata.Pairs("x-instance", p.Instance, ReplyHeader, string(text))
	answers(first(AnswerHeader), func(name, value string) { md.Append(name, value) })
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
