package istioca_test

import (
	"testing"
	"time"

	"github.com/inboardmesh/inboard/tls/istioca"
)

func TestParseConfigReadsEveryField(t *testing.T) {
	t.Parallel()
	got, err := istioca.ParseConfig([]byte(`{
		"server_uri": "istiod:15012", "server_name": "istiod.istio-system.svc", "token_file": "/token",
		"root_file": "/root.pem", "certificate_lifetime": "90m", "cluster_id": "Kubernetes"
	}`))
	if err != nil {
		t.Fatal(err)
	}
	if got.ServerURI != "istiod:15012" || got.ServerName != "istiod.istio-system.svc" || got.TokenFile != "/token" ||
		got.RootFile != "/root.pem" || got.Lifetime != 90*time.Minute || got.ClusterID != "Kubernetes" {
		t.Errorf("got %+v", got)
	}
}

func TestParseConfigNamesTheField(t *testing.T) {
	t.Parallel()
	const uri, token = `"server_uri": "ca:1"`, `"token_file": "/t"`
	tests := []struct{ name, config, want string }{
		{"the least", `{` + uri + `, ` + token + `}`, ""},
		{
			"everything missing", `{}`,
			`istio_ca: server_uri: is required: the CA, such as "istiod.istio-system.svc:15012"` + "\n" +
				`istio_ca: token_file: is required: the file with the token for the first certificate`,
		},
		{"a URL", `{"server_uri": "https://ca:1/", ` + token + `}`, `istio_ca: server_uri: "https://ca:1/": want a gRPC target: write "ca:1"`},
		{"a URL without TLS", `{"server_uri": "http://ca:1", ` + token + `}`, `istio_ca: server_uri: "http://ca:1": want a gRPC target: write "ca:1"`},
		{"a lifetime without a unit", `{` + uri + `, ` + token + `, "certificate_lifetime": "3600"}`, `istio_ca: certificate_lifetime: "3600": want a duration such as "24h"`},
		{"a lifetime of nothing", `{` + uri + `, ` + token + `, "certificate_lifetime": "0s"}`, `istio_ca: certificate_lifetime: "0s": must be positive`},
		{"a lifetime of less than nothing", `{` + uri + `, ` + token + `, "certificate_lifetime": "-1h"}`, `istio_ca: certificate_lifetime: "-1h": must be positive`},
		{
			"two mistakes", `{` + uri + `, "certificate_lifetime": "x"}`,
			`istio_ca: token_file: is required: the file with the token for the first certificate` + "\n" +
				`istio_ca: certificate_lifetime: "x": want a duration such as "24h"`,
		},
		{"a number for a string", `{"server_uri": 1}`, `istio_ca: server_uri: want a string, got number`},
		{"an unknown field", `{` + uri + `, ` + token + `, "key_type": "rsa"}`, `istio_ca: key_type: unknown field`},
		{"a list", `[]`, `istio_ca: want an object, got array`},
		{"nothing", ``, `istio_ca: empty: want an object`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if _, err := istioca.ParseConfig([]byte(test.config)); err != nil {
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
	if _, err := istioca.New(t.Context(), istioca.Config{ServerURI: "ca:1"}); err == nil ||
		err.Error() != "istio_ca: token_file: is required: the file with the token for the first certificate" {
		t.Errorf("got %v", err)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"server_uri": "istiod:15012", "token_file": "/token", "certificate_lifetime": "24h"}`))
	f.Add([]byte(`{"server_uri": "http://x", "certificate_lifetime": "-1ns"}`))
	f.Add([]byte(`[null]`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, data []byte) {
		config, err := istioca.ParseConfig(data)
		if err == nil && (config.ServerURI == "" || config.TokenFile == "" || config.Lifetime < 0) {
			t.Fatalf("got %+v without an error", config)
		}
	})
}
