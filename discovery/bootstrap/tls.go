package bootstrap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"
)

const pluginFileWatcher = "file_watcher"

const (
	// defaultRefreshInterval is that of gRFC A29 and A65.
	defaultRefreshInterval = 10 * time.Minute
	// maxCertificateFile bounds a file of certificates or keys.
	maxCertificateFile = 16 << 20
)

// FileWatcher is the configuration of the certificate provider plugin
// "file_watcher" (gRFC A29). The certificate and the key are both set or both
// empty; one of certificate and roots is set.
type FileWatcher struct {
	// CertificateFile holds the PEM certificate chain, PrivateKeyFile its key.
	CertificateFile string
	PrivateKeyFile  string
	// CACertificateFile holds the PEM roots.
	CACertificateFile string
	// RefreshInterval is how often the files are read again, 10 minutes by
	// default.
	RefreshInterval time.Duration
}

// FileWatcher reads the configuration of a "file_watcher" instance.
func (p CertificateProvider) FileWatcher() (FileWatcher, error) {
	if p.Plugin != pluginFileWatcher {
		return FileWatcher{}, fmt.Errorf("certificate provider: expected the plugin %q, found %q", pluginFileWatcher, shorten(p.Plugin))
	}
	var found problems
	files := p.fileWatcher(&found, "$.config")
	return files, found.err()
}

func (p CertificateProvider) fileWatcher(found *problems, path string) FileWatcher {
	files := parseFiles(found, path, p.Config)
	if files.CertificateFile == "" && files.CACertificateFile == "" {
		found.addf(path, "expected certificate_file with private_key_file, or ca_certificate_file, or all three")
	}
	return files
}

// parseFiles reads the configuration that "tls" and "file_watcher" share.
func parseFiles(found *problems, path string, config json.RawMessage) FileWatcher {
	files := FileWatcher{RefreshInterval: defaultRefreshInterval}
	o, ok := readObject(found, path, config)
	if !ok {
		return files
	}
	o.only("certificate_file", "private_key_file", "ca_certificate_file", "refresh_interval")
	files.CertificateFile = o.text("certificate_file")
	files.PrivateKeyFile = o.text("private_key_file")
	files.CACertificateFile = o.text("ca_certificate_file")
	switch {
	case files.CertificateFile != "" && files.PrivateKeyFile == "":
		found.addf(path+".private_key_file", "is required: the key of certificate_file")
	case files.CertificateFile == "" && files.PrivateKeyFile != "":
		found.addf(path+".certificate_file", "is required: the certificate of private_key_file")
	}
	if o.has("refresh_interval") {
		interval, ok := parseDuration(o.text("refresh_interval"))
		if !ok {
			found.addf(path+".refresh_interval", `expected a positive number of seconds such as "600s"`)
			return files
		}
		files.RefreshInterval = interval
	}
	return files
}

// parseDuration reads a positive google.protobuf.Duration in its JSON form:
// decimal seconds with the suffix "s".
func parseDuration(s string) (time.Duration, bool) {
	seconds, ok := strings.CutSuffix(s, "s")
	if !ok || strings.Trim(seconds, "0123456789.") != "" {
		return 0, false
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d > 0
}

// fileTLS is TLS with certificates from files. They are read for each
// handshake, so a rotated certificate, key or root is used at once and nothing
// has to be watched; a handshake happens at most once a second. Each handshake
// has its own configuration: no session is ever resumed, so withdrawn trust is
// withdrawn.
type fileTLS struct{ files FileWatcher }

var _ credentials.TransportCredentials = (*fileTLS)(nil)

// ClientHandshake verifies the server for the authority, against the roots of
// the file or, without a file, of the system.
func (t *fileTLS) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	config, err := t.config()
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(config).ClientHandshake(ctx, authority, conn)
}

func (t *fileTLS) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if path := t.files.CACertificateFile; path != "" {
		pem, err := readFile(path, maxCertificateFile)
		if err != nil {
			return nil, fmt.Errorf("ca_certificate_file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_certificate_file %q: no PEM certificate in it", path)
		}
	}
	if t.files.CertificateFile != "" {
		chain, err := readFile(t.files.CertificateFile, maxCertificateFile)
		if err != nil {
			return nil, fmt.Errorf("certificate_file: %w", err)
		}
		key, err := readFile(t.files.PrivateKeyFile, maxCertificateFile)
		if err != nil {
			return nil, fmt.Errorf("private_key_file: %w", err)
		}
		certificate, err := tls.X509KeyPair(chain, key)
		if err != nil {
			return nil, fmt.Errorf("certificate_file %q with private_key_file %q: %w",
				t.files.CertificateFile, t.files.PrivateKeyFile, err)
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return config, nil
}

// ServerHandshake is not for a client's credentials.
func (t *fileTLS) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("credentials of a bootstrap are for clients")
}

// Info describes the protocol.
func (t *fileTLS) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone returns t, which is immutable.
func (t *fileTLS) Clone() credentials.TransportCredentials { return t }

// OverrideServerName is deprecated by gRPC: a dial option sets the authority.
func (t *fileTLS) OverrideServerName(string) error {
	return errors.New("credentials of a bootstrap take the server's name from server_uri")
}
