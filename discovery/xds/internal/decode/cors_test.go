package decode

import (
	"testing"

	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/discovery"
)

func TestCORSPolicies(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		json string
		want discovery.CORS
	}{
		{name: "enabled by default", json: `{}`, want: discovery.CORS{PerMillion: 1_000_000}},
		{name: "a share", json: `{"filterEnabled": {"defaultValue": {"numerator": 5}}}`, want: discovery.CORS{PerMillion: 50_000}},
		{name: "only a shadow", json: `{"shadowEnabled": {"defaultValue": {"numerator": 5}}}`, want: discovery.CORS{}},
		{
			name: "everything",
			json: `{"allowOriginStringMatch": [{"exact": "*"}], "allowMethods": "GET", "allowHeaders": "a", "exposeHeaders": "b", "maxAge": "60",
				"allowCredentials": true, "allowPrivateNetworkAccess": true, "forwardNotMatchingPreflights": false}`,
			want: discovery.CORS{
				PerMillion: 1_000_000, AllowOrigins: []discovery.StringMatch{{Value: "*"}},
				AllowMethods: "GET", AllowHeaders: "a", ExposeHeaders: "b", MaxAge: "60",
				AllowCredentials: true, AllowPrivateNetwork: true, StopUnmatched: true,
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := &decoder{}
			got := d.cors(path{}, wrap(t, fromJSON[corsv3.CorsPolicy](t, tt.json)))
			if diff := cmp.Diff(&tt.want, got); diff != "" || d.problems.err() != nil {
				t.Errorf("%v, policy (-want +got):\n%s", d.problems.err(), diff)
			}
		})
	}
	d := &decoder{}
	d.cors(path{}, wrap(t, fromJSON[corsv3.CorsPolicy](t, `{"allowMethods": "GET\r\nx: y", "maxAge": "\n"}`)))
	wantErrors(t, d.problems.err(), `allow_methods: "GET\r\nx: y" is not a valid header value`, `max_age: "\n" is not a valid header value`)
}
