// Package secret reads the secrets of Envoy's secret discovery service: a
// certificate with its key, or what verifies peers. It is read whole or not at all,
// and no error holds what a secret holds.
package secret

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/inboardmesh/inboard/tls/meshtls"
)

// URL is the type of secrets.
const URL = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// Secret is what a secret holds. Certificate is empty, or Roots is nil.
type Secret struct {
	Name        string
	Certificate tls.Certificate
	Roots       []*x509.Certificate
	// Revocation withdraws what Roots verify; nil withdraws nothing.
	Revocation *meshtls.Revocation
}

// Parse reads a secret. The name is returned beside an error, too, if there is one.
func Parse(value []byte) (name string, s *Secret, err error) {
	m := new(tlsv3.Secret)
	if proto.Unmarshal(value, m) != nil { // the cause could quote it
		return "", nil, errors.New("not a valid envoy.extensions.transport_sockets.tls.v3.Secret")
	}
	if m.GetName() == "" {
		return "", nil, errors.New("name: must not be empty")
	}
	s = &Secret{Name: m.GetName()}
	switch holds := m.GetType().(type) {
	case *tlsv3.Secret_TlsCertificate:
		s.Certificate, err = certificate(holds.TlsCertificate)
	case *tlsv3.Secret_ValidationContext:
		err = s.validation(holds.ValidationContext)
	case nil:
		err = errors.New("must have a tls_certificate or a validation_context")
	default:
		err = errors.New("must be a tls_certificate or a validation_context: other kinds of secrets are not supported")
	}
	if err == nil && len(m.ProtoReflect().GetUnknown()) > 0 {
		err = errors.New("a field that is not known: not supported")
	}
	if err != nil {
		return m.GetName(), nil, err
	}
	return m.GetName(), s, nil
}

func certificate(holds *tlsv3.TlsCertificate) (tls.Certificate, error) {
	chain, err := Inline(holds.GetCertificateChain())
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tls_certificate.certificate_chain: %w", err)
	}
	key, err := Inline(holds.GetPrivateKey())
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tls_certificate.private_key: %w", err)
	}
	rest := proto.CloneOf(holds)
	rest.CertificateChain, rest.PrivateKey = nil, nil
	if err := nothingElse("tls_certificate", rest); err != nil {
		return tls.Certificate{}, err
	}
	certificate, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tls_certificate: %w", err)
	}
	return certificate, nil
}

func (s *Secret) validation(holds *tlsv3.CertificateValidationContext) error {
	text, err := Inline(holds.GetTrustedCa())
	if err != nil {
		return fmt.Errorf("validation_context.trusted_ca: %w", err)
	}
	rest := proto.CloneOf(holds)
	rest.TrustedCa, rest.Crl, rest.OnlyVerifyLeafCertCrl = nil, nil, false
	if err := nothingElse("validation_context", rest); err != nil {
		return err
	}
	if s.Roots, err = Roots(text); err != nil {
		return fmt.Errorf("validation_context.trusted_ca: %w", err)
	}
	if s.Revocation, err = Revocation(holds.GetCrl(), holds.GetOnlyVerifyLeafCertCrl()); err != nil {
		return fmt.Errorf("validation_context.crl: %w", err)
	}
	return nil
}

// Inline is what a data source holds. A file or a variable of the environment is
// nothing that a server may name (row V59).
func Inline(source *corev3.DataSource) ([]byte, error) {
	switch s := source.GetSpecifier().(type) {
	case *corev3.DataSource_InlineBytes:
		return s.InlineBytes, nil
	case *corev3.DataSource_InlineString:
		return []byte(s.InlineString), nil
	case nil:
		return nil, errors.New("must be set")
	}
	return nil, errors.New("must be inline_bytes or inline_string: files and the environment are not read")
}

// Roots reads certificates in PEM, and nothing else.
func Roots(text []byte) ([]*x509.Certificate, error) {
	blocks, err := blocks(text, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	roots := make([]*x509.Certificate, 0, len(blocks))
	for i, der := range blocks {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i+1, err)
		}
		roots = append(roots, root)
	}
	return roots, nil
}

// Revocation reads revocation lists in PEM; a nil source has none. The result is nil
// if it says nothing.
func Revocation(source *corev3.DataSource, leafOnly bool) (*meshtls.Revocation, error) {
	if source == nil {
		if !leafOnly {
			return nil, nil
		}
		return meshtls.NewRevocation(nil, leafOnly)
	}
	text, err := Inline(source)
	if err != nil {
		return nil, err
	}
	blocks, err := blocks(text, "X509 CRL")
	if err != nil {
		return nil, err
	}
	lists := make([]*x509.RevocationList, 0, len(blocks))
	for i, der := range blocks {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("list %d: %w", i+1, err)
		}
		lists = append(lists, list)
	}
	return meshtls.NewRevocation(lists, leafOnly)
}

// blocks are those of a text in PEM, which are all of one kind, at least one.
func blocks(text []byte, kind string) ([][]byte, error) {
	var found [][]byte
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != kind {
			return nil, fmt.Errorf("holds something else than %s", kind)
		}
		found, text = append(found, block.Bytes), rest
	}
	if len(bytes.TrimSpace(text)) > 0 || len(found) == 0 {
		return nil, fmt.Errorf("is not %s in PEM", kind)
	}
	return found, nil
}

// nothingElse refuses a message that says more than was read.
func nothingElse(field string, rest proto.Message) error {
	var errs []error
	for _, name := range fieldsOf(rest) {
		errs = append(errs, fmt.Errorf("%s.%s: not supported", field, name))
	}
	return errors.Join(errs...)
}

// fieldsOf are the names of the populated fields of a message, sorted.
func fieldsOf(m proto.Message) []string {
	var names []string
	m.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		names = append(names, string(fd.Name()))
		return true
	})
	if len(m.ProtoReflect().GetUnknown()) > 0 {
		names = append(names, "(a field that is not known)")
	}
	slices.Sort(names)
	return names
}
