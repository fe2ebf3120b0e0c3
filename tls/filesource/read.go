package filesource

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/inboardmesh/inboard/internal/bundlemap"
	"github.com/inboardmesh/inboard/internal/regularfile"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// material is the last good reading of each part.
type material struct {
	cert  tls.Certificate
	trust trust
}

// trust is whom the material verifies: everybody whom the roots do, or with bundles the
// members of each trust domain by the roots of its own. It is the zero value before the
// first good reading.
type trust struct {
	roots   []*x509.Certificate
	bundles map[string][]*x509.Certificate
}

// contents is what the files hold at one time, or why they cannot be read.
// What is not configured is nil.
type contents struct {
	cert, key         []byte
	trust             []byte
	certErr, trustErr error
}

func (c *contents) equal(d *contents) bool {
	return bytes.Equal(c.cert, d.cert) && bytes.Equal(c.key, d.key) && bytes.Equal(c.trust, d.trust)
}

// read returns the files' contents as of one time. Files have no transactions:
// two readings that agree stand for one.
func (c *Config) read() (*contents, error) {
	previous := c.readOnce()
	for range 3 {
		again := c.readOnce()
		if again.equal(previous) {
			return again, nil
		}
		previous = again
	}
	return nil, errors.New("the files change while they are read")
}

func (c *Config) readOnce() *contents {
	var now contents
	field, path, _ := c.trustFile()
	read := func(field, path string, err *error) []byte {
		if path == "" || *err != nil {
			return nil
		}
		text, readErr := regularfile.Read(path, regularfile.MaxCertificates)
		if readErr != nil {
			*err = fmt.Errorf("%s: %w", field, readErr)
		}
		return text
	}
	now.cert = read("certificate_file", c.CertificateFile, &now.certErr)
	now.key = read("private_key_file", c.PrivateKeyFile, &now.certErr)
	now.trust = read(field, path, &now.trustErr)
	return &now
}

// update returns old with every part replaced that could be read, and why the
// others could not.
func (c *Config) update(old material, now time.Time) (material, error) {
	text, err := c.read()
	if err != nil {
		return old, err
	}
	certErr, trustErr := text.certErr, text.trustErr
	if c.CertificateFile != "" && certErr == nil {
		var cert tls.Certificate
		if cert, certErr = parsePair(text.cert, text.key, now); certErr == nil {
			old.cert = cert
		} else {
			certErr = fmt.Errorf("certificate_file %q with private_key_file %q: %w", c.CertificateFile, c.PrivateKeyFile, certErr)
		}
	}
	if field, path, parse := c.trustFile(); path != "" && trustErr == nil {
		var verified trust
		if verified, trustErr = parse(text.trust); trustErr == nil {
			old.trust = verified
		} else {
			trustErr = fmt.Errorf("%s %q: %w", field, path, trustErr)
		}
	}
	return old, errors.Join(certErr, trustErr)
}

// trustFile is the one file that says whom to trust, and how it is read; "" is none. A
// bundle map is preferred to roots, which would verify members of every trust domain:
// they are not looked at, whatever becomes of the map (gRFC A87).
func (c *Config) trustFile() (field, path string, parse func([]byte) (trust, error)) {
	if c.BundleMapFile != "" {
		return "spiffe_trust_bundle_map_file", c.BundleMapFile, func(text []byte) (t trust, err error) {
			t.bundles, err = bundlemap.Parse(text)
			return t, err
		}
	}
	return "ca_certificate_file", c.CACertificateFile, func(text []byte) (t trust, err error) {
		t.roots, err = parseRoots(text)
		return t, err
	}
}

// identity returns what m amounts to, nil if a configured part was never good.
func (c *Config) identity(m material) (*meshtls.Identity, error) {
	_, path, _ := c.trustFile()
	switch {
	case c.CertificateFile != "" && len(m.cert.Certificate) == 0, path != "" && m.trust.roots == nil && m.trust.bundles == nil:
		return nil, nil
	case c.CertificateFile == "" && m.trust.bundles != nil:
		return meshtls.NewBundles(m.trust.bundles)
	case c.CertificateFile == "":
		return meshtls.NewRoots(m.trust.roots)
	}
	identity, err := meshtls.NewIdentity(m.cert, m.trust.roots)
	if err != nil || m.trust.bundles == nil {
		return identity, err
	}
	return identity.WithBundles(m.trust.bundles), nil
}

func parsePair(certPEM, keyPEM []byte, now time.Time) (tls.Certificate, error) {
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, err
	}
	identity, err := meshtls.NewIdentity(cert, nil)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf := identity.Certificate.Leaf
	switch {
	case now.Before(leaf.NotBefore):
		return tls.Certificate{}, fmt.Errorf("certificate of %q is not valid before %s", identity.ID, leaf.NotBefore.Format(time.RFC3339))
	case now.After(leaf.NotAfter):
		return tls.Certificate{}, fmt.Errorf("certificate of %q expired at %s", identity.ID, leaf.NotAfter.Format(time.RFC3339))
	}
	return cert, nil
}

// parseRoots reads PEM; text between the blocks is a comment, as in the bundles
// of operating systems.
func parseRoots(text []byte) ([]*x509.Certificate, error) {
	var roots []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block of type %q: want CERTIFICATE", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		roots, text = append(roots, cert), rest
	}
	if len(roots) == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	// Half a file ends in half a block.
	if bytes.Contains(text, []byte("-----BEGIN")) {
		return nil, errors.New("the last PEM block is not complete")
	}
	return roots, nil
}
