package bootstrap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	registry "google.golang.org/grpc/xds/bootstrap"

	"github.com/inboardmesh/inboard/balancer"
)

const full = `{
  "xds_servers": [
    {
      "server_uri": "dns:///istiod.istio-system.svc:15012",
      "channel_creds": [
        {"type": "google_moon_base"},
        {"type": "tls", "config": {"ca_certificate_file": "/ca.pem", "certificate_file": "/c.pem",
          "private_key_file": "/k.pem", "refresh_interval": "1.5s"}},
        {"type": "insecure"}
      ],
      "call_creds": [{"type": "carrier_pigeon"}, {"type": "jwt_token_file", "config": {"jwt_token_file": "/token"}}],
      "server_features": ["xds_v3", "fail_on_data_errors", "from_the_future"],
      "api_type": "DELTA_GRPC"
    },
    {"server_uri": "unix:///run/xds.sock", "channel_creds": [{"type": "insecure"}], "api_type": "GRPC", "new": 1}
  ],
  "node": {
    "id": "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local",
    "cluster": "web",
    "locality": {"region": "eu", "zone": "eu-1", "sub_zone": "a"},
    "metadata": {"GENERATOR": "grpc", "LABELS": {"app": "web"}},
    "user_agent_name": "ignored"
  },
  "certificate_providers": {
    "default": {"plugin_name": "file_watcher", "config": {"ca_certificate_file": "/ca.pem"}},
    "mesh ca": {"plugin_name": "istio_ca", "config": {"server_uri": "istiod:15012", "token_file": "/token"}}
  },
  "server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s",
  "client_default_listener_resource_name_template": "mesh/%s",
  "authorities": {
    "far": {"xds_servers": [{"server_uri": "far:1", "channel_creds": [{"type": "insecure"}]}],
      "client_listener_resource_name_template": "xdstp://far/envoy.config.listener.v3.Listener/mesh/%s"},
    "near": {}
  },
  "something_new": true
}`

