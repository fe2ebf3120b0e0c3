package decode

import (
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

const (
	cookieState = `{"name": "cookie", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState", "cookie": `
	headerState = `{"name": "header", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState", "name": `
)

func TestStatefulSessions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, json string
		want       discovery.StatefulSession
		errs       []string
	}{
		{name: "nothing: only routes have sessions", json: `{}`, want: discovery.StatefulSession{StatusMissing: 503}},
		{
			name: "a cookie", json: `{"strict": true, "statusOnStrictDestinationNotFound": 404, "sessionState": ` + cookieState +
				`{"name": "s", "ttl": "60s", "path": "/cart", "attributes": [{"name": "SameSite", "value": "Lax"}]}}}}`,
			want: discovery.StatefulSession{
				Cookie: "s", Strict: true, StatusMissing: 404,
				NewCookie: &discovery.NewCookie{TTL: time.Minute, Path: "/cart", Attributes: []discovery.CookieAttribute{{Name: "SameSite", Value: "Lax"}}},
			},
		},
		{
			name: "a header", json: `{"sessionState": ` + headerState + `"X-Session"}}}`,
			want: discovery.StatefulSession{Header: "x-session", StatusMissing: 503},
		},
		{
			name: "a status that is none", json: `{"statusOnStrictDestinationNotFound": 99}`,
			errs: []string{"status_on_strict_destination_not_found: 99 is not the status of a response"},
		},
		{
			name: "a cookie that would end its header", json: `{"sessionState": ` + cookieState + `{"name": "s=;", "path": "/;x"}}}}`,
			errs: []string{
				`session_state.typed_config.cookie.name: "s=;" is not the name of a cookie`,
				`session_state.typed_config.cookie.path: "/;x" must not contain a control character or ';'`,
			},
		},
		{
			name: "another state", json: `{"sessionState": {"name": "x", "typedConfig": {"@type": "type.googleapis.com/google.protobuf.Empty"}}}`,
			errs: []string{`session_state.typed_config: session state "google.protobuf.Empty" is not supported: use a cookie or a header`},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := &decoder{}
			got := d.session(path{}, wrap(t, fromJSON[sessionv3.StatefulSession](t, tt.json)))
			if tt.errs != nil {
				wantErrors(t, d.problems.err(), tt.errs...)
				return
			}
			if diff := cmp.Diff(&tt.want, got); diff != "" || d.problems.err() != nil {
				t.Errorf("%v, session (-want +got):\n%s", d.problems.err(), diff)
			}
		})
	}
}

func TestSessionsOfRoutes(t *testing.T) {
	t.Parallel()
	d := &decoder{}
	off, ok := d.filterOverride(path{}, wrap(t, fromJSON[sessionv3.StatefulSessionPerRoute](t, `{"disabled": true}`)))
	if !ok || !off.Disabled || d.problems.err() != nil {
		t.Errorf("%+v, %v, want a filter that is switched off", off, d.problems.err())
	}
	own, _ := d.filterOverride(path{}, wrap(t, fromJSON[sessionv3.StatefulSessionPerRoute](t, `{"statefulSession": {"sessionState": `+headerState+`"x"}}}}`)))
	if s, ok := own.Config.(*discovery.StatefulSession); !ok || s.Header != "x" || d.problems.err() != nil {
		t.Errorf("%+v, %v, want sessions in a header", own, d.problems.err())
	}
}

func TestPinnableStates(t *testing.T) {
	t.Parallel()
	for json, want := range map[string]balancer.HealthSet{
		`{}`: 0, `{"overrideHostStatus": {}}`: balancer.NewHealthSet(),
		`{"overrideHostStatus": {"statuses": ["UNKNOWN", "DRAINING"]}}`: balancer.NewHealthSet(balancer.Unknown, balancer.Draining),
	} {
		if got := pinnable(fromJSON[clusterv3.Cluster_CommonLbConfig](t, json).GetOverrideHostStatus()); got != want {
			t.Errorf("%s: %b, want %b", json, got, want)
		}
	}
}
