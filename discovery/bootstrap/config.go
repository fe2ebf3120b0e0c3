package bootstrap

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inboardmesh/inboard/balancer"
)

// maxMetadataDepth bounds how deep node metadata may be nested. Servers refuse
// messages that are nested too deeply; Istio's metadata has depth three.
const maxMetadataDepth = 32

// Config is a bootstrap. It is frozen when it is passed on and may then be
// shared between goroutines.
type Config struct {
	// Servers are the control plane's servers in order of preference. At least
	// one is required. The next one is asked while none before it can be
	// reached, and only if something is missing (gRFC A71).
	Servers []Server
	// Authorities are the control planes of resources whose names have an
	// authority, "xdstp://AUTHORITY/...", by that authority (gRFC A47).
	Authorities map[string]Authority
	// Node says who is asking.
	Node Node
	// CertificateProviders are the plugin instances that clusters and
	// listeners refer to, by instance name (gRFC A29).
	CertificateProviders map[string]CertificateProvider
	// ServerListenerTemplate names the Listener of an address that this
	// process listens on; "%s" stands for the address, such as
	// "0.0.0.0:8080" (gRFC A36). "" means that listeners of this process
	// cannot be configured by the control plane.
	ServerListenerTemplate string
	// ClientListenerTemplate names the Listener of a destination; "%s" stands
	// for the destination, such as "payment.shop.svc.cluster.local:8080"
	// (gRFC A47). "" means "%s".
	ClientListenerTemplate string
}

// Authority is one authority of resource names (gRFC A47).
type Authority struct {
	// Servers are its servers in order of preference; none stands for those of
	// the Config.
	Servers []Server
	// ClientListenerTemplate names the Listener of a destination of the
	// authority, "%s" being the destination. "" means
	// "xdstp://AUTHORITY/envoy.config.listener.v3.Listener/%s".
	ClientListenerTemplate string
}

// Node is the identity that the control plane configures. It proves nothing:
// credentials do.
type Node struct {
	ID       string
	Cluster  string
	Locality balancer.Locality
	// Metadata holds what encoding/json decodes into an any: nil, bool,
	// float64, string, []any and map[string]any.
	Metadata map[string]any
}

// CertificateProvider is one certificate provider plugin instance. Its plugin
// decides what Config means and reads it; those of "file_watcher" (gRFC A29) and
// of "istio_ca" are checked here as well, to report their mistakes with those of
// the rest.
type CertificateProvider struct {
	// Plugin is plugin_name, such as "file_watcher" or "istio_ca".
	Plugin string
	// Config is the plugin's configuration, nil without one.
	Config json.RawMessage
}

// String returns the plugin's name. The configuration is not shown: it can
// hold secrets.
func (p CertificateProvider) String() string { return p.Plugin }

// MarshalText returns the plugin's name, so that no structured log shows the
// configuration.
func (p CertificateProvider) MarshalText() ([]byte, error) { return []byte(p.Plugin), nil }

// ProviderPath returns where a certificate provider instance stands in the JSON
// format, such as "$.certificate_providers.default", for errors about it.
func ProviderPath(instance string) string { return child("$.certificate_providers", instance) }

// ListenerName returns the name of the Listener of a destination. One that
// begins with "//AUTHORITY/" is the destination after that, at an authority; it
// is an error if there is no such authority.
func (c *Config) ListenerName(destination string) (string, error) {
	if rest, ok := strings.CutPrefix(destination, "//"); ok {
		name, destination, _ := strings.Cut(rest, "/")
		authority, ok := c.Authorities[name]
		if !ok {
			return "", fmt.Errorf("destination %q: the bootstrap has no authority %q: add it to $.authorities",
				shorten(destination), shorten(name))
		}
		return fill(cmp.Or(authority.ClientListenerTemplate, xdstpPrefix(name)+listenerType+"/%s"), destination), nil
	}
	return fill(cmp.Or(c.ClientListenerTemplate, "%s"), destination), nil
}

const (
	xdstp        = "xdstp:"
	listenerType = "envoy.config.listener.v3.Listener"
)

// xdstpPrefix is what the names of an authority begin with.
func xdstpPrefix(authority string) string { return xdstp + "//" + authority + "/" }

// fill puts a value into a template. In an xdstp: name it is escaped, but for
// the slashes (gRFC A47).
func fill(template, value string) string {
	if strings.HasPrefix(template, xdstp) {
		segments := strings.Split(value, "/")
		for i, s := range segments {
			segments[i] = url.PathEscape(s)
		}
		value = strings.Join(segments, "/")
	}
	return strings.ReplaceAll(template, "%s", value)
}

