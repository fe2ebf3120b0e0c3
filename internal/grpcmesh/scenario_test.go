package grpcmesh_test

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/calltest"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/retry"
)

func empty(ctx context.Context, client grpc_testing.TestServiceClient, opts ...grpc.CallOption) error {
	_, err := client.EmptyCall(ctx, &grpc_testing.Empty{}, opts...)
	return err
}

// Weighted clusters of 80 and 20: the share is within 1.6 points, and a retry stays in
// its cluster.
func TestS15_WeightedClustersGetTheirSharesAndKeepTheirRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := calltest.Many()
		f := newFixture(t)
		var mu sync.Mutex
		seen := make(map[string][]string, calls) // clusters by call
		retried := func(call string) bool { return strings.HasSuffix(call, "0") }
		for cluster, address := range map[string]string{"v1": "10.0.0.1:80", "v2": "10.0.0.2:80"} {
			f.serve(address, &backend{before: func(ctx context.Context, _ int64) error {
				call := incoming(ctx, "x-call")[0]
				mu.Lock()
				defer mu.Unlock()
				if seen[call] = append(seen[call], cluster); retried(call) && len(seen[call]) == 1 {
					return status.Error(codes.Unavailable, "scripted failure")
				}
				return nil
			}})
		}
		route := retrying(1, retry.OnGRPCUnavailable)
		route.Forward.Clusters = []discovery.WeightedCluster{{Name: "v1", Weight: 80}, {Name: "v2", Weight: 20}}
		f.configure(route, cluster("v1", "10.0.0.1:80"), cluster("v2", "10.0.0.2:80"))
		client := f.client()
		for i := range calls {
			if err := empty(metadata.AppendToOutgoingContext(t.Context(), "x-call", strconv.Itoa(i)), client); err != nil {
				t.Fatal(err)
			}
		}
		canaries := 0
		for call, clusters := range seen {
			want := 1
			if retried(call) {
				want = 2
			}
			if len(clusters) != want || clusters[0] != clusters[want-1] {
				t.Errorf("call %s went to %v", call, clusters)
			}
			if clusters[0] == "v2" {
				canaries++
			}
		}
		calltest.Share(t, "v2", canaries, calls, 0.2)
	})
}

// Each condition that a gRPC call may be retried under, with each code.
func TestS23_EachConditionOverGRPC(t *testing.T) {
	t.Parallel()
	holds := map[string]codes.Code{
		"cancelled": codes.Canceled, "deadline-exceeded": codes.DeadlineExceeded, "internal": codes.Internal,
		"resource-exhausted": codes.ResourceExhausted, "unavailable": codes.Unavailable,
		"": codes.OK, "5xx": codes.OK, "reset": codes.OK, "connect-failure": codes.OK, "retriable-4xx": codes.OK,
	}
	answers := []codes.Code{
		codes.Canceled, codes.DeadlineExceeded, codes.Internal, codes.ResourceExhausted, codes.Unavailable,
		codes.OK, codes.Unknown, codes.NotFound, codes.Aborted,
	}
	for on, held := range holds {
		for _, kind := range callKinds {
			t.Run(on+"/"+kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					conditions, err := retry.ParseConditions(on)
					if err != nil {
						t.Fatal(err)
					}
					f := newFixture(t)
					var code codes.Code
					b := &backend{before: func(context.Context, int64) error { return status.Error(code, "scripted") }}
					f.serve(endpoint, b)
					f.configure(retrying(2, conditions), cluster("main", endpoint))
					client := f.client()
					for _, code = range answers {
						before := b.calls.Load()
						if err := kind.call(withTimeout(t), client); status.Code(err) != code {
							t.Errorf("%v became %v", code, err)
						}
						want := int64(1)
						if code == held && code != codes.OK {
							want = 3
						}
						if got := b.calls.Load() - before; got != want {
							t.Errorf("%v: %d attempts, want %d", code, got, want)
						}
					}
				})
			})
		}
	}
}

