package mesh

import (
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
)

// exposed are the permissions that a file with a private key should not give: to
// everybody, and to its group more than to read it, which Kubernetes needs for volumes
// of processes that are not root.
const exposed fs.FileMode = 0o027

// warnOfKeys logs which private keys of the bootstrap others may read or change. It is
// no error: the files are the platform's as often as not.
func (s *settings) warnOfKeys() {
	if runtime.GOOS == "windows" {
		return // where the mode says nothing of who may read
	}
	for _, path := range s.keyFiles() {
		info, err := os.Stat(path)
		if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&exposed != 0 { // or who reads it will say so
			s.logger.Warn("others may read or change a private key: let its file have mode 0600, or 0640", "file", path, "mode", info.Mode().Perm().String())
		}
	}
}

// keyFiles are the files with private keys that the bootstrap names, sorted.
func (s *settings) keyFiles() []string {
	found := make(map[string]bool)
	add := func(config json.RawMessage) {
		var files struct {
			Key string `json:"private_key_file"`
		}
		if json.Unmarshal(config, &files) == nil && files.Key != "" {
			found[files.Key] = true
		}
	}
	for name, provider := range s.bootstrap.CertificateProviders {
		if s.identities[name] == nil {
			add(provider.Config)
		}
	}
	servers := func(list []bootstrap.Server) {
		for i := range list {
			add(list[i].ChannelCreds.Config)
		}
	}
	servers(s.bootstrap.Servers)
	for _, authority := range s.bootstrap.Authorities {
		servers(authority.Servers)
	}
	return slices.Sorted(maps.Keys(found))
}
