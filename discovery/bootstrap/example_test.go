package bootstrap_test

import (
	"fmt"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
)

func ExampleParse() {
	c, err := bootstrap.Parse([]byte(`{
	  "xds_servers": [{
	    "server_uri": "istiod.istio-system.svc:15012",
	    "channel_creds": [{"type": "tls", "config": {"ca_certificate_file": "/etc/mesh/root.pem"}}]
	  }],
	  "node": {"id": "web-1", "metadata": {"NAMESPACE": "shop"}},
	  "server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s"
	}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	name, _ := c.ServerListenerName("0.0.0.0:8080")
	fmt.Println(c.Servers[0].URI, c.Servers[0].ChannelCreds)
	fmt.Println(name)
	// Output:
	// istiod.istio-system.svc:15012 tls
	// xds.istio.io/grpc/lds/inbound/0.0.0.0:8080
}

func ExampleParse_mistakes() {
	_, err := bootstrap.Parse([]byte(`{
	  "xds_servers": [{"server_url": "istiod:15012", "channel_creds": [{"type": "tls", "config": {"certificate_file": "/c.pem"}}]}],
	  "node": {"id": 7}
	}`))
	fmt.Println(err)
	// Output:
	// bootstrap: $.node.id: expected a string, found a number
	// $.xds_servers[0].server_uri: is required: the gRPC target of the control plane, such as "istiod.istio-system.svc:15012"; found "server_url": did you mean "server_uri"?
	// $.xds_servers[0].channel_creds[0].config.private_key_file: is required: the key of certificate_file
}

func ExampleFromEnvironment() {
	_, err := bootstrap.FromEnvironment()
	fmt.Println(err)
	// Output:
	// no bootstrap: set GRPC_XDS_BOOTSTRAP to the path of a bootstrap file, or GRPC_XDS_BOOTSTRAP_CONFIG to its content
}

func ExampleConfig_Validate() {
	c := bootstrap.Config{Servers: []bootstrap.Server{{
		URI:          "localhost:15010",
		ChannelCreds: bootstrap.Credentials{Type: "insecure"},
		CallCreds:    []bootstrap.Credentials{{Type: "jwt_token_file", Config: []byte(`{"jwt_token_file": "/token"}`)}},
	}}}
	fmt.Println(c.Validate())
	// Output:
	// bootstrap: $.xds_servers[0].call_creds[0].type: "jwt_token_file" is not sent in plaintext: set channel_creds to "tls"
}