// A connection that cannot be made, and one that breaks.
func TestS23_WhereThereIsNoAnswerOverGRPC(t *testing.T) {
	t.Parallel()
	for on, want := range map[retry.Conditions]int{
		0: 1, retry.OnConnectFailure: 3, retry.OnReset: 3, retry.On5xx: 3, retry.OnGatewayError: 3, retry.OnRetriable4xx: 1, retry.OnGRPCInternal: 1,
	} {
		for _, kind := range callKinds {
			t.Run(on.String()+"/"+kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					f.configure(retrying(2, on), cluster("main", endpoint))
					err := kind.call(withTimeout(t), f.client())
					if failure := f.seen.ended(observe.Outbound); status.Code(err) != codes.Unavailable || failure[0].Attempts != want {
						t.Errorf("%v after %d attempts, want %d", err, failure[0].Attempts, want)
					}
				})
			})
		}
	}
}

// The pauses between attempts as a server sees them: those of BR6.
func TestS24_AServerSeesThePausesBetweenRetries(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	bounds := [][2]time.Duration{{20 * ms, 30 * ms}, {40 * ms, 60 * ms}, {80 * ms, 120 * ms}, {160 * ms, 240 * ms}}
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				var arrived []time.Time
				f.serve(endpoint, &backend{before: func(context.Context, int64) error {
					arrived = append(arrived, time.Now())
					return status.Error(codes.Unavailable, "scripted failure")
				}})
				f.configure(retrying(4, retry.OnGRPCUnavailable), cluster("main", endpoint))
				client := f.client()
				longest := make([]time.Duration, len(bounds))
				for range 100 {
					arrived = arrived[:0]
					if err := kind.call(withTimeout(t), client); status.Code(err) != codes.Unavailable || len(arrived) != len(bounds)+1 {
						t.Fatalf("%v after %d attempts", err, len(arrived))
					}
					for i, bound := range bounds {
						pause := arrived[i+1].Sub(arrived[i])
						if pause < bound[0] || pause > bound[1] {
							t.Errorf("pause %d was %v, want %v", i+1, pause, bound)
						}
						longest[i] = max(longest[i], pause)
					}
				}
				for i, bound := range bounds {
					if longest[i] < (bound[0]+bound[1])/2 { // once in 2^100 runs
						t.Errorf("pause %d was never longer than %v of %v", i+1, longest[i], bound)
					}
				}
			})
		})
	}
}

// Half of the calls are aborted and a twentieth is delayed, each independently of the
// other; what is aborted reaches nobody.
func TestS28_FaultsOverGRPC(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := calltest.Many()
		f := newFixture(t)
		b := &backend{}
		f.serve(endpoint, b)
		f.filtered([]discovery.HTTPFilter{{Name: "fault", Config: &discovery.Fault{
			Delay: &discovery.FaultDelay{Fixed: time.Second, PerMillion: 50_000},
			Abort: &discovery.FaultAbort{HTTPStatus: 503, PerMillion: 500_000},
		}}})
		client := f.client()
		aborted, delayed, both := 0, 0, 0
		for range calls {
			begin := time.Now()
			err := empty(t.Context(), client)
			if code := status.Code(err); code != codes.OK && code != codes.Unavailable {
				t.Fatal(err)
			}
			late := time.Since(begin) == time.Second
			if err != nil {
				aborted++
			}
			if late {
				delayed++
			}
			if late && err != nil {
				both++
			}
		}
		calltest.Share(t, "aborted", aborted, calls, 0.5)
		calltest.Share(t, "delayed", delayed, calls, 0.05)
		calltest.Share(t, "both", both, calls, 0.025)
		if got := int(b.calls.Load()); got != calls-aborted {
			t.Errorf("%d of %d calls were aborted, %d arrived", aborted, calls, got)
		}
	})
}

