package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The bootstrap, in gRPC's format (gRFC A27, A29, A36, A65, A97).
type (
	bootstrapFile struct {
		Servers          []bootstrapServer            `json:"xds_servers"`
		Node             bootstrapNode                `json:"node"`
		Providers        map[string]bootstrapProvider `json:"certificate_providers,omitempty"`
		ListenerTemplate string                       `json:"server_listener_resource_name_template"`
	}
	bootstrapServer struct {
		URI          string                 `json:"server_uri"`
		ChannelCreds []bootstrapCredentials `json:"channel_creds"`
		CallCreds    []bootstrapCredentials `json:"call_creds,omitempty"`
		Features     []string               `json:"server_features"`
		APIType      string                 `json:"api_type,omitempty"`
	}
	bootstrapCredentials struct {
		Type   string            `json:"type"`
		Config map[string]string `json:"config,omitempty"`
	}
	bootstrapProvider struct {
		Plugin string            `json:"plugin_name"`
		Config map[string]string `json:"config"`
	}
	bootstrapNode struct {
		ID       string             `json:"id"`
		Metadata bootstrapMetadata  `json:"metadata"`
		Locality *bootstrapLocality `json:"locality,omitempty"`
	}
	bootstrapMetadata struct {
		Generator      string            `json:"GENERATOR"`
		Namespace      string            `json:"NAMESPACE"`
		ServiceAccount string            `json:"SERVICE_ACCOUNT"`
		ClusterID      string            `json:"CLUSTER_ID,omitempty"`
		Labels         map[string]string `json:"LABELS,omitempty"`
	}
	bootstrapLocality struct {
		Region  string `json:"region,omitempty"`
		Zone    string `json:"zone,omitempty"`
		SubZone string `json:"sub_zone,omitempty"`
	}
)

// inboundTemplate names the listeners of Istio's proxyless servers.
const inboundTemplate = "xds.istio.io/grpc/lds/inbound/%s"

// providerInstance is the workload's own certificate, as Istio's control plane
// calls it.
const providerInstance = "default"

// workload is what the flags of bootstrap say.
type workload struct {
	server, caServer, apiType               string
	plaintext                               bool
	namespace, account, name, ip, clusterID string
	locality                                string
	labels                                  list
	tokenFile, rootFile                     string
	lifetime                                time.Duration
	identity                                identity
	// provider is that of the identity; nil if the CA's service is asked.
	provider *bootstrapProvider
}

func printBootstrap(_ context.Context, call *invocation) error {
	var w workload
	f := call.flags("", `Prints the bootstrap of a workload, in the format of gRPC's xDS. Put it in a
file, and the name of the file in GRPC_XDS_BOOTSTRAP.`)
	f.StringVar(&w.server, "server", "127.0.0.1:15012", "`ADDRESS` of the control plane")
	f.StringVar(&w.caServer, "ca-server", "", "`ADDRESS` of the CA; empty for that of the control plane")
	f.BoolVar(&w.plaintext, "plaintext", false, "the control plane is reached without TLS")
	f.StringVar(&w.apiType, "api-type", "", "`TYPE` of the xDS protocol, DELTA_GRPC or GRPC; empty tries one after the other")
	f.StringVar(&w.namespace, "namespace", "", "the workload's `NAMESPACE` (required)")
	f.StringVar(&w.account, "service-account", "", "the workload's service account `NAME` (required)")
	f.StringVar(&w.name, "name", "", "the `NAME` of this instance in node IDs; empty for the service account and the host name")
	f.StringVar(&w.ip, "ip", "127.0.0.1", "the `ADDRESS` of the workload")
	f.StringVar(&w.clusterID, "cluster-id", "", "the `ID` of the Kubernetes cluster")
	f.StringVar(&w.locality, "locality", "", "where it runs, as `REGION/ZONE/SUBZONE`; the latter two may be left out")
	f.Var(&w.labels, "labels", "labels of the workload as `KEY=VALUE`, with commas between them, by which policies select it; repeatable")
	f.StringVar(&w.tokenFile, "token-file", "", "`FILE` with the workload's token; see inboard token")
	f.StringVar(&w.rootFile, "root-file", "", "`FILE` with the roots of the CA: root-cert.pem in the CA's directory")
	f.DurationVar(&w.lifetime, "certificate-lifetime", 0, "how long certificates should live; 0 leaves it to the client and the CA")
	w.identity.flags(f.FlagSet)
	out := f.String("out", "", "`FILE` to write to; empty prints it")
	if err := f.parse(); err != nil {
		return err
	}
	if err := f.required("server", "namespace", "service-account"); err != nil {
		return err
	}
	file, err := w.bootstrap()
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if *out != "" {
		return writeFile(*out, data, 0o644)
	}
	_, err = call.stdout.Write(data)
	return err
}

