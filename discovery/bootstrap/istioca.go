package bootstrap

import (
	"encoding/json"
	"strings"
	"time"
)

const pluginIstioCA = "istio_ca"

// checkIstioCA adds the mistakes of an "istio_ca" to found. They are those that
// the plugin would refuse.
func checkIstioCA(found *problems, path string, config json.RawMessage) {
	o, ok := readObject(found, path, config)
	if !ok {
		return
	}
	o.only("server_uri", "server_name", "token_file", "root_file", "certificate_lifetime", "cluster_id")
	const want = `the gRPC target of the CA, such as "istiod.istio-system.svc:15012"`
	uri := o.required("server_uri", want)
	if strings.HasPrefix(uri, "http://") || strings.HasPrefix(uri, "https://") {
		found.addf(path+".server_uri", "expected %s, without http:// or https://: the connection is always TLS", want)
	}
	o.required("token_file", "the path of the file with the token for the first certificate")
	for _, optional := range []string{"server_name", "root_file", "cluster_id"} {
		o.text(optional)
	}
	if lifetime := o.text("certificate_lifetime"); lifetime != "" {
		if d, err := time.ParseDuration(lifetime); err != nil || d <= 0 {
			found.addf(path+".certificate_lifetime", `expected a positive duration such as "24h", found %q`, shorten(lifetime))
		}
	}
}