// Headers that a cluster, a route, a virtual host and a table change, those of the
// request and of the response.
func TestS30_HeaderMutationsAtFourLevels(t *testing.T) {
	t.Parallel()
	mutations := func(level string) discovery.HeaderMutations {
		add := []discovery.HeaderValue{
			{Name: "x-set", Value: level, Action: discovery.OverwriteIfExistsOrAdd},
			{Name: "x-append", Value: level},
			{Name: "x-absent", Value: level, Action: discovery.AddIfAbsent},
			{Name: "x-old", Value: level, Action: discovery.OverwriteIfExists},
			{Name: "x-never", Value: level, Action: discovery.OverwriteIfExists},
		}
		remove := []string{"x-gone"}
		return discovery.HeaderMutations{RequestAdd: add, RequestRemove: remove, ResponseAdd: add, ResponseRemove: remove}
	}
	for specificWins, want := range map[bool]map[string][]string{
		false: {
			"x-set": {"table"}, "x-append": {"old", "cluster", "route", "host", "table"}, "x-absent": {"cluster"}, "x-old": {"table"}, "x-gone": nil, "x-never": nil,
		},
		true: {
			"x-set": {"cluster"}, "x-append": {"old", "table", "host", "route", "cluster"}, "x-absent": {"table"}, "x-old": {"cluster"}, "x-gone": nil, "x-never": nil,
		},
	} {
		t.Run("the most specific wins: "+strconv.FormatBool(specificWins), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				old := metadata.Pairs("x-append", "old", "x-old", "old", "x-gone", "old")
				check := func(what string, md metadata.MD) {
					for name, values := range want {
						if got := md.Get(name); !slices.Equal(got, values) {
							t.Errorf("%s %s: %q, want %q", what, name, got, values)
						}
					}
				}
				f.serve(endpoint, &backend{before: func(ctx context.Context, _ int64) error {
					md, _ := metadata.FromIncomingContext(ctx)
					check("request", md)
					return grpc.SetHeader(ctx, old.Copy())
				}})
				route := forward("main")
				route.Headers, route.Forward.Clusters[0].Headers = mutations("route"), mutations("cluster")
				f.source.setTarget(target, &discovery.Target{
					Name: target, Listener: &discovery.APIListener{Name: target},
					Routes: &discovery.RouteTable{
						Name: target, MostSpecificHeaderMutationsWins: specificWins, Headers: mutations("table"),
						VirtualHosts: []*discovery.VirtualHost{{
							Name: target, Domains: []string{"*"}, Routes: []*discovery.Route{route}, Headers: mutations("host"),
						}},
					},
					Clusters: clustersByName([]discovery.ClusterResult{cluster("main", endpoint)}),
				})
				client := f.client()
				ctx := metadata.NewOutgoingContext(withTimeout(t), old)
				var header metadata.MD
				if err := empty(ctx, client, grpc.Header(&header)); err != nil {
					t.Fatal(err)
				}
				check("response", header)
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
				check("response of a stream", header)
			})
		})
	}
}

// The method that a server gets.
func TestS31_RewritesOfMethods(t *testing.T) {
	t.Parallel()
	prefix := func(match, by string) func(*discovery.Route) {
		return func(r *discovery.Route) { r.Match.Path.Value, r.Forward.PrefixRewrite = match, by }
	}
	expression := func(match, by string) func(*discovery.Route) {
		return func(r *discovery.Route) {
			r.Forward.PathSubstitution = &discovery.Substitution{Program: regexp.MustCompile(match), Replacement: by}
		}
	}
	for _, tt := range []struct {
		name         string
		edit         func(*discovery.Route)
		method, want string
	}{
		{"a prefix", prefix("/old.Service/", "/new.Service/"), "/old.Service/Pay", "/new.Service/Pay"},
		{"escapes of the rest stay", prefix("/old/", "/new/"), "/old/a%2Fb", "/new/a%2Fb"},
		{"a query is a part of the name", prefix("/old/", "/new/?v="), "/old/Pay", "/new/?v=Pay"},
		{"a package", prefix("/v1.", "/v2."), "/v1.Service/v1.Pay", "/v2.Service/v1.Pay"},
		{"an expression", expression("^/v1[.](.*)$", "/v2.$1"), "/v1.Service/Pay", "/v2.Service/Pay"},
		{"groups change places", expression("^/([^/]+)/([^/]+)$", "/$2/$1"), "/a/b%3Fc", "/b%3Fc/a"},
		{"an expression that does not match", expression("^/v1[.]", "/v2."), "/v3.Service/Pay", "/v3.Service/Pay"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				var got string
				f.above = []grpc.ServerOption{grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
					got, _ = grpc.Method(stream.Context())
					return stream.SendMsg(&grpc_testing.Empty{})
				})}
				f.serveAs(plaintext(endpoint), &backend{})
				route := forward("main")
				tt.edit(route)
				f.configure(route, cluster("main", endpoint))
				if err := f.channel().Invoke(withTimeout(t), tt.method, &grpc_testing.Empty{}, &grpc_testing.Empty{}); err != nil || got != tt.want {
					t.Errorf("the server gets %q, want %q: %v", got, tt.want, err)
				}
			})
		})
	}
}
