package mesh_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/tls/filesource"
	"github.com/inboardmesh/inboard/tls/sds"
	"github.com/inboardmesh/inboard/tls/spiffe"
)

// The bootstraps and certificate providers of docs/identity.md are understood.
func TestThePageOfIdentitiesIsTrue(t *testing.T) {
	t.Parallel()
	var plugins []string
	for _, block := range pageBlocks(t, "../docs/identity.md") {
		if block.language != "json" {
			continue
		}
		text := block.text
		if block.is("certificate_providers") {
			text = fmt.Sprintf(`{"xds_servers": [{"server_uri": "a:1", "channel_creds": [{"type": "insecure"}]}], "certificate_providers": %s}`, text)
		}
		config, err := bootstrap.Parse([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", block.heading, err)
			continue
		}
		for name, provider := range config.CertificateProviders {
			plugins = append(plugins, provider.Plugin)
			if err := parseProvider(provider.Plugin, provider.Config); err != nil {
				t.Errorf("%s: %s: %v", block.heading, name, err)
			}
		}
	}
	if got, want := strings.Join(plugins, " "), "file_watcher file_watcher spiffe_workload_api sds file_watcher"; got != want {
		t.Errorf("plugins %s, want %s", got, want)
	}
}

func parseProvider(plugin string, config json.RawMessage) (err error) {
	switch plugin {
	case "file_watcher":
		_, err = filesource.ParseConfig(config)
	case "spiffe_workload_api":
		_, err = spiffe.ParseConfig(config)
	case "sds":
		_, err = sds.ParseConfig(config)
	default:
		err = fmt.Errorf("plugin %q", plugin)
	}
	return err
}
