package xds

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
	"github.com/inboardmesh/inboard/internal/hangup"
)

// channels are those of a source by the identity of their servers: a server that
// the bootstrap names several times has one.
type channels map[string]*channel

// servers returns a list of servers of the bootstrap for the client. One that
// comes twice counts where it comes first, and whether it may be istiod is said by the
// list that has it first.
func (c channels) servers(servers []bootstrap.Server, version string, maybeIstiod bool) []ads.ServerConfig {
	var configs []ads.ServerConfig
	for i := range servers {
		server := servers[i]
		id := identity(&server)
		if slices.ContainsFunc(configs, func(other ads.ServerConfig) bool { return other.ID == id }) {
			continue
		}
		if c[id] == nil {
			lines := new(hangup.Lines)
			server.DialOptions = append([]grpc.DialOption{grpc.WithUserAgent(userAgent + "/" + version), hangup.Option{Lines: lines}}, server.DialOptions...)
			c[id] = &channel{server: server, maybeIstiod: maybeIstiod, lines: lines}
		}
		configs = append(configs, ads.ServerConfig{
			Name:                          server.URI,
			ID:                            id,
			Dial:                          c[id].dial,
			Lines:                         c[id].lines,
			Mode:                          modeOf(server.API),
			DeltaOnlyNamed:                c[id].maybeIstiod,
			FailOnDataErrors:              server.Has(bootstrap.FeatureFailOnDataErrors),
			ResourceTimerIsTransientError: server.Has(bootstrap.FeatureResourceTimerIsTransientError),
		})
	}
	return configs
}

func (c channels) free() {
	for _, one := range c {
		one.free()
	}
}

// identity is what tells servers apart: everything that the bootstrap says of
// them (gRFC A47).
func identity(s *bootstrap.Server) string {
	parts := []string{s.URI, s.API.String()}
	for _, creds := range append([]bootstrap.Credentials{s.ChannelCreds}, s.CallCreds...) {
		var config bytes.Buffer
		if json.Compact(&config, creds.Config) != nil {
			config.Write(creds.Config)
		}
		parts = append(parts, creds.Type, config.String())
	}
	parts = append(parts, slices.Sorted(slices.Values(s.Features))...)
	return strings.Join(parts, "\x00")
}

// modeOf returns the variant of the protocol that a server is spoken to in.
func modeOf(api bootstrap.APIType) ads.Mode {
	switch api {
	case bootstrap.APIDelta:
		return ads.ModeDelta
	case bootstrap.APISotW:
		return ads.ModeSotW
	case bootstrap.APIAuto:
	}
	return ads.ModeAuto
}

// channel dials the control plane. The client has one connection at a time and
// closes it before it dials again.
type channel struct {
	server      bootstrap.Server
	maybeIstiod bool
	lines       *hangup.Lines

	mu      sync.Mutex
	release func() // guarded by mu; frees the credentials of the last connection
}

func (c *channel) dial(context.Context) (*grpc.ClientConn, error) {
	c.free()
	conn, release, err := c.server.Dial()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.release = release
	return conn, nil
}

func (c *channel) free() {
	c.mu.Lock()
	release := c.release
	c.release = nil
	c.mu.Unlock()
	if release != nil {
		release()
	}
}
