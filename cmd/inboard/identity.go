package main

import (
	"encoding/json"
	"flag"

	"github.com/inboardmesh/inboard/tls/sds"
	"github.com/inboardmesh/inboard/tls/spiffe"
)

// identity says where a workload has its certificate from, if not from the CA's
// service: one of three sources that need no token.
type identity struct {
	certificateFile, keyFile, bundleMapFile string
	workloadAPI, sds                        string
}

func (i *identity) flags(f *flag.FlagSet) {
	f.StringVar(&i.certificateFile, "certificate-file", "", "`FILE` with the workload's certificate chain, which somebody else renews, instead of a token; with --key-file and --root-file")
	f.StringVar(&i.keyFile, "key-file", "", "`FILE` with the private key of --certificate-file")
	f.StringVar(&i.bundleMapFile, "bundle-map-file", "", "`FILE` with a SPIFFE bundle map, by which peers are verified in the place of --root-file: the members of each trust domain by its own roots; with --certificate-file")
	f.StringVar(&i.workloadAPI, "workload-api", "", "`SOCKET` of a SPIFFE Workload API, such as unix:///run/spire/sockets/agent.sock, to get the certificate from instead of by a token")
	f.StringVar(&i.sds, "sds", "", "`SOCKET` of an agent's secret discovery service, such as unix:///var/run/secrets/workload-spiffe-uds/socket, to get the certificate from instead of by a token")
}

// provider returns the certificate provider of the source, nil if none is given.
func (i *identity) provider(rootFile string) (*bootstrapProvider, error) {
	var found []*bootstrapProvider
	if i.certificateFile != "" || i.keyFile != "" {
		if i.certificateFile == "" || i.keyFile == "" || rootFile == "" && i.bundleMapFile == "" {
			return nil, usagef("--certificate-file, --key-file and --root-file: give all three: a certificate needs its key, and peers are verified by the roots (or by --bundle-map-file)")
		}
		p := &bootstrapProvider{Plugin: "file_watcher", Config: map[string]string{
			"certificate_file": i.certificateFile, "private_key_file": i.keyFile,
		}}
		if i.bundleMapFile != "" {
			// Alone: who does not know the map would trust more by the roots.
			p.Config["spiffe_trust_bundle_map_file"] = i.bundleMapFile
		} else {
			p.Config["ca_certificate_file"] = rootFile
		}
		found = append(found, p)
	} else if i.bundleMapFile != "" {
		return nil, usagef("--bundle-map-file: give --certificate-file and --key-file, too: other sources of a certificate bring the roots of peers along")
	}
	for _, socket := range []struct {
		flag, address, plugin string
		check                 func([]byte) error
	}{
		{"--workload-api", i.workloadAPI, "spiffe_workload_api", checked(spiffe.ParseConfig)},
		{"--sds", i.sds, "sds", checked(sds.ParseConfig)},
	} {
		if socket.address == "" {
			continue
		}
		p := &bootstrapProvider{Plugin: socket.plugin, Config: map[string]string{"socket": socket.address}}
		data, err := json.Marshal(p.Config)
		if err != nil {
			return nil, err
		}
		if err := socket.check(data); err != nil {
			return nil, usagef("%s: %v", socket.flag, err)
		}
		found = append(found, p)
	}
	switch len(found) {
	case 0:
		return nil, nil //nolint:nilnil // none is given
	case 1:
		return found[0], nil
	}
	return nil, usagef("--certificate-file, --workload-api and --sds: give one of them: a workload has its certificate from one source")
}

// checked is a parser of which only the error counts.
func checked[C any](parse func([]byte) (C, error)) func([]byte) error {
	return func(data []byte) error {
		_, err := parse(data)
		return err
	}
}
