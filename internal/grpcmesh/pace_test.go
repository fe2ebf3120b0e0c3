package grpcmesh_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
)

// slow are filters that let 1 KiB of a response pass in a second.
func slow() []discovery.HTTPFilter {
	const million = 1_000_000
	return []discovery.HTTPFilter{{Name: "fault", Config: &discovery.Fault{
		RateLimit: &discovery.FaultRateLimit{KiBPerSecond: 1, PerMillion: million}, MaxActive: 1,
	}}}
}

// filtered has the calls to the payment pass filters.
func (f *fixture) filtered(filters []discovery.HTTPFilter) {
	f.source.setTarget(target, &discovery.Target{
		Name: target, Listener: &discovery.APIListener{Name: target, Filters: filters},
		Routes: &discovery.RouteTable{Name: target, VirtualHosts: []*discovery.VirtualHost{{
			Name: target, Domains: []string{"*"}, Routes: []*discovery.Route{forward("main")},
		}}},
		Clusters: clustersByName([]discovery.ClusterResult{cluster("main", endpoint)}),
	})
}

// unaryOf is a call whose reply has a payload of that size.
func unaryOf(ctx context.Context, client grpc_testing.TestServiceClient, size int, opts ...grpc.CallOption) error {
	_, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: make([]byte, size)}}, opts...)
	return err
}

// streamOf receives three messages of a stream.
func streamOf(ctx context.Context, client grpc_testing.TestServiceClient, size int32) error {
	in := &grpc_testing.StreamingOutputCallRequest{}
	for range 3 {
		in.ResponseParameters = append(in.ResponseParameters, &grpc_testing.ResponseParameters{Size: size})
	}
	stream, err := client.StreamingOutputCall(ctx, in)
	for err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func TestBF8_MessagesArriveAsSlowlyAsConfigured(t *testing.T) {
	t.Parallel()
	sides := map[string]func(f *fixture){
		"the client's": func(f *fixture) {
			f.serve(endpoint, &backend{})
			f.filtered(slow())
		},
		"the server's": func(f *fixture) {
			in := plaintext(endpoint)
			in.Chains[0].Filters = slow()
			f.serveAs(in, &backend{})
			f.forwardTo(endpoint)
		},
	}
	for name, start := range sides {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				start(f)
				client := f.client()
				const size = 4 << 10
				begin := time.Now()
				took := func(want time.Duration) {
					t.Helper()
					// Some bytes more are around the payload.
					if d := time.Since(begin); d < want || d > want+100*time.Millisecond {
						t.Errorf("it took %v, want %v", d, want)
					}
					begin = time.Now()
				}
				if err := unaryOf(withTimeout(t), client, size); err != nil {
					t.Error(err)
				}
				took(4 * time.Second)
				if err := streamOf(withTimeout(t), client, size); err != nil {
					t.Error(err)
				}
				took(12 * time.Second)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := unaryOf(ctx, client, size); status.Code(err) != codes.DeadlineExceeded {
					t.Errorf("a call that is too slow gives %v", err)
				}
				took(time.Second)
				ctx, cancel = context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				if err := streamOf(ctx, client, size); status.Code(err) != codes.DeadlineExceeded {
					t.Errorf("a stream that is too slow gives %v", err)
				}
				took(5 * time.Second)
				f.checkNothingCounted()
			})
		})
	}
}

func TestFiltersOfAClientSeeTheHeadersOfReplies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve(endpoint, &backend{})
		f.filtered([]discovery.HTTPFilter{{Name: "cors", Config: &discovery.CORS{
			PerMillion: 1_000_000, AllowOrigins: []discovery.StringMatch{{Value: "https://shop"}},
		}}})
		client := f.client()
		ctx := metadata.AppendToOutgoingContext(withTimeout(t), "origin", "https://shop")
		check := func(md metadata.MD) {
			t.Helper()
			if got := md.Get("access-control-allow-origin"); len(got) != 1 || got[0] != "https://shop" {
				t.Errorf("the headers are %v", md)
			}
		}
		var md metadata.MD
		if err := unaryOf(ctx, client, 1, grpc.Header(&md)); err != nil {
			t.Error(err)
		}
		check(md)
		stream, err := client.StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{ResponseParameters: []*grpc_testing.ResponseParameters{{Size: 1}}})
		if err != nil {
			t.Fatal(err)
		}
		if md, err = stream.Header(); err != nil {
			t.Error(err)
		}
		check(md)
		for err == nil {
			_, err = stream.Recv()
		}
	})
}