func (w *workload) bootstrap() (*bootstrapFile, error) {
	if err := w.complete(); err != nil {
		return nil, err
	}
	node, err := w.node()
	if err != nil {
		return nil, err
	}
	server := bootstrapServer{
		URI:          w.server,
		ChannelCreds: []bootstrapCredentials{{Type: "insecure"}},
		Features:     []string{"xds_v3"},
		APIType:      w.apiType,
	}
	file := &bootstrapFile{Node: *node, ListenerTemplate: inboundTemplate}
	if !w.plaintext {
		server.ChannelCreds = []bootstrapCredentials{{Type: "tls", Config: map[string]string{"ca_certificate_file": w.rootFile}}}
		// The token expires; the certificate of the provider below renews itself.
		server.ChannelCreds[0].Config["certificate_provider_instance"] = providerInstance
		if w.tokenFile != "" {
			server.CallCreds = []bootstrapCredentials{{Type: "jwt_token_file", Config: map[string]string{"jwt_token_file": w.tokenFile}}}
		}
	}
	file.Servers = []bootstrapServer{server}
	if w.provider != nil {
		file.Providers = map[string]bootstrapProvider{providerInstance: *w.provider}
	}
	if w.caServer != "" {
		config := map[string]string{"server_uri": w.caServer, "token_file": w.tokenFile, "root_file": w.rootFile}
		if w.clusterID != "" {
			config["cluster_id"] = w.clusterID
		}
		if w.lifetime > 0 {
			config["certificate_lifetime"] = w.lifetime.String()
		}
		file.Providers = map[string]bootstrapProvider{providerInstance: {Plugin: "istio_ca", Config: config}}
	}
	return file, nil
}

// complete checks the flags together, and makes paths absolute: the workload
// may run elsewhere.
func (w *workload) complete() error {
	switch w.apiType {
	case "", "DELTA_GRPC", "GRPC":
	default:
		return usagef("--api-type %q: want DELTA_GRPC or GRPC", w.apiType)
	}
	if err := w.absolute(); err != nil {
		return err
	}
	var err error
	if w.provider, err = w.identity.provider(w.rootFile); err != nil {
		return err
	}
	if w.provider != nil {
		return w.completeWithoutCA()
	}
	if w.caServer == "" && !w.plaintext {
		w.caServer = w.server
	}
	if w.caServer != "" {
		if w.tokenFile == "" || w.rootFile == "" {
			return usagef("missing --token-file or --root-file: certificates and TLS need both (or use --certificate-file, --workload-api or --sds, or --plaintext without --ca-server)")
		}
	} else if w.tokenFile != "" || w.rootFile != "" || w.lifetime != 0 {
		return usagef("--token-file, --root-file and --certificate-lifetime have no use with --plaintext: give --ca-server")
	}
	if w.lifetime < 0 {
		return usagef("--certificate-lifetime %v: want a positive duration", w.lifetime)
	}
	return nil
}

// completeWithoutCA checks the flags that say how the control plane is reached by
// a workload that has its certificate already.
func (w *workload) completeWithoutCA() error {
	switch {
	case w.caServer != "" || w.lifetime != 0:
		return usagef("--ca-server and --certificate-lifetime have no use with --certificate-file, --workload-api or --sds")
	case w.plaintext && w.tokenFile != "":
		return usagef("--token-file has no use with --plaintext: a token is not sent in the clear")
	case w.plaintext && w.rootFile != "" && (w.identity.certificateFile == "" || w.identity.bundleMapFile != ""):
		return usagef("--root-file has no use with --plaintext: the source of the certificate has roots, too")
	case !w.plaintext && w.rootFile == "":
		return usagef("missing --root-file: it verifies the control plane (or use --plaintext)")
	}
	return nil
}

// absolute makes the paths absolute.
func (w *workload) absolute() error {
	for _, path := range []*string{&w.tokenFile, &w.rootFile, &w.identity.certificateFile, &w.identity.keyFile, &w.identity.bundleMapFile} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	return nil
}

func (w *workload) node() (*bootstrapNode, error) {
	name := w.name
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("host name for the node ID: %w (give --name)", err)
		}
		name = w.account + "-" + host
	}
	labels := make(map[string]string)
	for _, group := range w.labels {
		for pair := range strings.SplitSeq(group, ",") {
			key, value, found := strings.Cut(pair, "=")
			if !found || key == "" {
				return nil, usagef("--labels %q: want KEY=VALUE", pair)
			}
			labels[key] = value
		}
	}
	node := &bootstrapNode{
		ID: fmt.Sprintf("sidecar~%s~%s.%s~%s.svc.cluster.local", w.ip, name, w.namespace, w.namespace),
		Metadata: bootstrapMetadata{
			Generator:      "grpc",
			Namespace:      w.namespace,
			ServiceAccount: w.account,
			ClusterID:      w.clusterID,
			Labels:         labels,
		},
	}
	if w.locality != "" {
		parts, err := localityOf(w.locality)
		if err != nil {
			return nil, err
		}
		node.Locality = &bootstrapLocality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}
	}
	return node, nil
}

// localityOf are region, zone and sub-zone of a flag's value, of which the latter two may
// be "".
func localityOf(value string) ([]string, error) {
	parts := append(strings.Split(value, "/"), "", "")
	if len(parts) > 5 || parts[0] == "" {
		return nil, usagef("--locality %q: want REGION/ZONE/SUBZONE", value)
	}
	return parts, nil
}
