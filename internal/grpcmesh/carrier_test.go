package grpcmesh

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/internal/racing"
)

// What an attempt sends is what the application has, and what an observer adds to it.
func TestWhatAnObserverAddsIsSent(t *testing.T) {
	t.Parallel()
	type pairs [][2]string
	tests := []struct {
		name string
		// application is what its context has, nil for nothing at all; md is what the
		// configuration makes of it.
		application, md metadata.MD
		// context is what the context of the attempt has from an observer.
		context metadata.MD
		set     pairs
		want    metadata.MD
	}{
		{name: "nothing", want: nil},
		{name: "one", set: pairs{{"traceparent", "a"}}, want: metadata.Pairs("traceparent", "a")},
		{name: "one, whose name is spelt otherwise", set: pairs{{"Traceparent", "a"}}, want: metadata.Pairs("traceparent", "a")},
		{name: "one, twice", set: pairs{{"traceparent", "a"}, {"TraceParent", "b"}}, want: metadata.Pairs("traceparent", "b")},
		{
			name: "three", set: pairs{{"tracestate", "s"}, {"traceparent", "a"}, {"baggage", "b"}, {"tracestate", "t"}},
			want: metadata.Pairs("tracestate", "t", "traceparent", "a", "baggage", "b"),
		},
		{
			name: "beside the application's", application: metadata.Pairs("k", "v", "k", "w"), md: metadata.Pairs("k", "v", "k", "w"),
			set: pairs{{"traceparent", "a"}}, want: metadata.Pairs("k", "v", "k", "w", "traceparent", "a"),
		},
		{
			name: "instead of the application's", application: metadata.Pairs("traceparent", "v", "traceparent", "w"),
			md: metadata.Pairs("traceparent", "v", "traceparent", "w"), set: pairs{{"Traceparent", "a"}}, want: metadata.Pairs("traceparent", "a"),
		},
		{
			name: "the configuration took the application's out", application: metadata.Pairs("k", "v"), md: metadata.MD{},
			set: pairs{{"traceparent", "a"}}, want: metadata.Pairs("traceparent", "a"),
		},
		{name: "the configuration took all out", application: metadata.Pairs("k", "v"), md: metadata.MD{}, want: metadata.MD{}},
		{name: "the configuration's", md: metadata.Pairs("k", "v"), set: pairs{{"traceparent", "a"}}, want: metadata.Pairs("k", "v", "traceparent", "a")},
		{name: "not what an observer's context has", context: metadata.Pairs("k", "v"), set: pairs{{"traceparent", "a"}}, want: metadata.Pairs("traceparent", "a")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := &carrier{md: test.md}
			if test.md == nil {
				c.md = metadata.MD{}
			}
			for _, p := range test.set {
				c.Set(p[0], p[1])
				if got := c.Get(p[0]); got != p[1] {
					t.Errorf("%s is %q, want %q", p[0], got, p[1])
				}
			}
			var names []string
			for name := range test.want {
				names = append(names, name)
			}
			slices.Sort(names)
			if keys := slices.Sorted(slices.Values(c.Keys())); !slices.Equal(keys, names) {
				t.Errorf("the keys are %q, want %q", keys, names)
			}
			if got, want := fmt.Sprintf("%+v", c), fmt.Sprint(names); got != want {
				t.Errorf("it prints %s, want the names %s", got, want)
			}
			if text, err := c.MarshalText(); err != nil || string(text) != fmt.Sprint(names) {
				t.Errorf("its text is %s, %v", text, err)
			}
			ctx := t.Context()
			if test.application != nil {
				ctx = metadata.NewOutgoingContext(ctx, test.application)
			}
			if test.context != nil {
				ctx = metadata.NewOutgoingContext(ctx, test.context)
			}
			got, ok := metadata.FromOutgoingContext(c.outgoing(ctx, test.application == nil))
			if ok != (test.want != nil) || fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("sent %v, %t; want %v", got, ok, test.want)
			}
		})
	}
}

// A map for one name would be three allocations and 400 bytes more.
func TestOneNameOfAnObserverNeedsNoMap(t *testing.T) {
	if racing.Enabled {
		t.Skip("the race detector allocates")
	}
	ctx, md := context.Background(), metadata.MD{}
	if got := testing.AllocsPerRun(100, func() {
		c := carrier{md: md}
		c.Set("traceparent", "00-1-2-00")
		_ = c.outgoing(ctx, true)
	}); got > 4 {
		t.Errorf("%v allocations", got)
	}
}
