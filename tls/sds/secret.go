package sds

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
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const secretURL = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// material is what one secret holds: a certificate with its key, or roots.
type material struct {
	certificate tls.Certificate
	roots       []*x509.Certificate
}

// decodeSecret finds the secret of a name in a response. ok is false if it is not
// there, which changes nothing.
func decodeSecret(response *discoveryv3.DiscoveryResponse, name string, roots bool) (m material, ok bool, err error) {
	if response.GetTypeUrl() != secretURL {
		return m, false, fmt.Errorf("a response of type %q", response.GetTypeUrl())
	}
	for i, resource := range response.GetResources() {
		secret := new(tlsv3.Secret)
		if resource.GetTypeUrl() != secretURL || proto.Unmarshal(resource.GetValue(), secret) != nil {
			return m, false, fmt.Errorf("resource %d is not a secret", i) // the cause could quote it
		}
		if secret.GetName() != name {
			continue
		}
		if roots {
			m.roots, err = rootsOf(secret)
		} else {
			m.certificate, err = certificateOf(secret)
		}
		return m, err == nil, err
	}
	return m, false, nil
}

func certificateOf(secret *tlsv3.Secret) (tls.Certificate, error) {
	holds := secret.GetTlsCertificate()
	if holds == nil {
		return tls.Certificate{}, errors.New("tls_certificate: must be set")
	}
	chain, err := inline("tls_certificate.certificate_chain", holds.GetCertificateChain())
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := inline("tls_certificate.private_key", holds.GetPrivateKey())
	if err != nil {
		return tls.Certificate{}, err
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

func rootsOf(secret *tlsv3.Secret) ([]*x509.Certificate, error) {
	holds := secret.GetValidationContext()
	if holds == nil {
		return nil, errors.New("validation_context: must be set")
	}
	text, err := inline("validation_context.trusted_ca", holds.GetTrustedCa())
	if err != nil {
		return nil, err
	}
	rest := proto.CloneOf(holds)
	rest.TrustedCa = nil
	if err := nothingElse("validation_context", rest); err != nil {
		return nil, err
	}
	return parseRoots(text)
}

// inline is what a data source holds. A file or a variable of the environment is
// nothing that a server may name (V59).
func inline(field string, source *corev3.DataSource) ([]byte, error) {
	switch s := source.GetSpecifier().(type) {
	case *corev3.DataSource_InlineBytes:
		return s.InlineBytes, nil
	case *corev3.DataSource_InlineString:
		return []byte(s.InlineString), nil
	case nil:
		return nil, fmt.Errorf("%s: must be set", field)
	}
	return nil, fmt.Errorf("%s: must be inline_bytes or inline_string: files and the environment are not read", field)
}

// nothingElse refuses a message that says more than was read.
func nothingElse(field string, rest proto.Message) error {
	var errs []error
	for _, name := range fieldsOf(rest) {
		errs = append(errs, fmt.Errorf("%s.%s: not supported", field, name))
	}
	return errors.Join(errs...)
}

func parseRoots(text []byte) ([]*x509.Certificate, error) {
	var roots []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("validation_context.trusted_ca: holds something else than certificates")
		}
		root, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("validation_context.trusted_ca: certificate %d: %w", len(roots)+1, err)
		}
		roots, text = append(roots, root), rest
	}
	if len(bytes.TrimSpace(text)) > 0 || len(roots) == 0 {
		return nil, errors.New("validation_context.trusted_ca: is not certificates in PEM")
	}
	return roots, nil
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
