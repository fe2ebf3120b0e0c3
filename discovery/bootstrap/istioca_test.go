package bootstrap

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/tls/istioca"
)

func TestMistakesOfIstioCAAreReportedWithThoseOfTheRest(t *testing.T) {
	t.Parallel()
	const at = "$.certificate_providers.default.config"
	for _, tt := range []struct {
		name, config string
		want         []string
	}{
		{"a complete configuration", `{"server_uri": "a:1", "server_name": "b", "token_file": "/t", "root_file": "/r", "certificate_lifetime": "1h", "cluster_id": "c"}`, nil},
		{"what is required", `{"server_uri": "a:1", "token_file": "/t"}`, nil},
		{"nothing", `null`, []string{
			at + `.server_uri: is required: the gRPC target of the CA, such as "istiod.istio-system.svc:15012"`,
			at + `.token_file: is required: the path of the file with the token for the first certificate`}},
		{"a URL and no token", `{"server_uri": "https://a:1"}`, []string{
			at + `.server_uri: expected the gRPC target of the CA, such as "istiod.istio-system.svc:15012", without http:// or https://: the connection is always TLS`,
			at + `.token_file: is required: the path of the file with the token for the first certificate`}},
		{"wrong types", `{"server_uri": 1, "token_file": [], "root_file": {}, "cluster_id": true, "server_name": 2, "certificate_lifetime": 3}`, []string{
			at + `.server_uri: expected a string, found a number`,
			at + `.token_file: expected a string, found a list`,
			at + `.root_file: expected a string, found an object`,
			at + `.cluster_id: expected a string, found a boolean`,
			at + `.server_name: expected a string, found a number`,
			at + `.certificate_lifetime: expected a string, found a number`}},
		{"a lifetime without a unit", `{"server_uri": "a:1", "token_file": "/t", "certificate_lifetime": "24"}`, []string{
			at + `.certificate_lifetime: expected a positive duration such as "24h", found "24"`}},
		{"a lifetime of nothing", `{"server_uri": "a:1", "token_file": "/t", "certificate_lifetime": "0s"}`, []string{
			at + `.certificate_lifetime: expected a positive duration such as "24h", found "0s"`}},
		{"an unknown key", `{"server_uri": "a:1", "token_file": "/t", "colour": "red"}`, []string{
			at + `.colour: is not a known key: expected one of server_uri, server_name, token_file, root_file, certificate_lifetime, cluster_id`}},
		{"a misspelled key", `{"server_uri": "a:1", "token_files": "/t"}`, []string{
			at + `.token_files: is not a known key: did you mean "token_file"?`,
			at + `.token_file: is required: the path of the file with the token for the first certificate; found "token_files": did you mean "token_file"?`}},
		{"a list", `[]`, []string{at + `: expected an object, found a list`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse(fmt.Appendf(nil, `{"xds_servers": [{%s}], "certificate_providers": {"default": {"plugin_name": "istio_ca", "config": %s}}}`, ok, tt.config))
			got := map[string]bool{}
			if err != nil {
				for line := range strings.SplitSeq(strings.TrimPrefix(err.Error(), "bootstrap: "), "\n") {
					got[line] = true
				}
			}
			want := map[string]bool{}
			for _, line := range tt.want {
				want[line] = true
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("mistakes (-want +got):\n%s", diff)
			}
			// The plugin must not be stricter: its mistakes come when it is started.
			if _, err := istioca.ParseConfig([]byte(tt.config)); (err != nil) != (len(tt.want) > 0) {
				t.Errorf("the plugin says %v", err)
			}
		})
	}
}
