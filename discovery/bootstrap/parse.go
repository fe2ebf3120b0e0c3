package bootstrap

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/inboardmesh/inboard/balancer"
)

// The environment variables of gRPC's bootstrap (gRFC A27).
const (
	envFile    = "GRPC_XDS_BOOTSTRAP"
	envContent = "GRPC_XDS_BOOTSTRAP_CONFIG"
)

// maxSize bounds a bootstrap. Real ones have a few kilobytes.
const maxSize = 4 << 20

// FromEnvironment reads the bootstrap that the environment names: the file at
// GRPC_XDS_BOOTSTRAP or else the content of GRPC_XDS_BOOTSTRAP_CONFIG. It is
// an error if neither is set.
func FromEnvironment() (*Config, error) {
	if path := os.Getenv(envFile); path != "" {
		data, err := readFile(path, maxSize)
		if err != nil {
			return nil, fmt.Errorf("bootstrap of %s: %w", envFile, err)
		}
		c, err := Parse(data)
		if err != nil {
			return nil, fmt.Errorf("file %q: %w", path, err)
		}
		return c, nil
	}
	if content := os.Getenv(envContent); content != "" {
		c, err := Parse([]byte(content))
		if err != nil {
			return nil, fmt.Errorf("environment variable %s: %w", envContent, err)
		}
		return c, nil
	}
	return nil, fmt.Errorf("no bootstrap: set %s to the path of a bootstrap file, or %s to its content", envFile, envContent)
}

// readFile reads a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // G703: reading the file that the environment names is the purpose
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("file %q is larger than %d bytes", path, limit)
	}
	return data, nil
}

// Parse reads a bootstrap of at most 4 MiB. The error lists every mistake with
// its JSON path.
func Parse(data []byte) (*Config, error) {
	if len(data) > maxSize {
		return nil, fmt.Errorf("bootstrap: %d bytes are more than the %d that are allowed", len(data), maxSize)
	}
	var raw json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			line, column := position(data, syntax.Offset)
			return nil, fmt.Errorf("bootstrap: line %d, column %d: %w", line, column, err)
		}
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	var found problems
	checkDuplicates(&found, raw)
	root, ok := readObject(&found, "$", raw)
	if !ok {
		return nil, found.err()
	}
	root.optional("node", "certificate_providers", "authorities",
		"server_listener_resource_name_template", "client_default_listener_resource_name_template")
	c := &Config{
		Node:                   parseNode(root.child("node")),
		CertificateProviders:   parseProviders(root.child("certificate_providers")),
		ServerListenerTemplate: root.text("server_listener_resource_name_template"),
		ClientListenerTemplate: root.text("client_default_listener_resource_name_template"),
	}
	if c.ClientListenerTemplate == "" {
		c.ClientListenerTemplate = "%s"
	}
	servers := root.list("xds_servers")
	if len(servers) == 0 {
		root.missing("xds_servers", "a list with at least one server")
	}
	var paths []credentialPaths
	c.Servers, paths = parseServers(root, servers)
	authorities, ofAuthorities := parseAuthorities(root.child("authorities"))
	c.Authorities = authorities
	c.check(&found, paths, ofAuthorities)
	if err := found.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// parseServers reads the elements of an object's xds_servers.
func parseServers(o object, list []json.RawMessage) (servers []Server, paths []credentialPaths) {
	paths = make([]credentialPaths, len(list))
	for i, data := range list {
		path := fmt.Sprintf("%s.xds_servers[%d]", o.path, i)
		if absent(data) {
			o.found.addf(path, "expected an object, found null")
		}
		server := Server{}
		paths[i].channel = path + ".channel_creds"
		if one, ok := readObject(o.found, path, data); ok {
			server, paths[i] = parseServer(one)
		}
		servers = append(servers, server)
	}
	return servers, paths
}

func parseAuthorities(o object) (authorities map[string]Authority, paths map[string][]credentialPaths) {
	if len(o.fields) == 0 {
		return nil, nil
	}
	authorities = make(map[string]Authority, len(o.fields))
	paths = make(map[string][]credentialPaths, len(o.fields))
	for _, name := range sortedKeys(o.fields) {
		one, ok := readObject(o.found, child(o.path, name), o.fields[name])
		if !ok {
			continue
		}
		one.optional("xds_servers", "client_listener_resource_name_template")
		a := Authority{ClientListenerTemplate: one.text("client_listener_resource_name_template")}
		a.Servers, paths[name] = parseServers(one, one.list("xds_servers"))
		authorities[name] = a
	}
	return authorities, paths
}

