package token

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

const (
	// MaxKeySet is how many bytes a key set may have.
	MaxKeySet = 1 << 20
	// maxKeys is how many keys of a set are used at most. A token without a key
	// id is tried with every key that fits, so a large set costs.
	maxKeys = 128
	// minRSABits is the least that RFC 7518, section 3.3, allows.
	minRSABits = 2048
)

// Keys are the keys of a set that can verify tokens. Immutable and safe for
// concurrent use. The nil set has no keys.
type Keys struct {
	keys []key
	// unused says why keys of the document are not in the set.
	unused []error
	// sum tells documents apart.
	sum [sha256.Size]byte
}

// key is one key with what it verifies.
type key struct {
	id         string
	algorithms []jose.SignatureAlgorithm
	material   any
}

// Len is how many keys there are.
func (k *Keys) Len() int {
	if k == nil {
		return 0
	}
	return len(k.keys)
}

// Equal reports whether both sets are of the same document.
func (k *Keys) Equal(other *Keys) bool {
	if k == nil || other == nil {
		return k == other
	}
	return k.sum == other.sum
}

// Unused says why each key of the document that is not used is not.
func (k *Keys) Unused() []error { return k.unused }

// ParseKeys reads a JSON Web Key Set (RFC 7517). Keys that cannot verify tokens
// (for encryption, of an unknown type, too short, with private parts) are left
// out, as section 5 of the RFC asks for; a document that is no key set is an
// error. A set without any key is none: it verifies nothing.
//
// secrets allows symmetric keys. Whoever can read such a set can sign with it,
// so they have no place in a document that is fetched.
func ParseKeys(document []byte, secrets bool) (*Keys, error) {
	if len(document) > MaxKeySet {
		return nil, fmt.Errorf("key set of %d bytes: must not have more than %d", len(document), MaxKeySet)
	}
	if tooDeep(document) {
		return nil, fmt.Errorf("key set: %w", errTooDeep)
	}
	var set struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(document, &set); err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	if set.Keys == nil {
		return nil, errors.New(`key set: has no list "keys"`)
	}
	if len(*set.Keys) > maxKeys {
		return nil, fmt.Errorf("key set: has %d keys: must not have more than %d", len(*set.Keys), maxKeys)
	}
	k := &Keys{sum: sha256.Sum256(document)}
	for i, raw := range *set.Keys {
		one, err := parseKey(raw, secrets)
		if err != nil {
			k.unused = append(k.unused, fmt.Errorf("keys[%d]: %w", i, err))
			continue
		}
		k.keys = append(k.keys, one)
	}
	return k, nil
}

func parseKey(raw json.RawMessage, secrets bool) (key, error) {
	// What the library reads leniently, or not at all.
	var more struct {
		Operations []string `json:"key_ops"`
	}
	if err := json.Unmarshal(raw, &more); err != nil {
		return key{}, err
	}
	var parsed jose.JSONWebKey
	if err := parsed.UnmarshalJSON(raw); err != nil {
		return key{}, err
	}
	if parsed.Use != "" && parsed.Use != "sig" {
		return key{}, fmt.Errorf("is for the use %q, not for signatures", parsed.Use)
	}
	if more.Operations != nil && !slices.Contains(more.Operations, "verify") {
		return key{}, errors.New(`is not for the operation "verify"`)
	}
	algorithms, err := algorithmsOf(parsed.Key, secrets)
	if err != nil {
		return key{}, err
	}
	if parsed.Algorithm != "" {
		if !slices.Contains(algorithms, jose.SignatureAlgorithm(parsed.Algorithm)) {
			return key{}, fmt.Errorf("is not of the type that its algorithm %q needs", parsed.Algorithm)
		}
		algorithms = []jose.SignatureAlgorithm{jose.SignatureAlgorithm(parsed.Algorithm)}
	}
	return key{id: parsed.KeyID, algorithms: algorithms, material: parsed.Key}, nil
}

// algorithmsOf are the algorithms that a key of its type can be used with: only
// these, whatever a token says.
func algorithmsOf(material any, secrets bool) ([]jose.SignatureAlgorithm, error) {
	switch m := material.(type) {
	case *rsa.PublicKey:
		if m.N.BitLen() < minRSABits {
			return nil, fmt.Errorf("has %d bits: must have at least %d", m.N.BitLen(), minRSABits)
		}
		if m.E < 3 || m.E%2 == 0 {
			return nil, fmt.Errorf("has the exponent %d", m.E)
		}
		return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512}, nil
	case *ecdsa.PublicKey:
		switch m.Curve.Params().BitSize {
		case 256:
			return []jose.SignatureAlgorithm{jose.ES256}, nil
		case 384:
			return []jose.SignatureAlgorithm{jose.ES384}, nil
		case 521:
			return []jose.SignatureAlgorithm{jose.ES512}, nil
		}
		return nil, fmt.Errorf("is of the curve %q", m.Curve.Params().Name)
	case ed25519.PublicKey:
		return []jose.SignatureAlgorithm{jose.EdDSA}, nil
	case []byte:
		return secretAlgorithms(m, secrets)
	case *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey:
		// Anybody who can read the set can sign.
		return nil, errors.New("has its private part with it")
	}
	return nil, fmt.Errorf("is of the type %T", material)
}

// secretAlgorithms are those for which a secret is long enough (RFC 7518,
// section 3.2).
func secretAlgorithms(secret []byte, allowed bool) ([]jose.SignatureAlgorithm, error) {
	if !allowed {
		return nil, errors.New("is a secret, which a fetched key set must not have")
	}
	if len(bytes.Trim(secret, "\x00")) == 0 {
		return nil, errors.New("is an empty secret")
	}
	var algorithms []jose.SignatureAlgorithm
	for _, one := range []struct {
		algorithm jose.SignatureAlgorithm
		size      int
	}{{jose.HS256, 32}, {jose.HS384, 48}, {jose.HS512, 64}} {
		if len(secret) >= one.size {
			algorithms = append(algorithms, one.algorithm)
		}
	}
	if algorithms == nil {
		return nil, fmt.Errorf("is a secret of %d bytes: must have at least 32", len(secret))
	}
	return algorithms, nil
}

// candidates are the keys that may have signed a token: those with its key id,
// and those without one. A token without a key id is tried with all. A key that
// is not for the token's algorithm is no candidate.
func (k *Keys) candidates(t *Token) []key {
	if k == nil {
		return nil
	}
	var fit []key
	for _, one := range k.keys {
		if t.KeyID != "" && one.id != "" && t.KeyID != one.id {
			continue
		}
		if slices.Contains(one.algorithms, t.algorithm) {
			fit = append(fit, one)
		}
	}
	return fit
}
