package grpcmesh_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

const binary = "\x00\xff\x80 not text"

func TestMetadataPassesInBothDirections(t *testing.T) {
	t.Parallel()
	for _, transport := range transports {
		t.Run(transport.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				transport.start(f, &backend{before: func(ctx context.Context, _ int64) error {
					if got := incoming(ctx, "x-many"); !slices.Equal(got, []string{"1", "2"}) {
						t.Errorf("x-many: %q", got)
					}
					if got := incoming(ctx, "x-data-bin"); !slices.Equal(got, []string{binary}) {
						t.Errorf("x-data-bin: %q", got)
					}
					if err := grpc.SetHeader(ctx, metadata.Pairs("x-answer", "a", "x-answer-bin", binary)); err != nil {
						return err
					}
					return grpc.SetTrailer(ctx, metadata.Pairs("x-end", "e", "x-end-bin", binary))
				}})
				client := f.client()
				ctx := metadata.AppendToOutgoingContext(withTimeout(t), "X-Many", "1", "x-many", "2", "x-data-bin", binary)
				check := func(header, trailer metadata.MD) {
					t.Helper()
					for name, want := range map[string]string{"x-answer": "a", "x-answer-bin": binary} {
						if got := header.Get(name); !slices.Equal(got, []string{want}) {
							t.Errorf("header %s: %q", name, got)
						}
					}
					for name, want := range map[string]string{"x-end": "e", "x-end-bin": binary} {
						if got := trailer.Get(name); !slices.Equal(got, []string{want}) {
							t.Errorf("trailer %s: %q", name, got)
						}
					}
				}
				var header, trailer metadata.MD
				if _, err := client.EmptyCall(ctx, &grpc_testing.Empty{}, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil {
					t.Fatal(err)
				}
				check(header, trailer)
				stream, err := client.FullDuplexCall(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := stream.CloseSend(); err != nil {
					t.Fatal(err)
				}
				if header, err = stream.Header(); err != nil {
					t.Fatal(err)
				}
				if _, err := stream.Recv(); err == nil {
					t.Error("a message")
				}
				check(header, stream.Trailer())
			})
		})
	}
}

// TestHeaderOperations are those of the route, on the way out.
func TestHeaderOperations(t *testing.T) {
	t.Parallel()
	operations := discovery.HeaderMutations{
		RequestAdd: []discovery.HeaderValue{
			{Name: "x-set", Value: "new", Action: discovery.OverwriteIfExistsOrAdd},
			{Name: "x-add", Value: "more", Action: discovery.AppendIfExistsOrAdd},
		},
		RequestRemove: []string{"x-drop"},
		ResponseAdd: []discovery.HeaderValue{
			{Name: "x-answer", Value: "new", Action: discovery.OverwriteIfExistsOrAdd},
			{Name: "x-more", Value: "more", Action: discovery.AppendIfExistsOrAdd},
		},
		ResponseRemove: []string{"x-secret"},
	}
	checkRequest := func(t *testing.T, ctx context.Context) {
		t.Helper()
		for name, want := range map[string][]string{"x-set": {"new"}, "x-add": {"old", "more"}, "x-drop": nil, "x-keep": {"old"}} {
			if got := incoming(ctx, name); !slices.Equal(got, want) {
				t.Errorf("request %s: %q, want %q", name, got, want)
			}
		}
	}
	checkResponse := func(t *testing.T, header metadata.MD) {
		t.Helper()
		for name, want := range map[string][]string{"x-answer": {"new"}, "x-more": {"old", "more"}, "x-secret": nil} {
			if got := header.Get(name); !slices.Equal(got, want) {
				t.Errorf("response %s: %q, want %q", name, got, want)
			}
		}
	}
	sides := []struct {
		name  string
		start func(f *fixture, b *backend)
	}{
		{"of the client's route", func(f *fixture, b *backend) {
			f.serve(endpoint, b)
			route := retrying(1, retry.OnGRPCUnavailable)
			route.Headers = operations
			f.configure(route, cluster("main", endpoint))
		}},
		{"of the server's route", func(f *fixture, b *backend) {
			f.serveAs(plaintext(endpoint, &discovery.Route{Local: true, Headers: operations}), b)
			f.configure(retrying(1, retry.OnGRPCUnavailable), cluster("main", endpoint))
		}},
	}
	for _, side := range sides {
		t.Run(side.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				b := &backend{before: func(ctx context.Context, n int64) error {
					checkRequest(t, ctx) // BR18: also on a retry, each once
					if n%2 == 1 {
						return status.Error(codes.Unavailable, "scripted failure")
					}
					return grpc.SetHeader(ctx, metadata.Pairs("x-answer", "old", "x-more", "old", "x-secret", "s"))
				}}
				side.start(f, b)
				client := f.client()
				md := metadata.Pairs("x-set", "old", "x-add", "old", "x-drop", "old", "x-keep", "old")
				ctx := metadata.NewOutgoingContext(withTimeout(t), md)
				var header metadata.MD
				if _, err := client.EmptyCall(ctx, &grpc_testing.Empty{}, grpc.Header(&header)); err != nil {
					t.Fatal(err)
				}
				checkResponse(t, header)
				stream, err := client.FullDuplexCall(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := stream.CloseSend(); err != nil {
					t.Fatal(err)
				}
				if header, err = stream.Header(); err != nil {
					t.Fatal(err)
				}
				checkResponse(t, header)
				if !slices.Equal(md.Get("x-set"), []string{"old"}) || len(md.Get("x-add")) != 1 || len(md) != 4 {
					t.Errorf("the application's own metadata was changed: %v", md)
				}
			})
		})
	}
}

