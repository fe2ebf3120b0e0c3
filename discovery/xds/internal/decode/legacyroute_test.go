package decode

import (
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/discovery"
)

// olderRoutesFixture has what newer fields have replaced, and faults whole.
const olderRoutesFixture = `{"name": "r", "virtualHosts": [{
  "name": "v", "domains": ["*"],
  "cors": {"allowOriginStringMatch": [{"exact": "https://shop"}], "allowMethods": "GET", "allowHeaders": "a", "exposeHeaders": "b", "maxAge": "60",
    "allowCredentials": true, "allowPrivateNetworkAccess": true, "forwardNotMatchingPreflights": false,
    "filterEnabled": {"defaultValue": {"numerator": 5}}, "shadowEnabled": {"defaultValue": {"numerator": 7}}},
  "typedPerFilterConfig": {"fault": {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
    "upstreamCluster": "c", "downstreamNodes": ["n"],
    "responseRateLimit": {"fixedLimit": {"limitKbps": 64}, "percentage": {"numerator": 10}}}},
  "routes": [
    {"match": {"prefix": "/a"},
     "typedPerFilterConfig": {"fault": {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
       "responseRateLimit": {"headerLimit": {}, "percentage": {"numerator": 10, "denominator": "TEN_THOUSAND"}}}},
     "route": {"cluster": "c", "cors": {"allowOriginStringMatch": [{"exact": "https://other"}]},
       "maxGrpcTimeout": "5s", "grpcTimeoutOffset": "0.100s",
       "internalRedirectAction": "HANDLE_INTERNAL_REDIRECT", "maxInternalRedirects": 3}}
  ]
}]}`

func TestFieldsThatNewerOnesHaveReplaced(t *testing.T) {
	t.Parallel()
	_, table, err := RouteConfiguration(marshal(t, fromJSON[routev3.RouteConfiguration](t, olderRoutesFixture)))
	if err != nil {
		t.Fatal(err)
	}
	host := table.VirtualHosts[0]
	wantHost := map[string]discovery.FilterOverride{
		corsFilter: {Config: &discovery.CORS{
			PerMillion: 50_000, AllowOrigins: []discovery.StringMatch{{Value: "https://shop"}},
			AllowMethods: "GET", AllowHeaders: "a", ExposeHeaders: "b", MaxAge: "60",
			AllowCredentials: true, AllowPrivateNetwork: true, StopUnmatched: true,
		}},
		"fault": {Config: &discovery.Fault{
			UpstreamCluster: "c", DownstreamNodes: []string{"n"},
			RateLimit: &discovery.FaultRateLimit{KiBPerSecond: 64, PerMillion: 100_000},
		}},
	}
	if diff := cmp.Diff(wantHost, host.Filters); diff != "" {
		t.Errorf("filters of the host (-want +got):\n%s", diff)
	}
	route := host.Routes[0]
	wantRoute := map[string]discovery.FilterOverride{
		corsFilter: {Config: &discovery.CORS{PerMillion: 1_000_000, AllowOrigins: []discovery.StringMatch{{Value: "https://other"}}}},
		"fault":    {Config: &discovery.Fault{RateLimit: &discovery.FaultRateLimit{FromHeader: true, PerMillion: 1000, Unit: 100}}},
	}
	if diff := cmp.Diff(wantRoute, route.Filters); diff != "" {
		t.Errorf("filters of the route (-want +got):\n%s", diff)
	}
	f := route.Forward
	if got := f.Limit(true, 0); got != 5*time.Second || f.Limit(false, 0) != defaultRouteTimeout || f.GRPCTimeoutHeaderOffset != 100*time.Millisecond {
		t.Errorf("a gRPC call may take %v, an HTTP call %v, the offset is %v", got, f.Limit(false, 0), f.GRPCTimeoutHeaderOffset)
	}
	if diff := cmp.Diff(&discovery.InternalRedirect{MaxRedirects: 3, Statuses: []int{302}}, f.InternalRedirect); diff != "" {
		t.Errorf("internal redirects (-want +got):\n%s", diff)
	}
}

func TestLegacyFieldsGiveWayToTheirSuccessors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, route string
		want        time.Duration // of a gRPC call
		redirects   uint32
	}{
		{name: "no limit", route: `"timeout": "3s", "maxGrpcTimeout": "0s"`},
		{name: "the shorter limit holds", route: `"maxGrpcTimeout": "5s", "maxStreamDuration": {"grpcTimeoutHeaderMax": "4s"}`, want: 4 * time.Second},
		{name: "a limit beside none", route: `"maxGrpcTimeout": "0s", "maxStreamDuration": {"maxStreamDuration": "2s"}`, want: 2 * time.Second},
		{name: "none beside a limit", route: `"maxGrpcTimeout": "5s", "maxStreamDuration": {"grpcTimeoutHeaderMax": "0s"}`, want: 5 * time.Second},
		{name: "a policy beside an action", route: `"timeout": "1s", "internalRedirectAction": "HANDLE_INTERNAL_REDIRECT", "internalRedirectPolicy": {"maxInternalRedirects": 7}`, want: time.Second, redirects: 7},
		{name: "an action alone", route: `"timeout": "1s", "internalRedirectAction": "HANDLE_INTERNAL_REDIRECT"`, want: time.Second, redirects: 1},
		{name: "a number without an action", route: `"timeout": "1s", "maxInternalRedirects": 3`, want: time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, table, err := RouteConfiguration(marshal(t, fromJSON[routev3.RouteConfiguration](t,
				tableWith(`{"match": {"prefix": "/"}, "route": {"cluster": "c", `+tt.route+`}}`))))
			if err != nil {
				t.Fatal(err)
			}
			f := table.VirtualHosts[0].Routes[0].Forward
			redirects := uint32(0)
			if f.InternalRedirect != nil {
				redirects = f.InternalRedirect.MaxRedirects
			}
			if got := f.Limit(true, 0); got != tt.want || redirects != tt.redirects {
				t.Errorf("a limit of %v and %d redirects", got, redirects)
			}
		})
	}
}

func TestTheFiltersConfigurationOfCORSGoesFirst(t *testing.T) {
	t.Parallel()
	_, table, err := RouteConfiguration(marshal(t, fromJSON[routev3.RouteConfiguration](t, tableWith(`{"match": {"prefix": "/"},
		"route": {"cluster": "c", "cors": {"allowMethods": "GET"}},
		"typedPerFilterConfig": {"envoy.filters.http.cors": {"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy", "allowMethods": "PUT"}}}`))))
	if err != nil {
		t.Fatal(err)
	}
	want := discovery.FilterConfig(&discovery.CORS{PerMillion: 1_000_000, AllowMethods: "PUT"})
	if diff := cmp.Diff(want, table.VirtualHosts[0].Routes[0].Filters[corsFilter].Config); diff != "" {
		t.Errorf("policy (-want +got):\n%s", diff)
	}
}

func TestBF2_SharesHaveThreeDenominators(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint32{
		`{}`: 0, `{"numerator": 5}`: 50_000, `{"numerator": 5, "denominator": "TEN_THOUSAND"}`: 500,
		`{"numerator": 5, "denominator": "MILLION"}`: 5, `{"numerator": 101}`: always, `{"numerator": 4294967295, "denominator": "MILLION"}`: always,
	} {
		if got := perMillion(fromJSON[typev3.FractionalPercent](t, text)); got != want {
			t.Errorf("%s is %d of a million, want %d", text, got, want)
		}
	}
}
