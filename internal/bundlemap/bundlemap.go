// Package bundlemap reads SPIFFE bundle maps: whose roots verify the members of which
// trust domain. All sources of one are read by it, a file (gRFC A87) and the control
// plane's alike.
package bundlemap

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Parse reads a map: a JSON object "trust_domains" with the bundle of each, whose keys
// of the use x509-svid are its roots. A map without bundles is one that trusts nobody
// (gRFC A87), and a bundle without such keys one whose trust domain is not trusted any
// more (SPIFFE Trust Domain and Bundle, 4.1.3): both withdraw what was trusted before,
// which a refusal would leave in force. A text that does not say which bundles there
// are is no map.
//
// A mistake in one bundle is one of the map, so that it is read whole or not at all
// (gRFC A87). So are names that are given twice, of which readers differ in what they
// take, and roots that may not issue certificates. A bundle's spiffe_sequence must be a
// number, and is compared with nothing: whoever writes the map may go back to an older
// bundle.
func Parse(text []byte) (map[string][]*x509.Certificate, error) {
	var whole json.RawMessage
	if err := json.Unmarshal(text, &whole); err != nil {
		return nil, err
	}
	document, err := members(whole)
	if err != nil {
		return nil, err
	}
	listed := document["trust_domains"]
	switch {
	case len(listed) > 0 && string(listed) != "null":
	case document["keys"] != nil:
		return nil, errors.New(`has no trust_domains: it is the bundle of one: want {"trust_domains": {"NAME": BUNDLE}}`)
	default:
		return nil, errors.New("has no trust_domains")
	}
	domains, err := members(listed)
	if err != nil {
		return nil, fmt.Errorf("trust_domains: %w", err)
	}
	bundles := make(map[string][]*x509.Certificate, len(domains))
	for _, name := range slices.Sorted(maps.Keys(domains)) {
		domain, err := TrustDomain(name)
		if err != nil {
			return nil, err
		}
		if bundles[name], err = authorities(domain, domains[name]); err != nil {
			return nil, fmt.Errorf("trust domain %q: %w", name, err)
		}
	}
	return bundles, nil
}

// TrustDomain reads the name of a trust domain, and nothing that merely contains one.
func TrustDomain(name string) (spiffeid.TrustDomain, error) {
	domain, err := spiffeid.TrustDomainFromString(name)
	if err != nil {
		return domain, fmt.Errorf("trust domain %q: %w", name, err)
	}
	if domain.Name() != name {
		return domain, fmt.Errorf("trust domain %q: must be its name, such as %q", name, domain.Name())
	}
	return domain, nil
}

// authorities are the roots of one bundle.
func authorities(domain spiffeid.TrustDomain, text json.RawMessage) ([]*x509.Certificate, error) {
	bundle, err := members(text)
	if err != nil {
		return nil, err
	}
	keys, known := []json.RawMessage(nil), make(map[string]json.RawMessage)
	for _, name := range []string{"keys", "spiffe_sequence", "spiffe_refresh_hint"} {
		if value, ok := bundle[name]; ok {
			known[name] = value // and no other: to encoding/json, KEYS are keys
		}
	}
	if value, ok := known["keys"]; ok {
		if err := json.Unmarshal(value, &keys); err != nil {
			return nil, errors.New("keys: want a list")
		}
	}
	for i, key := range keys {
		if _, err := members(key); err != nil {
			return nil, fmt.Errorf("keys[%d]: %w", i, err)
		}
	}
	if text, err = json.Marshal(known); err != nil {
		return nil, err
	}
	parsed, err := spiffebundle.Parse(domain, text)
	if err != nil {
		return nil, err
	}
	roots := parsed.X509Authorities()
	for _, root := range roots {
		if !root.IsCA {
			// It would verify itself, and nothing else.
			return nil, fmt.Errorf("certificate of %q: may not issue certificates: want that of an authority", root.Subject)
		}
	}
	return roots, nil
}

// members are those of the object that text, which is valid JSON, has to be. Names that
// only differ in the case of letters are one: encoding/json, which reads the keys, takes
// the last of them.
func members(text json.RawMessage) (map[string]json.RawMessage, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.New("want a JSON object")
	}
	found, seen := make(map[string]json.RawMessage), make(map[string]bool)
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		name, _ := token.(string) // names are nothing else
		folded := strings.ToLower(strings.ToUpper(name))
		if seen[folded] {
			return nil, fmt.Errorf("%q is given twice", name)
		}
		seen[folded] = true
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, err
		}
		found[name] = value
	}
	return found, nil
}