// TestWhatAnObserverAddsIsPerAttempt (row BR18).
func TestWhatAnObserverAddsIsPerAttempt(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.seen.header = "traceparent"
				b := &backend{before: func(ctx context.Context, n int64) error {
					if got := incoming(ctx, "traceparent"); len(got) != 1 {
						t.Errorf("call %d: traceparent %q", n, got)
					}
					return failFirst(2, codes.Unavailable)(ctx, n)
				}}
				f.serve(endpoint, b)
				f.configure(retrying(2, retry.OnGRPCUnavailable), cluster("main", endpoint))
				if err := kind.call(withTimeout(t), f.client()); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

func TestRewritesChangeTheMethodAndTheAuthority(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				b := &backend{before: func(ctx context.Context, n int64) error {
					method, _ := grpc.Method(ctx)
					if got := incoming(ctx, ":authority"); !slices.Equal(got, []string{"other.shop:1"}) {
						t.Errorf("authority %q", got)
					}
					if n == 1 {
						return status.Error(codes.Unavailable, method)
					}
					return nil
				}}
				f.serve(endpoint, b)
				route := retrying(1, retry.OnGRPCUnavailable)
				route.Match.Path = discovery.PathMatch{Value: "/old.Service/"}
				route.Forward.PrefixRewrite = "/grpc.testing.TestService/"
				route.Forward.HostRewrite = "other.shop:1"
				f.configure(route, cluster("main", endpoint))
				// The client's stub calls /grpc.testing.TestService/...; the channel is
				// asked for /old.Service/... instead.
				old := func(method string) string { return "/old.Service/" + method[len("/grpc.testing.TestService/"):] }
				client := grpc_testing.NewTestServiceClient(renamed{f.channel(), old})
				if err := kind.call(withTimeout(t), client); err != nil {
					t.Fatal(err)
				}
				if b.calls.Load() != 2 {
					t.Errorf("%d calls", b.calls.Load())
				}
			})
		})
	}
}

// renamed calls other methods than it is asked for.
type renamed struct {
	*grpc.ClientConn
	rename func(string) string
}

func (r renamed) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return r.ClientConn.Invoke(ctx, r.rename(method), args, reply, opts...)
}

func (r renamed) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return r.ClientConn.NewStream(ctx, desc, r.rename(method), opts...)
}

// TestTheAuthorityOfTheCallSelectsTheVirtualHost.
func TestTheAuthorityOfTheCallSelectsTheVirtualHost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve("10.0.0.1:1", &backend{name: "one"})
		f.serve("10.0.0.2:1", &backend{name: "two"})
		f.source.setTarget(target, &discovery.Target{
			Name: target, Listener: &discovery.APIListener{Name: target},
			Routes: &discovery.RouteTable{Name: target, VirtualHosts: []*discovery.VirtualHost{
				{Name: "one", Domains: []string{target}, Routes: []*discovery.Route{forward("one")}},
				{Name: "two", Domains: []string{"two.shop"}, Routes: []*discovery.Route{forward("two")}},
			}},
			Clusters: clustersByName([]discovery.ClusterResult{cluster("one", "10.0.0.1:1"), cluster("two", "10.0.0.2:1")}),
		})
		client := f.client()
		for _, tt := range []struct {
			options []grpc.CallOption
			want    string
		}{{nil, "one"}, {[]grpc.CallOption{grpc.CallAuthority("two.shop")}, "two"}} {
			reply, err := client.UnaryCall(withTimeout(t), &grpc_testing.SimpleRequest{}, tt.options...)
			if err != nil || reply.GetUsername() != tt.want {
				t.Errorf("%v, %v; want %s", reply, err, tt.want)
			}
		}
	})
}

func TestTheDetailsOfAStatusArePreserved(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.serve(endpoint, &backend{before: func(context.Context, int64) error {
					s, err := status.New(codes.FailedPrecondition, "über\n%").WithDetails(durationpb.New(42))
					if err != nil {
						return err
					}
					return s.Err()
				}})
				f.forwardTo(endpoint)
				s := status.Convert(kind.call(withTimeout(t), f.client()))
				details := s.Details()
				if s.Code() != codes.FailedPrecondition || s.Message() != "über\n%" || len(details) != 1 {
					t.Fatalf("%v with %v", s, details)
				}
				if d, ok := details[0].(*durationpb.Duration); !ok || d.AsDuration() != 42 {
					t.Errorf("details %v", details)
				}
			})
		})
	}
}

// TestInterceptorsOfTheApplicationStandWhereTheyWerePut: above the mesh's if they
// come first, else below, where they see every attempt.
func TestInterceptorsOfTheApplicationStandWhereTheyWerePut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve(endpoint, &backend{before: failFirst(1, codes.Unavailable)})
		f.configure(retrying(1, retry.OnGRPCUnavailable), cluster("main", endpoint))
		var mu sync.Mutex
		var seen []string
		interceptor := func(name string) grpc.DialOption {
			return grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				mu.Lock()
				seen = append(seen, name)
				mu.Unlock()
				return invoke(ctx, method, req, reply, cc, opts...)
			})
		}
		options := append([]grpc.DialOption{interceptor("above")}, f.adapter.DialOptions()...)
		conn, err := grpc.NewClient("mesh:///"+target, append(options, interceptor("below"))...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := grpc_testing.NewTestServiceClient(conn).EmptyCall(withTimeout(t), &grpc_testing.Empty{}); err != nil {
			t.Fatal(err)
		}
		if want := []string{"above", "below", "below"}; !slices.Equal(seen, want) {
			t.Errorf("%q, want %q", seen, want)
		}
	})
}
