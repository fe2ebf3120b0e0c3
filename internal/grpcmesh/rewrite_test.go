package grpcmesh_test

import (
	"context"
	"regexp"
	"slices"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

func format(tb testing.TB, text string) *discovery.Format {
	tb.Helper()
	f, err := discovery.ParseFormat(text, discovery.OfResponse)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// The authority is that of the endpoint of each attempt (gRFC A81).
func TestBU5_TheAuthorityIsTheEndpointsHost(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.identify(paymentID) // plaintext is not believed about what it rewrote
				check := func(want string) *backend {
					return &backend{before: func(ctx context.Context, _ int64) error {
						if got := incoming(ctx, ":authority"); !slices.Equal(got, []string{want}) {
							t.Errorf("authority %q, want %q", got, want)
						}
						if got := incoming(ctx, "x-envoy-original-host"); !slices.Equal(got, []string{target}) {
							t.Errorf("original host %q", got)
						}
						return status.Error(codes.Unavailable, "try the other one")
					}}
				}
				one, two := check("one.shop"), check("two.shop")
				f.serveAs(strict("10.0.0.1:1"), one)
				f.serveAs(strict("10.0.0.2:1"), two)
				route := retrying(1, retry.OnGRPCUnavailable)
				route.Forward.Retry.AvoidPreviousHosts = true
				route.Forward.HostFrom = &discovery.HostSource{Endpoint: true}
				c := mutual(cluster("main", "10.0.0.1:1", "10.0.0.2:1"))
				c.Endpoints.Localities[0].Endpoints[0].Hostname = "one.shop"
				c.Endpoints.Localities[0].Endpoints[1].Hostname = "two.shop"
				f.configure(route, c)
				if err := kind.call(withTimeout(t), f.client()); status.Code(err) != codes.Unavailable {
					t.Fatal(err)
				}
				if one.calls.Load() != 1 || two.calls.Load() != 1 {
					t.Errorf("%d and %d calls", one.calls.Load(), two.calls.Load())
				}
			})
		})
	}
}

func TestBU5_ExpressionsAndHeadersRewriteMethodAndAuthority(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.identify(paymentID)
		b := &backend{before: func(ctx context.Context, _ int64) error {
			if got := incoming(ctx, ":authority"); !slices.Equal(got, []string{"other.shop:1"}) {
				t.Errorf("authority %q", got)
			}
			if got := incoming(ctx, "x-envoy-original-path"); !slices.Equal(got, []string{"/v1/EmptyCall"}) {
				t.Errorf("original path %q", got)
			}
			return nil
		}}
		f.serveAs(strict(endpoint), b)
		route := forward("main")
		route.Forward.PathSubstitution = &discovery.Substitution{
			Program: regexp.MustCompile("^/v1/(.*)$"), Replacement: "/grpc.testing.TestService/${1}",
		}
		route.Forward.HostFrom = &discovery.HostSource{Header: "x-host"}
		f.configure(route, mutual(cluster("main", endpoint)))
		client := grpc_testing.NewTestServiceClient(renamed{f.channel(), func(method string) string {
			return "/v1/" + method[len("/grpc.testing.TestService/"):]
		}})
		ctx := metadata.AppendToOutgoingContext(withTimeout(t), "x-host", "other.shop:1")
		if _, err := client.EmptyCall(ctx, &grpc_testing.Empty{}); err != nil || b.calls.Load() != 1 {
			t.Errorf("%v after %d calls", err, b.calls.Load())
		}
	})
}

func TestBU6_ValuesAreComputedForGRPC(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		set := func(name, text string) []discovery.HeaderValue {
			return []discovery.HeaderValue{{Name: name, Format: format(t, text)}}
		}
		in := plaintext(endpoint, &discovery.Route{Name: "in", Local: true, Headers: discovery.HeaderMutations{
			RequestAdd:  set("x-in", "%REQ(x-out)% %REQ(:path)% %DOWNSTREAM_LOCAL_ADDRESS%"),
			ResponseAdd: set("x-served", "%ROUTE_NAME% %RESPONSE_CODE% %REQ(x-in)%"),
		}})
		b := &backend{before: func(ctx context.Context, _ int64) error {
			const want = "ada POST HTTP/2 main /grpc.testing.TestService/EmptyCall " + endpoint
			if got := incoming(ctx, "x-in"); !slices.Equal(got, []string{want}) {
				t.Errorf("arrived %q, want %q", got, want)
			}
			return nil
		}}
		f.serveAs(in, b)
		route := forward("main")
		route.Headers = discovery.HeaderMutations{
			RequestAdd:  set("x-out", "%REQ(x-user)% %REQ(:method)% %PROTOCOL% %UPSTREAM_CLUSTER%"),
			ResponseAdd: set("x-back", "%RESP(x-served)% by %UPSTREAM_REMOTE_ADDRESS%"),
		}
		f.configure(route, cluster("main", endpoint))
		var header metadata.MD
		ctx := metadata.AppendToOutgoingContext(withTimeout(t), "x-user", "ada")
		if _, err := f.client().EmptyCall(ctx, &grpc_testing.Empty{}, grpc.Header(&header)); err != nil {
			t.Fatal(err)
		}
		const want = "in 200 ada POST HTTP/2 main /grpc.testing.TestService/EmptyCall " + endpoint + " by " + endpoint
		if got := header.Get("x-back"); !slices.Equal(got, []string{want}) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestBU7_AServerOfGRPCDoesNotRedirect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := &backend{}
		f.serveAs(plaintext(endpoint, &discovery.Route{Redirect: &discovery.Redirect{Status: 302}}), b)
		_, err := f.plainClient(endpoint).EmptyCall(withTimeout(t), &grpc_testing.Empty{})
		if s := status.Convert(err); s.Code() != codes.Unknown || s.Message() != "redirect to http://10.0.0.1:9090/grpc.testing.TestService/EmptyCall (HTTP status 302)" || b.calls.Load() != 0 {
			t.Errorf("%v after %d calls", err, b.calls.Load())
		}
	})
}
