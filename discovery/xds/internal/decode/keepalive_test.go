package decode

import (
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/discovery"
)

func keepAliveCluster(options string) string {
	return `{"name": "c", "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}}, "upstreamConnectionOptions": ` + options + `}`
}

func TestTCPKeepAlive(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		options string
		want    *discovery.KeepAlive
	}{
		"no message leaves it to the dialer":         {`{}`, nil},
		"an empty one switches it on":                {`{"tcpKeepalive": {}}`, &discovery.KeepAlive{}},
		"0 probes switch it off":                     {`{"tcpKeepalive": {"keepaliveProbes": 0, "keepaliveTime": 1}}`, &discovery.KeepAlive{Off: true, Time: time.Second}},
		"a time of 0 switches it off":                {`{"tcpKeepalive": {"keepaliveTime": 0}}`, &discovery.KeepAlive{Off: true}},
		"an interval of 0 switches it off":           {`{"tcpKeepalive": {"keepaliveInterval": 0}}`, &discovery.KeepAlive{Off: true}},
		"the most that Linux takes":                  {`{"tcpKeepalive": {"keepaliveProbes": 127, "keepaliveTime": 32767, "keepaliveInterval": 32767}}`, &discovery.KeepAlive{Probes: 127, Time: 32767 * time.Second, Interval: 32767 * time.Second}},
		"the interface's name changes nothing here":  {`{"setLocalInterfaceNameOnUpstreamConnections": true}`, nil},
		"other fields are as they are for any value": {`{"tcpKeepalive": {"keepaliveInterval": 7}}`, &discovery.KeepAlive{Interval: 7 * time.Second}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, decodeCluster(t, keepAliveCluster(tt.options)).KeepAlive); diff != "" {
				t.Errorf("keep-alive (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFamiliesOfAddresses(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]discovery.Families{
		`{"happyEyeballsConfig": {}}`: {},
		`{"happyEyeballsConfig": {"firstAddressFamilyVersion": "V4", "firstAddressFamilyCount": 2}}`: {First: discovery.IPv4, Count: 2},
		`{"happyEyeballsConfig": {"firstAddressFamilyVersion": "V6"}}`:                               {First: discovery.IPv6},
	} {
		if got := decodeCluster(t, keepAliveCluster(options)).Families; got != want {
			t.Errorf("%s: %+v, want %+v", options, got, want)
		}
	}
}

func TestTCPKeepAliveRefusals(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ options, want string }{
		"more probes than Linux takes": {`{"tcpKeepalive": {"keepaliveProbes": 128}}`, "upstream_connection_options.tcp_keepalive.keepalive_probes: 128 is not possible: use at most 127"},
		"a longer time":                {`{"tcpKeepalive": {"keepaliveTime": 32768}}`, "upstream_connection_options.tcp_keepalive.keepalive_time: 32768 is not possible: use at most 32767"},
		"a longer interval":            {`{"tcpKeepalive": {"keepaliveInterval": 4294967295}}`, "upstream_connection_options.tcp_keepalive.keepalive_interval: 4294967295 is not possible"},
		"a family that is none":        {`{"happyEyeballsConfig": {"firstAddressFamilyVersion": "INTERNAL"}}`, "first_address_family_version: INTERNAL is not supported: use DEFAULT, V4 or V6"},
		"none of the first family":     {`{"happyEyeballsConfig": {"firstAddressFamilyCount": 0}}`, "first_address_family_count: value must be greater than or equal to 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := Cluster(marshal(t, fromJSON[clusterv3.Cluster](t, keepAliveCluster(tt.options))))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
