package meshtls

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// NameType is the type of a subject alternative name that is not a URI.
type NameType uint8

// The types of names.
const (
	DNSName NameType = iota + 1
	EmailName
	IPName
	OtherName
)

// NameMatcher matches one type of subject alternative names, and never those of
// another.
type NameMatcher struct {
	Type NameType
	// OID is the type of an OtherName, "1.3.6.1.4.1.311.20.2.3" for example.
	OID string
	// Exact is the name itself: a DNS name is compared without regard to case,
	// and a wildcard in the certificate stands for its first label. "" leaves it
	// to Match, for which a wildcard is a star like any other character.
	Exact string
	Match func(name string) bool
}

// AuthorizeNames allows a peer whose certificate has a URI that one of uris
// matches, or a name that one of names matches. It is for peers outside the
// mesh, which have no SPIFFE ID; see [ClientParams.Outside]. Without any matcher
// it allows nobody.
func AuthorizeNames(uris []SANMatcher, names []NameMatcher) Authorizer {
	uris, names = slices.Clone(uris), slices.Clone(names)
	return func(_ ID, cert *x509.Certificate) error {
		for _, uri := range cert.URIs {
			if text := uri.String(); wellFormed(text) && slices.ContainsFunc(uris, func(match SANMatcher) bool { return match(text) }) {
				return nil
			}
		}
		for i := range names {
			if slices.ContainsFunc(namesOf(cert, &names[i]), names[i].matches) {
				return nil
			}
		}
		return fmt.Errorf("no subject alternative name matches any of the %d allowed", len(uris)+len(names))
	}
}

// namesOf are the names of a certificate of the type that m is for.
func namesOf(cert *x509.Certificate, m *NameMatcher) []string {
	switch m.Type {
	case DNSName:
		return cert.DNSNames
	case EmailName:
		return cert.EmailAddresses
	case IPName:
		all := make([]string, 0, len(cert.IPAddresses))
		for _, ip := range cert.IPAddresses {
			all = append(all, ip.String())
		}
		return all
	case OtherName:
		return otherNames(cert, m.OID)
	}
	return nil
}

func (m *NameMatcher) matches(name string) bool {
	switch {
	case !wellFormed(name):
		return false
	case m.Exact == "":
		return m.Match != nil && m.Match(name)
	case m.Type != DNSName:
		return name == m.Exact
	case strings.EqualFold(name, m.Exact):
		return true
	}
	// "*.shop.example" is "a.shop.example", and neither "a.b.shop.example" nor
	// "shop.example" (RFC 6125, section 6.4.3).
	suffix, wildcard := strings.CutPrefix(name, "*")
	label, rest, ok := strings.Cut(m.Exact, ".")
	return wildcard && ok && label != "" && strings.Count(suffix, ".") >= 2 && strings.EqualFold(suffix, "."+rest)
}

// wellFormed refuses names with characters that end them for some readers (row
// V20): NUL, and whatever is not printable.
func wellFormed(name string) bool {
	for i := range len(name) {
		if name[i] < ' ' || name[i] == 0x7f {
			return false
		}
	}
	return name != ""
}

// otherNames reads the names of the type otherName, of which crypto/x509 makes
// nothing (RFC 5280, section 4.2.1.6).
func otherNames(cert *x509.Certificate, oid string) []string {
	var names []string
	for _, extension := range cert.Extensions {
		if !extension.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		var list asn1.RawValue
		if rest, err := asn1.Unmarshal(extension.Value, &list); err != nil || len(rest) > 0 || list.Tag != asn1.TagSequence {
			return nil
		}
		for rest := list.Bytes; len(rest) > 0; {
			var name asn1.RawValue
			var err error
			if rest, err = asn1.Unmarshal(rest, &name); err != nil {
				return nil
			}
			if name.Class != asn1.ClassContextSpecific || name.Tag != 0 {
				continue
			}
			if text, err := otherName(name.Bytes, oid); err == nil {
				names = append(names, text)
			}
		}
	}
	return names
}

var errOtherType = errors.New("an other name of another type")

// otherName is the text of a name of the given type.
func otherName(der []byte, oid string) (string, error) {
	var id asn1.ObjectIdentifier
	rest, err := asn1.Unmarshal(der, &id)
	if err != nil {
		return "", err
	}
	if id.String() != oid {
		return "", errOtherType
	}
	var explicit, value asn1.RawValue
	if rest, err = asn1.Unmarshal(rest, &explicit); err != nil || len(rest) > 0 {
		return "", errors.Join(err, errOtherType)
	}
	if rest, err = asn1.Unmarshal(explicit.Bytes, &value); err != nil || len(rest) > 0 {
		return "", errors.Join(err, errOtherType)
	}
	switch value.Tag {
	case asn1.TagUTF8String, asn1.TagIA5String, asn1.TagPrintableString:
		return string(value.Bytes), nil
	}
	return "", errOtherType
}
