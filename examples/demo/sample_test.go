package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func answer(user, version string, took time.Duration) sample {
	return sample{user: user, took: took, reply: reply{Version: version, Caller: customerID}}
}

func TestSummarize(t *testing.T) {
	t.Parallel()
	failing := sample{user: "bob", took: time.Hour, reply: reply{Error: &failure{Kind: "reset"}}}
	refused := failing
	refused.expected = true
	got := summarize([]sample{
		answer("bob", "v1", 4*time.Millisecond),
		answer("cleo", "v1", 1*time.Millisecond),
		answer("dan", "v1", 2*time.Millisecond),
		answer("eve", "v2", 3*time.Millisecond),
		answer(ada, "v2", 5*time.Millisecond),
		failing, refused, refused,
	})
	want := summary{
		calls: 8, failed: 1, refused: 2, p50: 3 * time.Millisecond, p99: 5 * time.Millisecond,
		share: map[string]float64{"v1": 75, "v2": 25}, ada: map[string]float64{"v2": 100}, callers: []string{customerID},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(summary{})); diff != "" {
		t.Error(diff)
	}
	if none := summarize(nil); none.calls != 0 || none.p99 != 0 {
		t.Errorf("of nothing: %+v", none)
	}
}

func TestPercentile(t *testing.T) {
	t.Parallel()
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, tt := range []struct {
		name   string
		sorted []time.Duration
		p      int
		want   time.Duration
	}{
		{"nothing", nil, 50, 0},
		{"one value is every percentile", []time.Duration{7}, 99, 7},
		{"the lower of two is the median", []time.Duration{1, 2}, 50, 1},
		{"99 of 100", hundred, 99, 99},
		{"all of 100", hundred, 100, 100},
		{"none of 100 is the smallest", hundred, 0, 1},
	} {
		if got := percentile(tt.sorted, tt.p); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestLastTakesTheNewestSuccesses(t *testing.T) {
	t.Parallel()
	calls := []sample{
		answer("bob", "1", 0), answer(ada, "2", 0), answer("bob", "3", 0),
		{user: "bob", reply: reply{Error: &failure{}}}, answer(ada, "5", 0), answer("bob", "6", 0),
	}
	versions := func(samples []sample) (all string) {
		for _, one := range samples {
			all += one.reply.Version
		}
		return all
	}
	for _, tt := range []struct {
		n     int
		ofAda bool
		want  string
	}{{2, false, "63"}, {9, false, "631"}, {1, true, "5"}} {
		if got := versions(last(calls, tt.n, tt.ofAda)); got != tt.want {
			t.Errorf("last %d, ada %v: %s, want %s", tt.n, tt.ofAda, got, tt.want)
		}
	}
}

func TestRulesAreFollowed(t *testing.T) {
	t.Parallel()
	to := func(version string) []sample { return []sample{answer(ada, version, 0)} }
	for _, tt := range []struct {
		name  string
		rules rules
		share map[string]float64
		adas  []sample
		want  bool
	}{
		{"as said", rules{V1: 90, V2: 10}, map[string]float64{"v1": 90, "v2": 10}, to("v2"), true},
		{"by chance a little off", rules{V1: 90, V2: 10}, map[string]float64{"v1": 96, "v2": 4}, nil, true},
		{"as before", rules{V1: 50, V2: 50}, map[string]float64{"v1": 90, "v2": 10}, nil, false},
		{"a weight of zero is none at all", rules{V1: 0, V2: 100}, map[string]float64{"v1": 0.5, "v2": 99.5}, nil, false},
		{"all to one version", rules{V1: 0, V2: 100}, map[string]float64{"v2": 100}, nil, true},
		{"ada to hers", rules{V2: 100, AdaTo: "v1"}, map[string]float64{"v2": 100}, to("v1"), true},
		{"ada to another", rules{V2: 100, AdaTo: "v1"}, map[string]float64{"v2": 100}, to("v2"), false},
	} {
		if got := tt.rules.followed(tt.share, tt.adas); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestShortID(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{customerID: "shop/customer", "nobody": "nobody", "": ""} {
		if got := shortID(id); got != want {
			t.Errorf("%q: %q, want %q", id, got, want)
		}
	}
}
