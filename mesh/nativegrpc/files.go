package nativegrpc

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/grpc/credentials/tls/certprovider"
	"google.golang.org/grpc/credentials/tls/certprovider/pemfile"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
)

// fileBuilder makes certificate providers of the plugin "file_watcher", by grpc-go's own
// in all but one point: it heeds spiffe_trust_bundle_map_file (gRFC A87). That is an
// experiment of grpc-go's, and where it is not switched on, a bootstrap with a map and
// without other roots has peers verified by the operating system's, and one with both by
// roots that vouch for any trust domain.
type fileBuilder struct{}

// fileRefreshInterval is the default of gRFC A29.
const fileRefreshInterval = 10 * time.Minute

func (fileBuilder) Name() string { return pemfile.PluginName }

// ParseConfig reads the configuration in a bootstrap, as grpc-go does: what it does not
// know is for others.
func (fileBuilder) ParseConfig(config any) (*certprovider.BuildableConfig, error) {
	raw, ok := config.(json.RawMessage)
	if !ok {
		return nil, fmt.Errorf("native gRPC: certificate provider %q: configuration of type %T", pemfile.PluginName, config)
	}
	options, err := fileOptions(raw)
	if err != nil {
		return nil, fmt.Errorf("native gRPC: certificate provider %q: %w", pemfile.PluginName, err)
	}
	// To build a provider has no error, so it is tried now.
	probe, err := pemfile.NewProvider(options)
	if err != nil {
		return nil, fmt.Errorf("native gRPC: certificate provider %q: %w", pemfile.PluginName, err)
	}
	probe.Close()
	return certprovider.NewBuildableConfig(pemfile.PluginName, raw, func(build certprovider.BuildOptions) certprovider.Provider {
		native, err := pemfile.NewProvider(options)
		if err != nil || options.SPIFFEBundleMapFile == "" {
			return native // there was no error before
		}
		return &mappedFiles{
			Provider: native, mesh: &certificates{plugin: pemfile.PluginName, config: raw, roots: build.WantRoot},
		}
	}), nil
}

func fileOptions(config json.RawMessage) (pemfile.Options, error) {
	var c struct {
		CertificateFile   string          `json:"certificate_file"`
		PrivateKeyFile    string          `json:"private_key_file"`
		CACertificateFile string          `json:"ca_certificate_file"`
		BundleMapFile     string          `json:"spiffe_trust_bundle_map_file"`
		RefreshInterval   json.RawMessage `json:"refresh_interval"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return pemfile.Options{}, err
	}
	interval := new(durationpb.Duration)
	if c.RefreshInterval != nil {
		if err := protojson.Unmarshal(c.RefreshInterval, interval); err != nil {
			return pemfile.Options{}, fmt.Errorf("refresh_interval: %w", err)
		}
	}
	return pemfile.Options{
		CertFile: c.CertificateFile, KeyFile: c.PrivateKeyFile, RootFile: c.CACertificateFile, SPIFFEBundleMapFile: c.BundleMapFile,
		RefreshDuration: cmp.Or(interval.AsDuration(), fileRefreshInterval),
	}, nil
}

// mappedFiles are files with a bundle map: those of the mesh in this process, if it has
// read them as well, and otherwise what grpc-go reads of them.
type mappedFiles struct {
	certprovider.Provider

	mesh *certificates
}

func (f *mappedFiles) KeyMaterial(ctx context.Context) (*certprovider.KeyMaterial, error) {
	if r, err := guests.find(""); err == nil {
		if _, err := f.mesh.source(r); err == nil {
			return f.mesh.KeyMaterial(ctx)
		}
	}
	return f.Provider.KeyMaterial(ctx)
}
