package spiffe

import (
	"fmt"
	"os"
	"strings"

	"github.com/inboardmesh/inboard/internal/strictjson"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// socketVariable names the socket if the configuration does not (SPIFFE Workload
// Endpoint, section 4).
const socketVariable = "SPIFFE_ENDPOINT_SOCKET"

// Config says where the Workload API is. The fields with a JSON name are read by
// [ParseConfig]; the others are for programs.
type Config struct {
	// Socket (socket) is the address of the API, such as
	// "unix:///run/spire/sockets/agent.sock". "" is that of the environment
	// variable SPIFFE_ENDPOINT_SOCKET.
	Socket string
	// ID (id) is the SPIFFE ID to take if the workload has several; "" takes the
	// first, which the API calls the default.
	ID string

	// Name names the source in events, e.g. the provider's instance name.
	Name string
	// OnChange is told of every new certificate, of every failure of the stream
	// and of the expiry. It runs on goroutines of the source, and must not close
	// it. nil tells nobody.
	OnChange func(observe.CertificateEvent)
}

// ParseConfig reads the configuration of the plugin "spiffe_workload_api":
//
//	{
//	  "socket": "unix:///run/spire/sockets/agent.sock",
//	  "id": "spiffe://cluster.local/ns/shop/sa/payment"
//	}
//
// Both may be left out. A field that is not known is a mistake.
func ParseConfig(data []byte) (Config, error) {
	var raw struct {
		Socket string `json:"socket"`
		ID     string `json:"id"`
	}
	if err := strictjson.Decode(data, &raw); err != nil {
		return Config{}, fmt.Errorf("spiffe_workload_api: %w", err)
	}
	config := Config{Socket: raw.Socket, ID: raw.ID}
	if raw.Socket == "" && os.Getenv(socketVariable) == "" {
		return config, fmt.Errorf("spiffe_workload_api: socket: is required without %s: use an address such as %q",
			socketVariable, "unix:///run/spire/sockets/agent.sock")
	}
	err := config.validate()
	return config, err
}

func (c *Config) validate() error {
	if c.Socket != "" && !strings.HasPrefix(c.Socket, "unix:") {
		// The API gives a key to whoever can reach it.
		return fmt.Errorf("spiffe_workload_api: socket: %q: want a Unix socket such as %q", c.Socket, "unix:///run/spire/sockets/agent.sock")
	}
	if c.ID != "" {
		if _, err := meshtls.ParseID(c.ID); err != nil {
			return fmt.Errorf("spiffe_workload_api: id: %w", err)
		}
	}
	return nil
}

func (c *Config) socket() string {
	if c.Socket != "" {
		return c.Socket
	}
	return os.Getenv(socketVariable)
}