// ServerListenerName returns the name of the Listener for an address that this
// process listens on. It is an error if the bootstrap has no template for it
// (gRFC A36).
func (c *Config) ServerListenerName(address string) (string, error) {
	if c.ServerListenerTemplate == "" {
		return "", fmt.Errorf("listener %q: the bootstrap has no server_listener_resource_name_template: "+
			"set it, for istiod to %q", address, "xds.istio.io/grpc/lds/inbound/%s")
	}
	return fill(c.ServerListenerTemplate, address), nil
}

// Validate reports every mistake in a Config that was written in Go, with the
// path that the field has in the JSON format. [Parse] has done it already.
func (c *Config) Validate() error {
	var found problems
	c.check(&found, nil, nil)
	return found.err()
}

// credentialPaths says where the credentials of a server stand in the JSON
// text, in which unsupported entries were skipped.
type credentialPaths struct {
	channel string
	call    []string
}

// check adds the mistakes of c to found. paths has an entry per server, and
// authorities one per server of each; they are nil for a Config that was not
// parsed.
func (c *Config) check(found *problems, paths []credentialPaths, authorities map[string][]credentialPaths) {
	if len(c.Servers) == 0 {
		found.addf("$.xds_servers", "is required: a list with at least one server")
	}
	checkServers(found, "$", c.Servers, paths)
	for _, name := range sortedKeys(c.Authorities) {
		authority := c.Authorities[name]
		path := child("$.authorities", name)
		checkServers(found, path, authority.Servers, authorities[name])
		if template := authority.ClientListenerTemplate; template != "" && !strings.HasPrefix(template, xdstpPrefix(name)) {
			found.addf(path+".client_listener_resource_name_template", "expected a name of the authority, %q, found %q",
				xdstpPrefix(shorten(name))+"...", shorten(template))
		}
	}
	if deeperThan(c.Node.Metadata, maxMetadataDepth) {
		found.addf("$.node.metadata", "is nested deeper than %d levels", maxMetadataDepth)
	} else if _, err := structpb.NewStruct(c.Node.Metadata); err != nil {
		found.addf("$.node.metadata", "expected values as encoding/json decodes them: %s", text(err))
	}
	for _, name := range sortedKeys(c.CertificateProviders) {
		provider := c.CertificateProviders[name]
		path := ProviderPath(name)
		if provider.Plugin == "" {
			found.addf(path+".plugin_name", "is required: %q, or another certificate provider plugin", pluginFileWatcher)
		}
		switch provider.Plugin {
		case pluginFileWatcher:
			checkFileWatcher(found, path+".config", provider.Config)
		case pluginIstioCA:
			checkIstioCA(found, path+".config", provider.Config)
		}
	}
	c.checkTemplate(found, "$.server_listener_resource_name_template", c.ServerListenerTemplate)
	c.checkTemplate(found, "$.client_default_listener_resource_name_template", c.ClientListenerTemplate)
}

// checkServers adds the mistakes of a list of servers of the object at path.
func checkServers(found *problems, path string, servers []Server, paths []credentialPaths) {
	for i := range servers {
		at := fmt.Sprintf("%s.xds_servers[%d]", path, i)
		where := credentialPaths{channel: at + ".channel_creds"}
		if i < len(paths) {
			where = paths[i]
		}
		servers[i].check(found, at, where)
	}
}

// checkTemplate finds a name of an authority that is not there.
func (c *Config) checkTemplate(found *problems, path, template string) {
	rest, ok := strings.CutPrefix(template, xdstp)
	if !ok {
		return
	}
	rest, ok = strings.CutPrefix(rest, "//")
	authority, _, more := strings.Cut(rest, "/")
	if !ok || !more {
		found.addf(path, "expected \"xdstp://AUTHORITY/TYPE/ID\", found %q", shorten(template))
		return
	}
	if _, ok := c.Authorities[authority]; !ok {
		found.addf(path, "expected an authority of $.authorities, found %q", shorten(authority))
	}
}

// deeperThan reports whether v has more than limit levels of lists and maps.
func deeperThan(v any, limit int) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, inner := range v {
			if limit == 0 || deeperThan(inner, limit-1) {
				return true
			}
		}
	case []any:
		for _, inner := range v {
			if limit == 0 || deeperThan(inner, limit-1) {
				return true
			}
		}
	}
	return false
}
