package mesh_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// New must report the mistakes before it starts anything: here the good provider
// would keep it waiting for its CA.
func TestNewReportsTheMistakesOfTheBootstrapTogether(t *testing.T) {
	t.Parallel()
	provider := func(plugin, config string) bootstrap.CertificateProvider {
		return bootstrap.CertificateProvider{Plugin: plugin, Config: []byte(config)}
	}
	good := provider("istio_ca", `{"server_uri": "127.0.0.1:1", "token_file": "/none"}`)
	insecure := bootstrap.Server{URI: "127.0.0.1:1", ChannelCreds: bootstrap.Credentials{Type: "insecure"}}
	for _, tt := range []struct {
		name   string
		config bootstrap.Config
		with   []mesh.Option
		want   []string
	}{
		{"plugins and configurations", bootstrap.Config{
			Servers: []bootstrap.Server{insecure},
			CertificateProviders: map[string]bootstrap.CertificateProvider{
				"good": good, "default": provider("istio_ca", `{"server_uri": "a:1"}`),
				"a b": provider("file_watcher", `{"certificate_file": "/c"}`), "other": provider("vault", `{}`),
			},
		}, nil, []string{
			`mesh: bootstrap: $.certificate_providers["a b"].config.private_key_file: is required: the key of certificate_file`,
			`$.certificate_providers.default.config.token_file: is required: the path of the file with the token for the first certificate`,
			`bootstrap: $.certificate_providers.other.plugin_name: "vault" is unknown: the mesh has file_watcher, istio_ca, spiffe_workload_api and sds; others come in by mesh.WithIdentity("other", source)`,
		}},
		{"an unknown plugin alone", bootstrap.Config{
			Servers:              []bootstrap.Server{insecure},
			CertificateProviders: map[string]bootstrap.CertificateProvider{"good": good, "other": provider("vault", `{}`)},
		}, nil, []string{
			`mesh: bootstrap: $.certificate_providers.other.plugin_name: "vault" is unknown: the mesh has file_watcher, istio_ca, spiffe_workload_api and sds; others come in by mesh.WithIdentity("other", source)`,
		}},
		{"servers, certificates for them, and options", bootstrap.Config{
			Servers: []bootstrap.Server{
				{ChannelCreds: bootstrap.Credentials{Type: "insecure"}},
				{URI: "a:1", ChannelCreds: bootstrap.Credentials{Type: "tls", Config: []byte(`{"certificate_provider_instance": "mine"}`)}},
				{URI: "a:1", ChannelCreds: bootstrap.Credentials{Type: "tls", Config: []byte(`{"certificate_provider_instance": "given"}`)}},
			},
			CertificateProviders: map[string]bootstrap.CertificateProvider{"good": good, "given": provider("vault", `{}`)},
		}, []mesh.Option{mesh.WithIdentity("given", new(meshtls.Static)), mesh.WithOutboundPolicy(9)}, []string{
			`mesh: bootstrap: $.xds_servers[0].server_uri: is required: the gRPC target of the control plane, such as "istiod.istio-system.svc:15012"`,
			`bootstrap: $.xds_servers[1].channel_creds: certificate_provider_instance "mine" is not configured: add it to $.certificate_providers or use mesh.WithIdentity`,
			`outbound policy 9 is unknown: use AllowAny or RegistryOnly`,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := mesh.New(t.Context(), append(tt.with, mesh.WithBootstrap(&tt.config))...)
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(tt.want, strings.Split(err.Error(), "\n")); diff != "" {
				t.Errorf("mistakes (-want +got):\n%s", diff)
			}
		})
	}
}

// TestLastKnownGoodSaysWhyItDoesNotStartWithoutTheCA: what is on disk is of no use to a
// process whose certificates are the control plane's.
func TestLastKnownGoodSaysWhyItDoesNotStartWithoutTheCA(t *testing.T) {
	t.Parallel()
	config := bootstrap.Config{
		Servers: []bootstrap.Server{{URI: "127.0.0.1:1", ChannelCreds: bootstrap.Credentials{Type: "insecure"}}},
		CertificateProviders: map[string]bootstrap.CertificateProvider{
			"default": {Plugin: "istio_ca", Config: []byte(`{"server_uri": "127.0.0.1:1", "token_file": "/none"}`)},
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	const remedy = "mesh.LastKnownGood keeps no certificates"
	_, err := mesh.New(ctx, mesh.WithBootstrap(&config), mesh.LastKnownGood{Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), remedy) || !strings.Contains(err.Error(), "file_watcher, spiffe_workload_api or sds") {
		t.Errorf("error %v, want the remedy", err)
	}
	if _, err := mesh.New(ctx, mesh.WithBootstrap(&config)); err == nil || strings.Contains(err.Error(), remedy) {
		t.Errorf("error %v, want none that speaks of what was not asked for", err)
	}
}

func TestADeadlineHeaderMustHaveAMeaningOfItsOwn(t *testing.T) {
	t.Parallel()
	config := bootstrap.Config{Servers: []bootstrap.Server{{URI: "127.0.0.1:1", ChannelCreds: bootstrap.Credentials{Type: "insecure"}}}}
	for name, want := range map[string]string{
		"":                    "",
		"x-deadline-ms":       "",
		"a b":                 `deadline header "a b" is not the name of a header: use a name of your own, such as "x-deadline-ms"`,
		":path":               `deadline header ":path" is not the name of a header: use a name of your own, such as "x-deadline-ms"`,
		"content-length":      `deadline header "content-length" has another meaning: use a name of your own, such as "x-deadline-ms"`,
		"grpc-timeout":        `deadline header "grpc-timeout" has another meaning: use a name of your own, such as "x-deadline-ms"`,
		"X-Envoy-Max-Retries": `deadline header "X-Envoy-Max-Retries" controls calls and is removed from what arrives: use a name of your own, such as "x-deadline-ms"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := mesh.New(t.Context(), mesh.WithBootstrap(&config), mesh.WithDeadlineHeader(name))
			if err == nil {
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			}
			if got := fmt.Sprint(err); want == "" && err != nil || want != "" && got != "mesh: "+want {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}

func TestAnOptionThatIsNilIsAMistake(t *testing.T) {
	t.Parallel()
	m, err := mesh.New(t.Context(), mesh.WithBootstrap(&bootstrap.Config{
		Servers: []bootstrap.Server{{URI: "127.0.0.1:1", ChannelCreds: bootstrap.Credentials{Type: "insecure"}}},
	}), nil)
	if err == nil {
		_ = m.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "option 1 is nil") {
		t.Errorf("error %v", err)
	}
}
