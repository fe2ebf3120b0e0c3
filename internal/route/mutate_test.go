package route

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

// levelled is a decision with mutations of its own on each of the four levels.
func levelled(mutations func(level string) discovery.HeaderMutations, specificWins bool) *Decision {
	cluster := &discovery.WeightedCluster{Name: "v1", Headers: mutations("cluster")}
	return &Decision{
		Table:       &discovery.RouteTable{Headers: mutations("table"), MostSpecificHeaderMutationsWins: specificWins},
		VirtualHost: &discovery.VirtualHost{Headers: mutations("host")},
		Route:       &discovery.Route{Headers: mutations("route"), Forward: &discovery.Forward{Clusters: []discovery.WeightedCluster{*cluster}}},
		Cluster:     cluster,
	}
}

func TestBU6_LevelsApplyFromTheClusterOutwardsOrInReverse(t *testing.T) {
	t.Parallel()
	actions := map[string]discovery.HeaderAction{
		"x-append":    discovery.AppendIfExistsOrAdd,
		"x-absent":    discovery.AddIfAbsent,
		"x-overwrite": discovery.OverwriteIfExistsOrAdd,
		"x-exists":    discovery.OverwriteIfExists,
		"x-missing":   discovery.OverwriteIfExists,
	}
	set := func(level string) []discovery.HeaderValue {
		var values []discovery.HeaderValue
		for _, name := range slices.Sorted(maps.Keys(actions)) {
			values = append(values, discovery.HeaderValue{Name: name, Value: level, Action: actions[name]})
		}
		return values
	}
	tests := []struct {
		name         string
		specificWins bool
		want         string
	}{
		{
			name: "the outer level overwrites",
			want: `x-absent: cluster
x-append: client
x-append: cluster
x-append: route
x-append: host
x-append: table
x-exists: table
x-overwrite: table`,
		},
		{
			name: "the most specific level overwrites", specificWins: true,
			want: `x-absent: table
x-append: client
x-append: table
x-append: host
x-append: route
x-append: cluster
x-exists: cluster
x-overwrite: cluster`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			before := func() headers { return headers{"x-append": {"client"}, "x-exists": {"client"}} }

			request := before()
			levelled(func(level string) discovery.HeaderMutations {
				return discovery.HeaderMutations{RequestAdd: set(level)}
			}, tt.specificWins).MutateRequest(request, get("payment", "/"), &Facts{})
			if got := request.lines(); got != tt.want {
				t.Errorf("request:\n%s\nwant:\n%s", got, tt.want)
			}

			response := before()
			d := levelled(func(level string) discovery.HeaderMutations {
				return discovery.HeaderMutations{ResponseAdd: set(level)}
			}, tt.specificWins)
			d.MutateResponse(response, get("payment", "/"), &Facts{})
			if got := response.lines(); got != tt.want {
				t.Errorf("response:\n%s\nwant:\n%s", got, tt.want)
			}
			untouched := before()
			d.MutateRequest(untouched, get("payment", "/"), &Facts{})
			if got, want := untouched.lines(), before().lines(); got != want {
				t.Errorf("response operations changed the request:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// A level removes before it adds, so that its own headers survive; what an
// earlier level added does not.
func TestBU6_RemovalRunsWithItsLevel(t *testing.T) {
	t.Parallel()
	mutations := func(level string) discovery.HeaderMutations {
		add := []discovery.HeaderValue{{Name: "x-level", Value: level}}
		if level != "route" && level != "host" {
			return discovery.HeaderMutations{RequestAdd: add, ResponseAdd: add}
		}
		remove := []string{"x-level", "x-other"}
		return discovery.HeaderMutations{RequestAdd: add, RequestRemove: remove, ResponseAdd: add, ResponseRemove: remove}
	}
	for specificWins, want := range map[bool]string{
		false: "x-level: host\nx-level: table",
		true:  "x-level: route\nx-level: cluster",
	} {
		d := levelled(mutations, specificWins)
		request := headers{"x-level": {"client"}, "x-other": {"client"}}
		d.MutateRequest(request, get("payment", "/"), &Facts{})
		if got := request.lines(); got != want {
			t.Errorf("most specific wins: %t: request:\n%s\nwant:\n%s", specificWins, got, want)
		}
		response := headers{"x-level": {"server"}, "x-other": {"server"}}
		d.MutateResponse(response, get("payment", "/"), &Facts{})
		if got := response.lines(); got != want {
			t.Errorf("most specific wins: %t: response:\n%s\nwant:\n%s", specificWins, got, want)
		}
	}
}

func TestBU6_EmptyValuesAreLeftOutUnlessKept(t *testing.T) {
	t.Parallel()
	d := &Decision{
		Table: &discovery.RouteTable{}, VirtualHost: &discovery.VirtualHost{},
		Route: &discovery.Route{Headers: discovery.HeaderMutations{RequestAdd: []discovery.HeaderValue{
			{Name: "x-empty"},
			{Name: "x-kept", KeepEmpty: true},
			{Name: "x-not-emptied", Action: discovery.OverwriteIfExistsOrAdd},
			{Name: "x-emptied", Action: discovery.OverwriteIfExistsOrAdd, KeepEmpty: true},
		}}},
	}
	h := headers{"x-not-emptied": {"client"}, "x-emptied": {"client"}}
	d.MutateRequest(h, get("payment", "/"), &Facts{})
	if got, want := h.lines(), "x-emptied: \nx-kept: \nx-not-emptied: client"; got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestMutatesResponseLooksAtEveryLevel(t *testing.T) {
	t.Parallel()
	none := func(string) discovery.HeaderMutations {
		return discovery.HeaderMutations{RequestRemove: []string{"x"}}
	}
	if levelled(none, false).MutatesResponse() {
		t.Error("operations on requests count as operations on responses")
	}
	for _, level := range []string{"cluster", "route", "host", "table"} {
		for name, m := range map[string]discovery.HeaderMutations{
			"adds":    {ResponseAdd: []discovery.HeaderValue{{Name: "x", Value: "y"}}},
			"removes": {ResponseRemove: []string{"x"}},
		} {
			d := levelled(func(l string) discovery.HeaderMutations {
				if l == level {
					return m
				}
				return discovery.HeaderMutations{}
			}, false)
			if !d.MutatesResponse() {
				t.Errorf("%s %s, but MutatesResponse is false", level, name)
			}
		}
	}
}

func TestDecisionWithoutAClusterHasThreeLevels(t *testing.T) {
	t.Parallel()
	d := levelled(func(level string) discovery.HeaderMutations {
		return discovery.HeaderMutations{ResponseAdd: []discovery.HeaderValue{{Name: "x", Value: level}}}
	}, false)
	d.Cluster = nil
	h := headers{}
	d.MutateResponse(h, get("payment", "/"), &Facts{})
	if got, want := strings.Join(h["x"], " "), "route host table"; got != want {
		t.Errorf("applied %q, want %q", got, want)
	}
}

func TestFilterOverridesGoFromTheVirtualHostToTheCluster(t *testing.T) {
	t.Parallel()
	own, ofHost, ofRoute, ofCluster := &discovery.Fault{}, &discovery.Fault{}, &discovery.Fault{}, &discovery.Fault{}
	config := func(f *discovery.Fault) map[string]discovery.FilterOverride {
		return map[string]discovery.FilterOverride{"fault": {Config: f}, "other": {Disabled: true}}
	}
	off := map[string]discovery.FilterOverride{"fault": {Disabled: true}}
	on := map[string]discovery.FilterOverride{"fault": {}}
	tests := []struct {
		name                 string
		filter               discovery.HTTPFilter
		host, route, cluster map[string]discovery.FilterOverride
		want                 *discovery.Fault // nil: switched off
	}{
		{name: "without overrides it is the listener's", filter: discovery.HTTPFilter{Config: own}, want: own},
		{name: "the virtual host's", filter: discovery.HTTPFilter{Config: own}, host: config(ofHost), want: ofHost},
		{name: "the route's before the virtual host's", filter: discovery.HTTPFilter{Config: own}, host: config(ofHost), route: config(ofRoute), want: ofRoute},
		{name: "the cluster's before all", filter: discovery.HTTPFilter{Config: own}, host: config(ofHost), route: config(ofRoute), cluster: config(ofCluster), want: ofCluster},
		{name: "switched off at the listener", filter: discovery.HTTPFilter{Config: own, Disabled: true}},
		{name: "switched on again by a route", filter: discovery.HTTPFilter{Config: own, Disabled: true}, route: config(ofRoute), want: ofRoute},
		{name: "switched on again without a configuration", filter: discovery.HTTPFilter{Config: own, Disabled: true}, route: on, want: own},
		{name: "switched off by a route", filter: discovery.HTTPFilter{Config: own}, host: config(ofHost), route: off},
		{name: "switched off and on", filter: discovery.HTTPFilter{Config: own}, host: off, cluster: config(ofCluster), want: ofCluster},
		{name: "without any configuration there is no filter", filter: discovery.HTTPFilter{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := Decision{
				VirtualHost: &discovery.VirtualHost{Filters: tt.host},
				Route:       &discovery.Route{Filters: tt.route},
				Cluster:     &discovery.WeightedCluster{Filters: tt.cluster},
			}
			tt.filter.Name = "fault"
			got, ok := d.Filter(&tt.filter)
			switch {
			case tt.want == nil && ok:
				t.Errorf("Filter() = %p, want none", got)
			case tt.want != nil && (!ok || got != discovery.FilterConfig(tt.want)):
				t.Errorf("Filter() = %p, %t, want %p", got, ok, tt.want)
			}
		})
	}
}
