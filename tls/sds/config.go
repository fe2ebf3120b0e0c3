package sds

import (
	"errors"
	"fmt"
	"strings"

	"github.com/inboardmesh/inboard/internal/strictjson"
	"github.com/inboardmesh/inboard/observe"
)

// The names of secrets that Istio's agent and SPIRE's agent know.
const (
	DefaultCertificateName = "default"
	DefaultRootName        = "ROOTCA"
)

// Config says where the service is, and what to ask it for. The fields with a JSON
// name are read by [ParseConfig]; the others are for programs.
type Config struct {
	// Socket (socket) is the address of the service, such as
	// "unix:///var/run/secrets/workload-spiffe-uds/socket".
	Socket string
	// CertificateName (certificate_name) is the secret with the certificate; "" is
	// DefaultCertificateName. RootName (root_name) is the one with the roots; "" is
	// DefaultRootName.
	CertificateName string
	RootName        string
	// NodeID (node_id) is what the client says it is; it may be "".
	NodeID string

	// Name names the source in events, e.g. the provider's instance name.
	Name string
	// OnChange is told of every new certificate, of every failure of a stream and of
	// the expiry. It runs on goroutines of the source, and must not close it. nil
	// tells nobody.
	OnChange func(observe.CertificateEvent)
}

// ParseConfig reads the configuration of the plugin "sds":
//
//	{
//	  "socket": "unix:///var/run/secrets/workload-spiffe-uds/socket",
//	  "certificate_name": "default",
//	  "root_name": "ROOTCA",
//	  "node_id": "sidecar~10.0.0.1~payment.shop~shop.svc.cluster.local"
//	}
//
// All but the socket may be left out. A field that is not known is a mistake.
func ParseConfig(data []byte) (Config, error) {
	var raw struct {
		Socket          string `json:"socket"`
		CertificateName string `json:"certificate_name"`
		RootName        string `json:"root_name"`
		NodeID          string `json:"node_id"`
	}
	if err := strictjson.Decode(data, &raw); err != nil {
		return Config{}, fmt.Errorf("sds: %w", err)
	}
	config := Config{Socket: raw.Socket, CertificateName: raw.CertificateName, RootName: raw.RootName, NodeID: raw.NodeID}
	err := config.validate()
	return config, err
}

func (c *Config) validate() error {
	switch {
	case c.Socket == "":
		return errors.New(`sds: socket: is required: use an address such as "unix:///var/run/secrets/workload-spiffe-uds/socket"`)
	case !strings.HasPrefix(c.Socket, "unix:"):
		// The service gives a key to whoever can reach it.
		return fmt.Errorf("sds: socket: %q: want a Unix socket such as %q", c.Socket, "unix:///var/run/secrets/workload-spiffe-uds/socket")
	}
	return nil
}

func orDefault(name, otherwise string) string {
	if name == "" {
		return otherwise
	}
	return name
}
