package nativegrpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/credentials/tls/certprovider"

	"github.com/inboardmesh/inboard/internal/relay"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// providerBuilder makes certificate providers of a plugin: the mesh's own,
// "inboard", or one that grpc-go does not have and the mesh does.
type providerBuilder struct{ plugin string }

func (b providerBuilder) Name() string { return b.plugin }

// ParseConfig reads the configuration in a bootstrap. Which source is meant is
// found out when it is needed: the bootstrap may be read before there is a mesh.
func (b providerBuilder) ParseConfig(config any) (*certprovider.BuildableConfig, error) {
	raw, ok := config.(json.RawMessage)
	if !ok && config != nil {
		return nil, fmt.Errorf("native gRPC: certificate provider %q: configuration of type %T", b.plugin, config)
	}
	p := &certificates{plugin: b.plugin, config: slices.Clone(raw)}
	if b.plugin == credentialsType {
		ref, err := parseReference(raw)
		if err != nil {
			return nil, fmt.Errorf("certificate provider %q: %w", b.plugin, err)
		}
		if ref.Instance == "" {
			return nil, fmt.Errorf("certificate provider %q: instance is missing: name a certificate provider of the mesh", b.plugin)
		}
		p.ref = ref
	}
	return certprovider.NewBuildableConfig(b.plugin, raw, func(options certprovider.BuildOptions) certprovider.Provider {
		wanted := *p
		wanted.roots = options.WantRoot
		return &wanted
	}), nil
}

// certificates is a certificate provider that has what a source of the mesh has
// now, at each handshake. It holds nothing, so that it need not be closed.
type certificates struct {
	plugin string
	config json.RawMessage
	ref    reference
	roots  bool // they verify peers
}

var _ certprovider.Provider = (*certificates)(nil)

// KeyMaterial waits for the first certificate until ctx ends.
func (p *certificates) KeyMaterial(ctx context.Context) (*certprovider.KeyMaterial, error) {
	r, err := guests.find(p.ref.Mesh)
	if err != nil {
		return nil, err
	}
	source, err := p.source(r)
	if err != nil {
		return nil, err
	}
	for {
		changed := source.Changed()
		identity, err := source.Identity()
		if err == nil {
			return material(identity, p.roots)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", err, ctx.Err())
		}
	}
}

func (p *certificates) Close() {}

// source is the mesh's source that is meant.
func (p *certificates) source(r *relay.Relay) (meshtls.Source, error) {
	if p.plugin == credentialsType {
		return r.Identity(p.ref.Instance)
	}
	// A bootstrap that the mesh has read as well: the instance has the same
	// plugin and the same configuration.
	for name, configured := range r.Config().CertificateProviders {
		if configured.Plugin == p.plugin && sameJSON(configured.Config, p.config) {
			return r.Identity(name)
		}
	}
	return nil, fmt.Errorf("native gRPC: the mesh has no certificate provider %q with this configuration", p.plugin)
}

func sameJSON(a, b json.RawMessage) bool {
	var left, right bytes.Buffer
	return json.Compact(&left, a) == nil && json.Compact(&right, b) == nil && bytes.Equal(left.Bytes(), right.Bytes())
}

// material is an identity in grpc-go's words. Roots that grpc-go would take for
// more than they are good for verify nobody.
func material(identity *meshtls.Identity, roots bool) (*certprovider.KeyMaterial, error) {
	m := &certprovider.KeyMaterial{}
	if len(identity.Certificate.Certificate) > 0 {
		m.Certs = []tls.Certificate{identity.Certificate}
	}
	switch {
	case !roots:
		return m, nil
	case identity.Revocation != nil:
		return nil, errors.New("native gRPC: certificates that were withdrawn are not supported: use mesh.DialOptions and mesh.ServerOptions")
	case identity.Federated != nil:
		bundles, err := bundleMap(identity)
		if err != nil {
			return nil, err
		}
		m.SPIFFEBundleMap = bundles
		return m, nil
	case identity.Roots == nil:
		// To crypto/tls none would be the operating system's.
		return nil, errors.New("native gRPC: the source has no roots")
	}
	m.Roots = identity.Roots
	return m, nil
}

// bundleMap is the roots of each trust domain. grpc-go finds a peer's by the name in
// its certificate, as the mesh does (gRFC A87), and refuses who has none. It is never
// nil: grpc-go would then do without, and take the pool.
func bundleMap(identity *meshtls.Identity) (map[string]*spiffebundle.Bundle, error) {
	bundles := make(map[string]*spiffebundle.Bundle)
	for name, roots := range identity.Bundles() {
		domain, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return nil, fmt.Errorf("native gRPC: trust domain %q is federated and has no name that grpc-go could look for: %w", name, err)
		}
		bundles[domain.Name()] = spiffebundle.FromX509Authorities(domain, roots)
	}
	return bundles, nil
}
