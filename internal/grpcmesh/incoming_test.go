package grpcmesh

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/internal/racing"
)

// What the mesh changes of the metadata of a call that arrives, the application sees, and
// nobody else.
func TestMetadataThatArriveAreCopiedByWhoChangesThem(t *testing.T) {
	t.Parallel()
	arriving := func() metadata.MD { return metadata.Pairs(":authority", "payment", "k", "v", "k", "w", "x", "y") }
	tests := []struct {
		name   string
		change func(*incoming)
		want   metadata.MD // nil is what arrived
	}{
		{name: "nothing is changed", change: func(*incoming) {}},
		{name: "what is not there is taken out", change: func(in *incoming) { in.Del("z") }},
		{name: "set", change: func(in *incoming) { in.Set("k", "new") }, want: metadata.Pairs(":authority", "payment", "k", "new", "x", "y")},
		{name: "set, new", change: func(in *incoming) { in.Set("Z", "new") }, want: metadata.Pairs(":authority", "payment", "k", "v", "k", "w", "x", "y", "z", "new")},
		{name: "added", change: func(in *incoming) { in.Add("k", "u") }, want: metadata.Pairs(":authority", "payment", "k", "v", "k", "w", "k", "u", "x", "y")},
		{name: "taken out", change: func(in *incoming) { in.Del("K") }, want: metadata.Pairs(":authority", "payment", "x", "y")},
		{name: "several times", change: func(in *incoming) { in.Del("k"); in.Add("x", "z"); in.Del("k") }, want: metadata.Pairs(":authority", "payment", "x", "y", "x", "z")},
		{name: "controls are stripped", change: stripControls},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			arrived := arriving()
			ctx := metadata.NewIncomingContext(t.Context(), arrived)
			in := incomingOf(ctx)
			test.change(&in)
			after := in.context(ctx)
			got, _ := metadata.FromIncomingContext(after)
			want := test.want
			if want == nil {
				want = arriving()
			}
			if fmt.Sprint(got) != fmt.Sprint(want) || fmt.Sprint(in.md) != fmt.Sprint(want) {
				t.Errorf("the application gets %v, the mesh has %v; want %v", got, in.md, want)
			}
			if fmt.Sprint(arrived) != fmt.Sprint(arriving()) {
				t.Errorf("what gRPC has was changed: %v", arrived)
			}
			if (after == ctx) != (test.want == nil) || in.own != (test.want != nil) {
				t.Errorf("copied: %t", in.own)
			}
			if text, err := in.MarshalText(); err != nil || string(text) != fmt.Sprint(&in) || len(in.Keys()) != len(want) {
				t.Errorf("its text is %s (%v), it prints %v, its names are %v", text, err, &in, in.Keys())
			}
		})
	}
}

// Names that are not as gRPC reads them come from an interceptor of the application's: no
// spelling is a way past what looks for them.
func TestMetadataInAnotherSpellingAreCopied(t *testing.T) {
	t.Parallel()
	const control = "X-Envoy-Upstream-Rq-Timeout-Ms"
	for _, md := range []metadata.MD{{control: {"1"}}, {"x": {"y"}, control: {"1"}}, {"k\u212a": {"1"}}} {
		in := incomingOf(metadata.NewIncomingContext(t.Context(), md))
		if !in.own {
			t.Errorf("%v was not copied", md)
		}
		if stripControls(&in); len(in.Values("x-envoy-upstream-rq-timeout-ms")) > 0 {
			t.Errorf("%v has a control", in.md)
		}
	}
	if in := incomingOf(t.Context()); in.md == nil || !in.own {
		t.Error("a call without metadata has none to be changed")
	}
}

func TestMetadataThatAreOnlyReadCostNothing(t *testing.T) {
	if racing.Enabled {
		t.Skip("the race detector allocates")
	}
	ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs(":authority", "payment", "content-type", "application/grpc"))
	if got := testing.AllocsPerRun(100, func() {
		in := incomingOf(ctx)
		stripControls(&in)
		if in.Get(":authority") != "payment" || in.context(ctx) != ctx {
			t.Error("they are not read")
		}
	}); got > 0 {
		t.Errorf("%v allocations", got)
	}
}
