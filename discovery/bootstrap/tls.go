package bootstrap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/inboardmesh/inboard/internal/regularfile"
)

const pluginFileWatcher = "file_watcher"

// certificateFiles is the configuration that the channel credentials "tls"
// (gRFC A65) and the certificate provider "file_watcher" (gRFC A29) share. The
// certificate and the key are both set or both empty.
type certificateFiles struct {
	certificate string
	privateKey  string
	roots       string
}

// tlsConfig is the configuration of the channel credentials "tls".
type tlsConfig struct {
	certificateFiles
	// instance is the certificate provider instance whose certificate is
	// presented, "" for none. It excludes the certificate and the key.
	instance string
}

const (
	keyInstance = "certificate_provider_instance"
	// keyBundleMap is the file of a SPIFFE bundle map (gRFC A87).
	keyBundleMap = "spiffe_trust_bundle_map_file"
)

// certificateKeys are those that both have.
var certificateKeys = []string{"certificate_file", "private_key_file", "ca_certificate_file", "refresh_interval"}

// parseTLS reads the configuration of "tls".
func parseTLS(found *problems, path string, config json.RawMessage) tlsConfig {
	o, ok := readObject(found, path, config)
	if !ok {
		return tlsConfig{}
	}
	if o.has(keyBundleMap) {
		// A control plane is found by its host name, which an SVID need not have; and
		// whoever has an SVID of the trust domain could stand in for it.
		found.addf(child(path, keyBundleMap), "is not supported here: every workload that the map verifies could be the server: use ca_certificate_file; the map is for $.certificate_providers")
		delete(o.fields, keyBundleMap)
	}
	o.only(append(slices.Clip(certificateKeys), keyInstance)...)
	c := tlsConfig{certificateFiles: o.certificateFiles(), instance: o.text(keyInstance)}
	switch {
	case c.instance != "" && (c.certificate != "" || c.privateKey != ""):
		found.addf(child(path, keyInstance), "expected it, or certificate_file with private_key_file, found both")
	case c.instance == "" && o.has(keyInstance):
		found.addf(child(path, keyInstance), "expected the name of a certificate provider instance, such as \"default\"")
	}
	return c
}

// certificateFiles reads the fields of certificateFiles. A refresh_interval is
// checked and not kept: the files of "tls" are read for each handshake, and
// those of "file_watcher" by the plugin, which reads its configuration itself.
func (o object) certificateFiles() certificateFiles {
	files := certificateFiles{
		certificate: o.text("certificate_file"),
		privateKey:  o.text("private_key_file"),
		roots:       o.text("ca_certificate_file"),
	}
	switch {
	case files.certificate != "" && files.privateKey == "":
		o.found.addf(o.path+".private_key_file", "is required: the key of certificate_file")
	case files.certificate == "" && files.privateKey != "":
		o.found.addf(o.path+".certificate_file", "is required: the certificate of private_key_file")
	}
	if o.has("refresh_interval") && !positiveDuration(o.text("refresh_interval")) {
		o.found.addf(o.path+".refresh_interval", `expected a positive number of seconds such as "600s"`)
	}
	return files
}

// checkFileWatcher adds the mistakes of a "file_watcher" to found.
func checkFileWatcher(found *problems, path string, config json.RawMessage) {
	o, ok := readObject(found, path, config)
	if !ok {
		return
	}
	o.only(append(slices.Clip(certificateKeys), keyBundleMap)...)
	bundles := o.text(keyBundleMap)
	if files := o.certificateFiles(); files.certificate == "" && files.roots == "" && bundles == "" {
		found.addf(path, "expected certificate_file with private_key_file, ca_certificate_file or spiffe_trust_bundle_map_file: at least one")
	}
}

// positiveDuration reports whether s is a positive google.protobuf.Duration in
// its JSON form: decimal seconds with the suffix "s".
func positiveDuration(s string) bool {
	seconds, ok := strings.CutSuffix(s, "s")
	if !ok || strings.Trim(seconds, "0123456789.") != "" {
		return false
	}
	d, err := time.ParseDuration(s)
	return err == nil && d > 0
}

// fileTLS is TLS with roots from a file and a certificate from files or from a
// certificate provider. They are read for each handshake, so a rotated
// certificate, key or root is used at once and nothing has to be watched; a
// handshake happens at most once a second. Each handshake has its own
// configuration: no session is ever resumed, so withdrawn trust is withdrawn.
type fileTLS struct {
	files certificateFiles
	// certificate returns the certificate of now of the certificate provider,
	// or why there is none; nil without a provider.
	certificate func() (*tls.Certificate, error)
}

var _ credentials.TransportCredentials = (*fileTLS)(nil)

// presented are the properties of a connection on which a certificate of a
// certificate provider was presented.
type presented struct{ credentials.TLSInfo }

// ClientHandshake verifies the server for the authority, against the roots of
// the file or, without a file, of the system. A provider that has no
// certificate, or none of those CAs that the server asks for, presents none:
// whether there is another proof is decided by the call credentials, and by the
// server.
func (t *fileTLS) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	config, err := t.config()
	if err != nil {
		return nil, nil, err
	}
	sent := false
	if t.certificate != nil {
		config.GetClientCertificate = func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			certificate, err := t.certificate()
			if err != nil || certificate == nil || len(certificate.Certificate) == 0 || request.SupportsCertificate(certificate) != nil {
				return new(tls.Certificate), nil //nolint:nilerr // a client without a certificate; the server says if it wants one
			}
			sent = true
			return certificate, nil
		}
	}
	secured, info, err := credentials.NewTLS(config).ClientHandshake(ctx, authority, conn)
	if err != nil {
		return nil, nil, err
	}
	if tlsInfo, ok := info.(credentials.TLSInfo); ok && sent {
		info = presented{tlsInfo}
	}
	return secured, info, nil
}

func (t *fileTLS) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if path := t.files.roots; path != "" {
		pem, err := regularfile.Read(path, regularfile.MaxCertificates)
		if err != nil {
			return nil, fmt.Errorf("ca_certificate_file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_certificate_file %q: no PEM certificate in it", path)
		}
	}
	if t.files.certificate != "" {
		chain, err := regularfile.Read(t.files.certificate, regularfile.MaxCertificates)
		if err != nil {
			return nil, fmt.Errorf("certificate_file: %w", err)
		}
		key, err := regularfile.Read(t.files.privateKey, regularfile.MaxCertificates)
		if err != nil {
			return nil, fmt.Errorf("private_key_file: %w", err)
		}
		certificate, err := tls.X509KeyPair(chain, key)
		if err != nil {
			return nil, fmt.Errorf("certificate_file %q with private_key_file %q: %w",
				t.files.certificate, t.files.privateKey, err)
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