func parseNode(o object) Node {
	o.optional("id", "cluster", "locality", "metadata")
	locality := o.child("locality")
	locality.optional("region", "zone", "sub_zone")
	node := Node{
		ID:      o.text("id"),
		Cluster: o.text("cluster"),
		Locality: balancer.Locality{
			Region:  locality.text("region"),
			Zone:    locality.text("zone"),
			SubZone: locality.text("sub_zone"),
		},
	}
	if metadata := o.config("metadata"); metadata != nil {
		if err := json.Unmarshal(metadata, &node.Metadata); err != nil {
			o.found.addf(child(o.path, "metadata"), "%s", text(err))
		}
	}
	return node
}

func parseProviders(o object) map[string]CertificateProvider {
	if len(o.fields) == 0 {
		return nil
	}
	providers := make(map[string]CertificateProvider, len(o.fields))
	for _, name := range sortedKeys(o.fields) {
		if provider := o.child(name); len(provider.fields) > 0 || absent(o.fields[name]) {
			provider.optional("config")
			providers[name] = CertificateProvider{
				Plugin: provider.required("plugin_name", `"file_watcher", or another certificate provider plugin`),
				Config: provider.config("config"),
			}
		}
	}
	return providers
}

// parseServer reads one element of xds_servers.
func parseServer(o object) (s Server, where credentialPaths) {
	o.optional("server_features", "api_type", "call_creds")
	s = Server{
		URI:      o.required("server_uri", wantURI),
		Features: o.texts("server_features"),
	}
	switch name := o.text("api_type"); name {
	case "":
	case "DELTA_GRPC":
		s.API = APIDelta
	case "GRPC":
		s.API = APISotW
	default:
		o.found.addf(child(o.path, "api_type"), "expected \"DELTA_GRPC\", \"GRPC\" or nothing, found %q", shorten(name))
	}

	list := child(o.path, "channel_creds")
	where.channel = list
	entries := o.list("channel_creds")
	if len(entries) == 0 {
		o.missing("channel_creds", "a list with at least one of "+channelTypes)
	}
	var unsupported []string
	for i, data := range entries {
		creds := parseCredentials(o.found, fmt.Sprintf("%s[%d]", list, i), data, channelTypes)
		switch {
		case creds.Type == "", s.ChannelCreds.Type != "":
		case !supportsChannel(creds.Type):
			unsupported = append(unsupported, fmt.Sprintf("%q", shorten(creds.Type)))
		default:
			s.ChannelCreds = creds
			where.channel = fmt.Sprintf("%s[%d]", list, i)
		}
	}
	if s.ChannelCreds.Type == "" && len(unsupported) > 0 {
		o.found.addf(list, "expected one of %s, found only %s", channelTypes, listOf(unsupported))
	}

	// gRFC A97: all supported types are used, the others are ignored.
	list = child(o.path, "call_creds")
	for i, data := range o.list("call_creds") {
		path := fmt.Sprintf("%s[%d]", list, i)
		if creds := parseCredentials(o.found, path, data, callTypes); supportsCall(creds.Type) {
			s.CallCreds = append(s.CallCreds, creds)
			where.call = append(where.call, path)
		}
	}
	return s, where
}

// parseCredentials reads one element of channel_creds or call_creds. The type
// is "" if a mistake was noted.
func parseCredentials(found *problems, path string, data json.RawMessage, types string) Credentials {
	o, ok := readObject(found, path, data)
	if !ok {
		return Credentials{}
	}
	o.optional("config")
	return Credentials{Type: o.required("type", "one of "+types), Config: o.config("config")}
}

// listOf joins quoted names, the first few of many.
func listOf(quoted []string) string {
	const limit = 8
	s := ""
	for i, q := range quoted {
		if i == limit {
			return fmt.Sprintf("%s and %d more", s, len(quoted)-limit)
		}
		if i > 0 {
			s += ", "
		}
		s += q
	}
	return s
}
