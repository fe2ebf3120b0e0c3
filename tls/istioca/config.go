package istioca

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/inboardmesh/inboard/internal/strictjson"
	"github.com/inboardmesh/inboard/observe"
)

// DefaultLifetime is the certificate lifetime that is asked for if the
// configuration does not say. It is that of Istio's agent.
const DefaultLifetime = 24 * time.Hour

// Config is where a certificate comes from. The fields with a JSON name are
// read by [ParseConfig]; the others are for programs.
type Config struct {
	// ServerURI (server_uri) is the CA as a gRPC target, e.g.
	// "istiod.istio-system.svc:15012". Required. The connection is always TLS.
	ServerURI string
	// ServerName (server_name) is the DNS name that the CA's certificate must
	// have, if it is not the host of ServerURI: for a CA behind a port-forward.
	ServerName string
	// TokenFile (token_file) holds the token that authenticates requests for
	// which there is no valid certificate. Required.
	TokenFile string
	// RootFile (root_file) holds, in PEM, the roots that verify the CA's own
	// certificate. "" means the system's roots.
	RootFile string
	// Lifetime (certificate_lifetime, such as "24h" or "86400s") is how long
	// certificates should be valid; the CA may decide otherwise. 0 means
	// DefaultLifetime. It is sent in whole seconds, rounded up.
	Lifetime time.Duration
	// ClusterID (cluster_id) is sent as the metadata ClusterID, from which
	// istiod knows which cluster's API server can review the token. "" sends none.
	ClusterID string

	// Name names the source in events, e.g. the provider's instance name.
	Name string
	// OnChange is told of every new certificate, of every request that failed
	// and of the expiry. It runs on the source's goroutine, one call at a time,
	// and must not close the source. nil tells nobody.
	OnChange func(observe.CertificateEvent)
	// Dial opens connections to the CA. nil means the network, through
	// HTTPS_PROXY if that is set, as usual in gRPC.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// ParseConfig reads the configuration of the plugin "istio_ca":
//
//	{
//	  "server_uri": "istiod.istio-system.svc:15012",
//	  "server_name": "istiod.istio-system.svc",
//	  "token_file": "/var/run/secrets/tokens/istio-token",
//	  "root_file": "/var/run/secrets/istio/root-cert.pem",
//	  "certificate_lifetime": "24h",
//	  "cluster_id": "Kubernetes"
//	}
//
// server_uri and token_file are required. Every mistake is reported, with the
// field's name; a field that is not known is a mistake.
func ParseConfig(data []byte) (Config, error) {
	var raw struct {
		ServerURI  string `json:"server_uri"`
		ServerName string `json:"server_name"`
		TokenFile  string `json:"token_file"`
		RootFile   string `json:"root_file"`
		Lifetime   string `json:"certificate_lifetime"`
		ClusterID  string `json:"cluster_id"`
	}
	if err := strictjson.Decode(data, &raw); err != nil {
		return Config{}, fmt.Errorf("istio_ca: %w", err)
	}
	config := Config{
		ServerURI:  raw.ServerURI,
		ServerName: raw.ServerName,
		TokenFile:  raw.TokenFile,
		RootFile:   raw.RootFile,
		ClusterID:  raw.ClusterID,
	}
	var lifetimeErr error
	if raw.Lifetime != "" {
		lifetime, err := time.ParseDuration(raw.Lifetime)
		switch {
		case err != nil:
			lifetimeErr = fmt.Errorf("istio_ca: certificate_lifetime: %q: want a duration such as %q", raw.Lifetime, "24h")
		case lifetime <= 0:
			lifetimeErr = fmt.Errorf("istio_ca: certificate_lifetime: %q: must be positive", raw.Lifetime)
		}
		config.Lifetime = lifetime
	}
	return config, errors.Join(config.validate(), lifetimeErr)
}

func (c *Config) validate() error {
	var problems []error
	report := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("istio_ca: "+format, args...))
	}
	if c.ServerURI == "" {
		report("server_uri: is required: the CA, such as %q", "istiod.istio-system.svc:15012")
	}
	for _, scheme := range []string{"https://", "http://"} {
		if address, ok := strings.CutPrefix(c.ServerURI, scheme); ok {
			report("server_uri: %q: want a gRPC target: write %q", c.ServerURI, strings.TrimSuffix(address, "/"))
		}
	}
	if c.TokenFile == "" {
		report("token_file: is required: the file with the token for the first certificate")
	}
	return errors.Join(problems...)
}
