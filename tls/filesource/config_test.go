package filesource_test

import (
	"testing"
	"time"

	"github.com/inboardmesh/inboard/tls/filesource"
)

func TestParseConfigReadsEveryField(t *testing.T) {
	t.Parallel()
	got, err := filesource.ParseConfig([]byte(`{
		"certificate_file": "/c", "private_key_file": "/k", "ca_certificate_file": "/r", "refresh_interval": "900.5s",
		"spiffe_trust_bundle_map_file": "/m"
	}`))
	if err != nil {
		t.Fatal(err)
	}
	if got.CertificateFile != "/c" || got.PrivateKeyFile != "/k" || got.CACertificateFile != "/r" || got.BundleMapFile != "/m" || got.RefreshInterval != 900500*time.Millisecond {
		t.Errorf("got %+v", got)
	}
}

func TestParseConfigNamesTheField(t *testing.T) {
	t.Parallel()
	const roots = `"ca_certificate_file": "/r"`
	tests := []struct{ name, config, want string }{
		{"roots alone", `{` + roots + `}`, ""},
		{"a certificate alone", `{"certificate_file": "/c", "private_key_file": "/k"}`, ""},
		{"nothing to read", `{}`, `file_watcher: certificate_file with private_key_file, ca_certificate_file or spiffe_trust_bundle_map_file: one is required`},
		{"no key", `{"certificate_file": "/c", ` + roots + `}`, `file_watcher: private_key_file: is required with certificate_file`},
		{"no certificate", `{"private_key_file": "/k", ` + roots + `}`, `file_watcher: certificate_file: is required with private_key_file`},
		{"an interval in minutes", `{` + roots + `, "refresh_interval": "10m"}`, `file_watcher: refresh_interval: "10m": want seconds such as "600s"`},
		{"an interval in milliseconds", `{` + roots + `, "refresh_interval": "10ms"}`, `file_watcher: refresh_interval: "10ms": want seconds such as "600s"`},
		{"an interval without a unit", `{` + roots + `, "refresh_interval": "600"}`, `file_watcher: refresh_interval: "600": want seconds such as "600s"`},
		{"an interval without a number", `{` + roots + `, "refresh_interval": "s"}`, `file_watcher: refresh_interval: "s": want seconds such as "600s"`},
		{"an interval that is negative", `{` + roots + `, "refresh_interval": "-1s"}`, `file_watcher: refresh_interval: "-1s": want seconds such as "600s"`},
		{"an interval of nothing", `{` + roots + `, "refresh_interval": "0s"}`, `file_watcher: refresh_interval: "0s": must be positive`},
		{"an interval that is a number", `{` + roots + `, "refresh_interval": 600}`, `file_watcher: refresh_interval: want a string, got number`},
		{
			"two mistakes", `{"private_key_file": "/k", "refresh_interval": "1h"}`,
			`file_watcher: certificate_file: is required with private_key_file` + "\n" + `file_watcher: refresh_interval: "1h": want seconds such as "600s"`,
		},
		{"a bundle map alone", `{"spiffe_trust_bundle_map_file": "/m"}`, ""},
		{"a bundle map beside roots", `{"spiffe_trust_bundle_map_file": "/m", ` + roots + `}`, ""},
		{"a bundle map in the place of its name", `{"spiffe_trust_bundle_map_file": {"trust_domains": {}}}`, `file_watcher: spiffe_trust_bundle_map_file: want a string, got object`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if _, err := filesource.ParseConfig([]byte(test.config)); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestNewRefusesABadConfigAtOnce(t *testing.T) {
	t.Parallel()
	_, err := filesource.New(t.Context(), filesource.Config{CACertificateFile: "/r", RefreshInterval: -time.Second})
	if err == nil || err.Error() != "file_watcher: refresh_interval: -1s: must be positive" {
		t.Errorf("got %v", err)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"certificate_file": "/c", "private_key_file": "/k", "ca_certificate_file": "/r", "refresh_interval": "600s"}`))
	f.Add([]byte(`{"ca_certificate_file": "/r", "refresh_interval": "1e9s"}`))
	f.Add([]byte(`{"ca_certificate_file": "/r", "refresh_interval": ".s"}`))
	f.Add([]byte(`{"spiffe_trust_bundle_map_file": "/m"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		config, err := filesource.ParseConfig(data)
		if err == nil && (config.RefreshInterval < 0 || config.CertificateFile == "" && config.CACertificateFile == "" && config.BundleMapFile == "") {
			t.Fatalf("got %+v without an error", config)
		}
	})
}
