package filesource

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/inboardmesh/inboard/internal/strictjson"
	"github.com/inboardmesh/inboard/observe"
)

// DefaultRefreshInterval is the default of gRFC A29.
const DefaultRefreshInterval = 600 * time.Second

// Config says which files to read. The fields with a JSON name are read by
// [ParseConfig]; the others are for programs.
type Config struct {
	// CertificateFile (certificate_file) is the chain in PEM, leaf first, and
	// PrivateKeyFile (private_key_file) its key. Both or neither; neither gives
	// a source that only verifies peers.
	CertificateFile string
	PrivateKeyFile  string
	// CACertificateFile (ca_certificate_file) is the roots in PEM. "" gives a
	// source that only presents a certificate: it verifies no peer.
	CACertificateFile string
	// BundleMapFile (spiffe_trust_bundle_map_file) is a SPIFFE bundle map: in JSON, the
	// roots of each trust domain, which verify its members and nobody else (gRFC A87). It
	// takes the place of CACertificateFile, which is then not read, not even while there
	// is no good map: a peer whose trust domain is not in it, or whose certificate has no
	// SPIFFE ID, is refused, and an empty map verifies nobody. "" is no map.
	BundleMapFile string
	// RefreshInterval (refresh_interval, such as "600s") is the time between
	// readings. 0 means DefaultRefreshInterval.
	RefreshInterval time.Duration

	// Name names the source in events, e.g. the provider's instance name.
	Name string
	// OnChange is told of every change of the material, of every new reason why
	// a reading failed and of the expiry. It runs on the source's goroutine,
	// one call at a time, and must not close the source. nil tells nobody.
	OnChange func(observe.CertificateEvent)
}

// ParseConfig reads the configuration of the plugin "file_watcher" (gRFC A29):
//
//	{
//	  "certificate_file": "/certs/cert.pem",
//	  "private_key_file": "/certs/key.pem",
//	  "ca_certificate_file": "/certs/root.pem",
//	  "refresh_interval": "600s"
//	}
//
// In the place of "ca_certificate_file", or beside it and preferred to it, it may have
// "spiffe_trust_bundle_map_file" (gRFC A87). The interval is a duration in protobuf's JSON
// form: seconds. Every mistake is reported, with the field's name; a field that is not
// known is a mistake.
func ParseConfig(data []byte) (Config, error) {
	var raw struct {
		CertificateFile   string `json:"certificate_file"`
		PrivateKeyFile    string `json:"private_key_file"`
		CACertificateFile string `json:"ca_certificate_file"`
		BundleMapFile     string `json:"spiffe_trust_bundle_map_file"`
		RefreshInterval   string `json:"refresh_interval"`
	}
	if err := strictjson.Decode(data, &raw); err != nil {
		return Config{}, fmt.Errorf("file_watcher: %w", err)
	}
	config := Config{
		CertificateFile:   raw.CertificateFile,
		PrivateKeyFile:    raw.PrivateKeyFile,
		CACertificateFile: raw.CACertificateFile,
		BundleMapFile:     raw.BundleMapFile,
	}
	var intervalErr error
	if raw.RefreshInterval != "" {
		config.RefreshInterval, intervalErr = parseSeconds(raw.RefreshInterval)
		if intervalErr != nil {
			intervalErr = fmt.Errorf("file_watcher: refresh_interval: %w", intervalErr)
		}
	}
	return config, errors.Join(config.validate(), intervalErr)
}

// parseSeconds is stricter than time.ParseDuration: other readers of the same
// bootstrap file refuse "10m".
func parseSeconds(text string) (time.Duration, error) {
	seconds, ok := strings.CutSuffix(text, "s")
	d, err := time.ParseDuration(text)
	if !ok || strings.Trim(seconds, "0123456789.") != "" || err != nil {
		return 0, fmt.Errorf("%q: want seconds such as %q", text, "600s")
	}
	if d <= 0 {
		return 0, fmt.Errorf("%q: must be positive", text)
	}
	return d, nil
}

func (c *Config) validate() error {
	var problems []error
	switch {
	case c.CertificateFile != "" && c.PrivateKeyFile == "":
		problems = append(problems, errors.New("file_watcher: private_key_file: is required with certificate_file"))
	case c.CertificateFile == "" && c.PrivateKeyFile != "":
		problems = append(problems, errors.New("file_watcher: certificate_file: is required with private_key_file"))
	case c.CertificateFile == "" && c.CACertificateFile == "" && c.BundleMapFile == "":
		problems = append(problems, errors.New("file_watcher: certificate_file with private_key_file, ca_certificate_file or spiffe_trust_bundle_map_file: one is required"))
	}
	if c.RefreshInterval < 0 {
		problems = append(problems, fmt.Errorf("file_watcher: refresh_interval: %s: must be positive", c.RefreshInterval))
	}
	return errors.Join(problems...)
}