func TestParseReadsEveryField(t *testing.T) {
	t.Parallel()
	got, err := Parse([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Servers: []Server{
			{
				URI: "dns:///istiod.istio-system.svc:15012",
				ChannelCreds: Credentials{Type: "tls", Config: json.RawMessage(
					`{"ca_certificate_file": "/ca.pem", "certificate_file": "/c.pem",
          "private_key_file": "/k.pem", "refresh_interval": "1.5s"}`)},
				CallCreds: []Credentials{{Type: "jwt_token_file", Config: json.RawMessage(`{"jwt_token_file": "/token"}`)}},
				Features:  []string{"xds_v3", "fail_on_data_errors", "from_the_future"},
				API:       APIDelta,
			},
			{URI: "unix:///run/xds.sock", ChannelCreds: Credentials{Type: "insecure"}, API: APISotW},
		},
		Authorities: map[string]Authority{
			"far": {
				Servers:                []Server{{URI: "far:1", ChannelCreds: Credentials{Type: "insecure"}}},
				ClientListenerTemplate: "xdstp://far/envoy.config.listener.v3.Listener/mesh/%s",
			},
			"near": {},
		},
		Node: Node{
			ID:       "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local",
			Cluster:  "web",
			Locality: balancer.Locality{Region: "eu", Zone: "eu-1", SubZone: "a"},
			Metadata: map[string]any{"GENERATOR": "grpc", "LABELS": map[string]any{"app": "web"}},
		},
		CertificateProviders: map[string]CertificateProvider{
			"default": {Plugin: "file_watcher", Config: json.RawMessage(`{"ca_certificate_file": "/ca.pem"}`)},
			"mesh ca": {Plugin: "istio_ca", Config: json.RawMessage(`{"server_uri": "istiod:15012", "token_file": "/token"}`)},
		},
		ServerListenerTemplate: "xds.istio.io/grpc/lds/inbound/%s",
		ClientListenerTemplate: "mesh/%s",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Parse (-want +got):\n%s", diff)
	}
	if !got.Servers[0].Has(FeatureFailOnDataErrors) || got.Servers[1].Has(FeatureFailOnDataErrors) {
		t.Error("Has does not follow server_features")
	}
	if name, err := got.ListenerName("payment:8080"); err != nil || name != "mesh/payment:8080" {
		t.Errorf("ListenerName = %q", name)
	}
	if name, err := got.ServerListenerName("[::]:8080"); err != nil || name != "xds.istio.io/grpc/lds/inbound/[::]:8080" {
		t.Errorf("ServerListenerName = %q, %v", name, err)
	}
}

func TestParseFillsInDefaults(t *testing.T) {
	t.Parallel()
	c, err := Parse([]byte(`{"xds_servers": [{"server_uri": "x:1", "channel_creds": [{"type": "insecure", "config": {}}]}],
		"node": null, "certificate_providers": null, "authorities": null}`))
	if err != nil {
		t.Fatal(err)
	}
	if name, err := c.ListenerName("payment:8080"); err != nil || name != "payment:8080" {
		t.Errorf("ListenerName = %q, want the destination itself", name)
	}
	if c.Servers[0].API != APIAuto {
		t.Errorf("API = %v, want APIAuto", c.Servers[0].API)
	}
	const want = `listener "0.0.0.0:1": the bootstrap has no server_listener_resource_name_template: set it, for istiod to "xds.istio.io/grpc/lds/inbound/%s"`
	if _, err := c.ServerListenerName("0.0.0.0:1"); err == nil || err.Error() != want {
		t.Errorf("ServerListenerName without a template: %v\nwant %s", err, want)
	}
}

// server wraps the fields of one server into a bootstrap.
func server(fields string) string { return `{"xds_servers": [{` + fields + `}]}` }

const ok = `"server_uri": "x:1", "channel_creds": [{"type": "insecure"}]`

func TestParseReportsMistakes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in string
		want     []string
	}{
		{"empty text", ``, []string{"bootstrap: line 1, column 1: unexpected end of JSON input"}},
		{"text that is cut off", "{\n \"node\": {", []string{"bootstrap: line 2, column 10: unexpected end of JSON input"}},
		{"text that is not JSON", "{\n\n  node: 1}", []string{"bootstrap: line 3, column 3: invalid character 'n' looking for beginning of object key string"}},
		{"more than one value", "{} {}", []string{"bootstrap: line 1, column 4: invalid character '{' after top-level value"}},
		{"a list", `[]`, []string{"bootstrap: $: expected an object, found a list"}},
		{"nothing in it", `{}`, []string{"bootstrap: $.xds_servers: is required: a list with at least one server"}},
		{"no server", `{"xds_servers": []}`, []string{"bootstrap: $.xds_servers: is required: a list with at least one server"}},
		{"servers in camel case", `{"xdsServers": []}`, []string{
			`bootstrap: $.xds_servers: is required: a list with at least one server; found "xdsServers": did you mean "xds_servers"?`}},
		{"servers misspelled", `{"xds_server": {}}`, []string{
			`bootstrap: $.xds_servers: is required: a list with at least one server; found "xds_server": did you mean "xds_servers"?`}},
		{"optional keys misspelled", `{"xds_servers": [{"server_uri": "x:1", "channel_creds": [{"type": "insecure", "Config": {}}], "call_cred": [], "apiType": "GRPC", "future": 1}],
			"Node": {}, "certificate_provider": {}, "server_listener_resource_name_templates": "x", "future": 1}`, []string{
			`bootstrap: $.Node: is not a known key: did you mean "node"?`,
			`$.certificate_provider: is not a known key: did you mean "certificate_providers"?`,
			`$.server_listener_resource_name_templates: is not a known key: did you mean "server_listener_resource_name_template"?`,
			`$.xds_servers[0].call_cred: is not a known key: did you mean "call_creds"?`,
			`$.xds_servers[0].apiType: is not a known key: did you mean "api_type"?`,
			`$.xds_servers[0].channel_creds[0].Config: is not a known key: did you mean "config"?`}},
		{"short and long keys misspelled", `{"xds_servers": [{"server_uri": "x:1", "channel_creds": [{"type": "insecure"}]}], "ode": {}, "nodes": {},
			"server_listener_resource_template": "x"}`, []string{
			`bootstrap: $.nodes: is not a known key: did you mean "node"?`,
			`$.server_listener_resource_template: is not a known key: did you mean "server_listener_resource_name_template"?`}},
		{"an ID of the node misspelled", `{"xds_servers": [{"server_uri": "x:1", "channel_creds": [{"type": "insecure"}]}], "node": {"ip": "x", "idd": "x"}}`, []string{
			`bootstrap: $.node.idd: is not a known key: did you mean "id"?`}},
		{"keys of the node misspelled", `{"xds_servers": [{"server_uri": "x:1", "channel_creds": [{"type": "insecure"}]}],
			"node": {"ID": "x", "metdata": {}, "locality": {"subZone": "a"}}}`, []string{
			`bootstrap: $.node.ID: is not a known key: did you mean "id"?`,
			`$.node.metdata: is not a known key: did you mean "metadata"?`,
			`$.node.locality.subZone: is not a known key: did you mean "sub_zone"?`}},
		{"servers that are no list", `{"xds_servers": {}}`, []string{"bootstrap: $.xds_servers: expected a list, found an object"}},
		{"a server that is null", `{"xds_servers": [null]}`, []string{"bootstrap: $.xds_servers[0]: expected an object, found null"}},
		{"a server that is a string", `{"xds_servers": ["istiod:15012"]}`, []string{"bootstrap: $.xds_servers[0]: expected an object, found a string"}},
		{"an empty server", `{"xds_servers": [{}]}`, []string{
			`bootstrap: $.xds_servers[0].server_uri: is required: the gRPC target of the control plane, such as "istiod.istio-system.svc:15012"`,
			`$.xds_servers[0].channel_creds: is required: a list with at least one of "insecure", "tls" or a type registered with google.golang.org/grpc/xds/bootstrap`}},
		{"a URL for a server", server(`"server_uri": "https://istiod:15012", "channel_creds": [{"type": "tls"}]`), []string{
			`bootstrap: $.xds_servers[0].server_uri: expected the gRPC target of the control plane, such as "istiod.istio-system.svc:15012", without http:// or https://: channel_creds say whether it is TLS`}},
		{"white space in a server", server(`"server_uri": " istiod:15012\n", "channel_creds": [{"type": "tls"}]`), []string{
			`bootstrap: $.xds_servers[0].server_uri: expected the gRPC target of the control plane, such as "istiod.istio-system.svc:15012", found white space or control characters`}},
		{"a type of credentials that is a number", server(`"server_uri": "x:1", "channel_creds": [{"type": "google_moon_base"}, {"type": 7}]`), []string{
			"bootstrap: $.xds_servers[0].channel_creds[1].type: expected a string, found a number"}},
		{"no supported credentials", server(`"server_uri": "x:1", "channel_creds": [{"type": "google_moon_base"}, {"type": "alts"}]`), []string{
			`bootstrap: $.xds_servers[0].channel_creds: expected one of "insecure", "tls" or a type registered with google.golang.org/grpc/xds/bootstrap, found only "google_moon_base", "alts"`}},
		{"credentials with a misspelled type", server(`"server_uri": "x:1", "channel_creds": [{"typ": "tls"}]`), []string{
			`bootstrap: $.xds_servers[0].channel_creds[0].type: is required: one of "insecure", "tls" or a type registered with google.golang.org/grpc/xds/bootstrap; found "typ": did you mean "type"?`}},
		{"credentials that are an object", server(`"server_uri": "x:1", "channel_creds": {"type": "tls"}`), []string{
			"bootstrap: $.xds_servers[0].channel_creds: expected a list, found an object"}},
		{"a configuration of credentials that is a list", server(`"server_uri": "x:1", "channel_creds": [{"type": "tls", "config": []}]`), []string{
			"bootstrap: $.xds_servers[0].channel_creds[0].config: expected an object, found a list"}},
		{"a root file under another name", server(`"server_uri": "x:1", "channel_creds": [{"type": "tls", "config": {"ca_certificates_file": "/secret-path"}}]`), []string{
			`bootstrap: $.xds_servers[0].channel_creds[0].config.ca_certificates_file: is not a known key: did you mean "ca_certificate_file"?`}},
		{"a SPIFFE bundle map", server(`"server_uri": "x:1", "channel_creds": [{"type": "tls", "config": {"spiffe_trust_bundle_map_file": "/b"}}]`), []string{
			`bootstrap: $.xds_servers[0].channel_creds[0].config.spiffe_trust_bundle_map_file: is not supported here: every workload that the map verifies could be the server: use ca_certificate_file; the map is for $.certificate_providers`}},
		{"a SPIFFE bundle map of a file_watcher that is a number", `{"xds_servers": [{` + ok + `}], "certificate_providers": {"a": {"plugin_name": "file_watcher", "config": {"ca_certificate_file": "/r", "spiffe_trust_bundle_map_file": 1}}}}`, []string{
			`bootstrap: $.certificate_providers.a.config.spiffe_trust_bundle_map_file: expected a string, found a number`}},
		{"a certificate from a provider and from a file", server(`"server_uri": "x:1", "channel_creds": [{"type": "tls", "config": {"certificate_provider_instance": "default", "certificate_file": "/c", "private_key_file": "/k"}}]`), []string{
			`bootstrap: $.xds_servers[0].channel_creds[0].config.certificate_provider_instance: expected it, or certificate_file with private_key_file, found both`}},
		{"a certificate provider instance without a name", server(`"server_uri": "x:1", "channel_creds": [{"type": "tls", "config": {"certificate_provider_instance": ""}}]`), []string{
			`bootstrap: $.xds_servers[0].channel_creds[0].config.certificate_provider_instance: expected the name of a certificate provider instance, such as "default"`}},
		{"a certificate provider instance for a file_watcher", `{"xds_servers": [{` + ok + `}], "certificate_providers": {"a": {"plugin_name": "file_watcher", "config": {"ca_certificate_file": "/r", "certificate_provider_instance": "b"}}}}`, []string{
			`bootstrap: $.certificate_providers.a.config.certificate_provider_instance: is not a known key: expected one of certificate_file, private_key_file, ca_certificate_file, refresh_interval, spiffe_trust_bundle_map_file`}},
		{"a certificate without a key", server(`"server_uri": "x:1", "channel_creds": [{"type": "tls", "config": {"certificate_file": "/c"}}]`), []string{
			`bootstrap: $.xds_servers[0].channel_creds[0].config.private_key_file: is required: the key of certificate_file`}},
		{"a key without a certificate", server(`"server_uri": "x:1", "channel_creds": [{"type": "tls", "config": {"private_key_file": "/k"}}]`), []string{
			`bootstrap: $.xds_servers[0].channel_creds[0].config.certificate_file: is required: the certificate of private_key_file`}},
		{"an interval in minutes", server(`"server_uri": "x:1", "channel_creds": [{"type": "tls", "config": {"refresh_interval": "10m"}}]`), []string{
			`bootstrap: $.xds_servers[0].channel_creds[0].config.refresh_interval: expected a positive number of seconds such as "600s"`}},
		{"a token in plaintext", server(ok + `, "call_creds": [{"type": "jwt_token_file", "config": {"jwt_token_file": "/t"}}]`), []string{
			`bootstrap: $.xds_servers[0].call_creds[0].type: "jwt_token_file" is not sent in plaintext: set channel_creds to "tls"`}},
		{"a token without a file", server(`"server_uri": "x:1", "channel_creds": [{"type": "tls"}], "call_creds": [{"type": "pigeon"}, {"type": "jwt_token_file"}]`), []string{
			`bootstrap: $.xds_servers[0].call_creds[1].config.jwt_token_file: is required: the path of a file with a JSON web token`}},
		{"a token file under another name", server(`"server_uri": "x:1", "channel_creds": [{"type": "tls"}], "call_creds": [{"type": "jwt_token_file", "config": {"token_file": "/t"}}]`), []string{
			`bootstrap: $.xds_servers[0].call_creds[0].config.token_file: is not a known key: expected one of jwt_token_file`,
			`$.xds_servers[0].call_creds[0].config.jwt_token_file: is required: the path of a file with a JSON web token`}},
		{"an unknown protocol", server(ok + `, "api_type": "REST"`), []string{
			`bootstrap: $.xds_servers[0].api_type: expected "DELTA_GRPC", "GRPC" or nothing, found "REST"`}},
		{"a feature that is an object", server(ok + `, "server_features": ["xds_v3", {}, null]`), []string{
			`bootstrap: $.xds_servers[0].server_features[1]: expected a string, found an object`,
			`$.xds_servers[0].server_features[2]: expected a string, found null`}},
		{"a node of wrong types", `{"xds_servers": [{` + ok + `}], "node": {"id": 1, "locality": [], "metadata": "x"}}`, []string{
			"bootstrap: $.node.locality: expected an object, found a list",
			"$.node.id: expected a string, found a number",
			"$.node.metadata: expected an object, found a string"}},
		{"metadata nested very deep", `{"xds_servers": [{` + ok + `}], "node": {"metadata": {"a": ` + strings.Repeat("[", 33) + strings.Repeat("]", 33) + `}}}`, []string{
			"bootstrap: $.node.metadata: is nested deeper than 32 levels"}},
		{"certificate providers of wrong types", `{"xds_servers": [{` + ok + `}], "certificate_providers": {"a": {"plugin": "x"}, "b c": {"plugin_name": "file_watcher"}, "d": null, "e": 1}}`, []string{
			`bootstrap: $.certificate_providers.a.plugin_name: is required: "file_watcher", or another certificate provider plugin`,
			`$.certificate_providers.d.plugin_name: is required: "file_watcher", or another certificate provider plugin`,
			`$.certificate_providers.e: expected an object, found a number`,
			`$.certificate_providers["b c"].config: expected certificate_file with private_key_file, ca_certificate_file or spiffe_trust_bundle_map_file: at least one`}},
		{"keys that are given twice", `{"node": {"id": "a", "i\u0064": "b", "metadata": {"x": [1, {"y": 1, "y": 1, "z": 2}], "ok": {"x": 1}}}, "node": {}, "new": {"a b": 1, "a b": 1},
			"xds_servers": [{` + ok + `}, {` + ok + `, "channel_creds": [{"type": "tls"}]}]}`, []string{
			`bootstrap: $.node.id: the key "id" is given twice`,
			`$.node.metadata.x[1].y: the key "y" is given twice`,
			`$.new["a b"]: the key "a b" is given twice`,
			`$.xds_servers[1].channel_creds: the key "channel_creds" is given twice`}},
		{"a key that is given twice very deep down", `{"xds_servers": [{` + ok + `}], "new": ` + strings.Repeat(`[`, 5000) + `{"a": 1, "a": 2}` + strings.Repeat(`]`, 5000) + `}`, []string{
			`bootstrap: $.new` + strings.Repeat("[0]", maxDuplicatePath-1) + `: the key "a" is given twice`}},
		{"a federated name", `{"xds_servers": [{` + ok + `}], "server_listener_resource_name_template": "xdstp://a/%s"}`, []string{
			`bootstrap: $.server_listener_resource_name_template: expected an authority of $.authorities, found "a"`}},
		{"a template that is no name", `{"xds_servers": [{` + ok + `}], "client_default_listener_resource_name_template": "xdstp:a/%s"}`, []string{
			`bootstrap: $.client_default_listener_resource_name_template: expected "xdstp://AUTHORITY/TYPE/ID", found "xdstp:a/%s"`}},
		{"authorities", `{"xds_servers": [{` + ok + `}], "authorities": {
			"a": 1,
			"b": {"client_listener_resource_name_template": "xdstp://a/%s", "xds_servers": [{` + ok + `}, {"server_uri": "x:1"}]},
			"c": {"xds_server": [], "client_listener_resource_name_template": 1}}}`, []string{
			`bootstrap: $.authorities.a: expected an object, found a number`,
			`$.authorities.b.xds_servers[1].channel_creds: is required: a list with at least one of "insecure", "tls" or a type registered with google.golang.org/grpc/xds/bootstrap`,
			`$.authorities.c.xds_server: is not a known key: did you mean "xds_servers"?`,
			`$.authorities.b.client_listener_resource_name_template: expected a name of the authority, "xdstp://b/...", found "xdstp://a/%s"`,
			`$.authorities.c.client_listener_resource_name_template: expected a string, found a number`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse([]byte(tt.in))
			if err == nil {
				t.Fatal("no error")
			}
			got := strings.Split(err.Error(), "\n")
			want := map[string]bool{}
			for _, w := range tt.want {
				want[strings.TrimPrefix(w, "bootstrap: ")] = true
			}
			gotSet := map[string]bool{}
			for _, g := range got {
				gotSet[strings.TrimPrefix(g, "bootstrap: ")] = true
			}
			if diff := cmp.Diff(want, gotSet); diff != "" || !strings.HasPrefix(err.Error(), "bootstrap: ") {
				t.Errorf("mistakes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseListsABoundedNumberOfMistakes(t *testing.T) {
	t.Parallel()
	_, err := Parse([]byte(`{"xds_servers": [` + strings.TrimSuffix(strings.Repeat("1,", 10000), ",") + `]}`))
	if err == nil || !strings.HasSuffix(err.Error(), "\nand 9950 more mistakes") {
		t.Errorf("got %.200v", err)
	}
	if n := strings.Count(err.Error(), "\n"); n != maxProblems {
		t.Errorf("%d lines, want %d", n, maxProblems)
	}
}

func TestV60_LargeBootstrapIsRefused(t *testing.T) {
	t.Parallel()
	const want = "bootstrap: 4194305 bytes are more than the 4194304 that are allowed"
	if _, err := Parse(bytes.Repeat([]byte(" "), maxSize+1)); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestNoSecretIsShown(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	in := `{"xds_servers": [{"server_uri": "x:1", "channel_creds": [{"type": "tls", "config": {"ca_certificate_file": "` + secret + `"}}],
		"call_creds": [{"type": "jwt_token_file", "config": {"jwt_token_file": "` + secret + `"}}]}],
		"certificate_providers": {"default": {"plugin_name": "vault", "config": {"token": "` + secret + `"}}}}`
	c, err := Parse([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	log, err := json.Marshal([]any{c.CertificateProviders, c.Servers[0].ChannelCreds}) // as a structured log does
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{fmt.Sprintf("%v", c), fmt.Sprintf("%+v", *c), string(log)} {
		if strings.Contains(shown, secret) {
			t.Errorf("the secret is in %s", shown)
		}
	}
	_, err = Parse([]byte(strings.Replace(in, `"server_uri": "x:1",`, ``, 1)))
	if err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("error %v", err)
	}
}

func TestValidateChecksAConfigWrittenInGo(t *testing.T) {
	t.Parallel()
	good := Config{Servers: []Server{{URI: "x:1", ChannelCreds: Credentials{Type: "insecure"}}}}
	if err := good.Validate(); err != nil {
		t.Errorf("good: %v", err)
	}
	bad := Config{
		Servers: []Server{{API: 9, CallCreds: []Credentials{{Type: "pigeon"}}}, {URI: "x:1", ChannelCreds: Credentials{Type: "moon"}}},
		Node:    Node{Metadata: map[string]any{"a": struct{}{}}},
	}
	err := bad.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"$.xds_servers[0].server_uri: is required",
		"$.xds_servers[0].api_type: expected APIAuto, APIDelta or APISotW, found 9",
		"$.xds_servers[0].channel_creds: is required: one of",
		`$.xds_servers[0].call_creds[0]: expected one of "jwt_token_file" or a type registered with google.golang.org/grpc/xds/bootstrap, found "pigeon"`,
		`$.xds_servers[1].channel_creds: expected one of "insecure"`,
		"$.node.metadata: expected values as encoding/json decodes them: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
}

func TestFromEnvironment(t *testing.T) {
	valid := `{"xds_servers": [{"server_uri": "%s:1", "channel_creds": [{"type": "insecure"}]}]}`
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := write("good.json", fmt.Sprintf(valid, "file"))
	tests := []struct {
		name, file, content, uri string
		err                      string
	}{
		{"the file wins", file, fmt.Sprintf(valid, "content"), "file:1", ""},
		{"the content is used without a file", "", fmt.Sprintf(valid, "content"), "content:1", ""},
		{"neither is set", "", "", "", "no bootstrap: set GRPC_XDS_BOOTSTRAP to the path of a bootstrap file, or GRPC_XDS_BOOTSTRAP_CONFIG to its content"},
		{"the file is missing", filepath.Join(dir, "none"), "", "", "bootstrap of GRPC_XDS_BOOTSTRAP: open " + filepath.Join(dir, "none") + ": no such file or directory"},
		{"the file is too large", write("big.json", strings.Repeat(" ", maxSize+1)), "", "",
			fmt.Sprintf("bootstrap of GRPC_XDS_BOOTSTRAP: file %q is larger than 4194304 bytes", filepath.Join(dir, "big.json"))},
		{"the file has a mistake", write("bad.json", "{}"), "", "",
			fmt.Sprintf("file %q: bootstrap: $.xds_servers: is required: a list with at least one server", filepath.Join(dir, "bad.json"))},
		{"the content has a mistake", "", "[]", "", "environment variable GRPC_XDS_BOOTSTRAP_CONFIG: bootstrap: $: expected an object, found a list"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("GRPC_XDS_BOOTSTRAP", tt.file)
			t.Setenv("GRPC_XDS_BOOTSTRAP_CONFIG", tt.content)
			c, err := FromEnvironment()
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("error %v\nwant  %s", err, tt.err)
				}
				return
			}
			if err != nil || c.Servers[0].URI != tt.uri {
				t.Errorf("got %+v, %v, want server %q", c, err, tt.uri)
			}
		})
	}
}

// registered is a type of channel credentials registered with gRPC.
type registered struct{ built, released *int }

func (registered) Name() string { return "inboard_test_registered" }

func (r registered) Build(config json.RawMessage) (credentials.Bundle, func(), error) {
	if string(config) == `{"broken":true}` {
		return nil, nil, errors.New("broken\nconfig")
	}
	*r.built++
	return insecure.NewBundle(), func() { *r.released++ }, nil
}

func TestRegisteredChannelCredentials(t *testing.T) {
	r := registered{new(int), new(int)}
	registry.RegisterChannelCredentials(r)
	text := `{"xds_servers": [{"server_uri": "x:1", "channel_creds": [{"type": "inboard_test_registered"%s}]}]}`
	c, err := Parse(fmt.Appendf(nil, text, ""))
	if err != nil {
		t.Fatal(err)
	}
	conn, release, err := c.Servers[0].Dial()
	if err != nil {
		t.Fatal(err)
	}
	if *r.built-*r.released != 1 {
		t.Errorf("%d built and %d released while the channel is open, want one more built", *r.built, *r.released)
	}
	_ = conn.Close()
	release()
	if *r.built != *r.released {
		t.Errorf("%d built, %d released", *r.built, *r.released)
	}
	const want = "bootstrap: $.xds_servers[0].channel_creds[0].config: broken config"
	if _, err := Parse(fmt.Appendf(nil, text, `, "config": {"broken":true}`)); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(`{"xds_servers":[{"server_uri":"x","channel_creds":[{"type":"tls","config":{"refresh_interval":"1s"}}]}]}`))
	f.Add([]byte(`{"xdsServers":1,"node":{"metadata":{"a":[1,null,{"b":{}}]}}}`))
	f.Add([]byte(`{"certificate_providers":{"a":{"plugin_name":"istio_ca","config":{"server_uri":"a","certificate_lifetime":"1h"}}}}`))
	f.Add([]byte(`{"node":{"id":"a","id":"b"},"a":[[[{"b":1,"b":[]}]]]}`))
	f.Add([]byte(`{"certificate_providers":{"":{"plugin_name":"file_watcher","config":null}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data)
		if err != nil {
			if len(err.Error()) > 1<<16 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Errorf("parsed, but not valid: %v", err)
		}
		for i := range c.Servers {
			if conn, release, err := c.Servers[i].Dial(); err == nil {
				_ = conn.Close()
				release()
			}
		}
	})
}

func TestListenersOfAuthorities(t *testing.T) {
	t.Parallel()
	c := &Config{
		Servers: []Server{{URI: "a:1", ChannelCreds: Credentials{Type: "insecure"}}},
		Authorities: map[string]Authority{
			"near": {},
			"far":  {ClientListenerTemplate: "xdstp://far/envoy.config.listener.v3.Listener/client/%s?env=prod"},
		},
		ClientListenerTemplate: "xdstp://near/envoy.config.listener.v3.Listener/%s",
		ServerListenerTemplate: "xdstp://near/envoy.config.listener.v3.Listener/server/%s",
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for destination, want := range map[string]string{
		"payment:8080":         "xdstp://near/envoy.config.listener.v3.Listener/payment:8080",
		"a b/c?d":              "xdstp://near/envoy.config.listener.v3.Listener/a%20b/c%3Fd",
		"//near/payment:8080":  "xdstp://near/envoy.config.listener.v3.Listener/payment:8080",
		"//far/payment:8080":   "xdstp://far/envoy.config.listener.v3.Listener/client/payment:8080?env=prod",
		"//other/payment:8080": `destination "payment:8080": the bootstrap has no authority "other": add it to $.authorities`,
	} {
		got, err := c.ListenerName(destination)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("ListenerName(%q) = %s, want %s", destination, got, want)
		}
	}
	if got, err := c.ServerListenerName("[::1]:80"); err != nil || got != "xdstp://near/envoy.config.listener.v3.Listener/server/%5B::1%5D:80" {
		t.Errorf("ServerListenerName: %s, %v", got, err)
	}
}
