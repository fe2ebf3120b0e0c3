package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	jose "github.com/go-jose/go-jose/v4/json"
)

// privateMembers are the members of a key that are for whoever signs alone: of RSA,
// elliptic curves and secrets (RFC 7518, section 6), and of the AKP keys of
// post-quantum signatures.
var privateMembers = []string{"k", "d", "p", "q", "dp", "dq", "qi", "oth", "priv"}

// CanSign reports whether a key set has anything in it with which tokens could be
// signed, whether or not ParseKeys uses it: who may see the set may then be whoever the
// issuer trusts only. It is true for what is no JSON, because anything can be in it.
func CanSign(document []byte) bool {
	// The text is walked and not decoded: of a member that is there twice, both are seen.
	decoder := json.NewDecoder(bytes.NewReader(document))
	var open []json.Delim
	name := false // whether a text is the name of a member
	for {
		t, err := decoder.Token()
		if err != nil {
			return !errors.Is(err, io.EOF) || len(open) > 0
		}
		switch v := t.(type) {
		case json.Delim:
			if v == '{' || v == '[' {
				open = append(open, v)
			} else {
				open = open[:len(open)-1]
			}
			name = len(open) > 0 && open[len(open)-1] == '{'
			continue
		case string:
			if name && slices.Contains(privateMembers, strings.ToLower(v)) {
				return true
			}
		}
		name = len(open) > 0 && open[len(open)-1] == '{' && !name
	}
}

// Private says which keys of a set have private parts with them, which nobody needs who
// verifies. Secrets are none of them: what verifies is what signs. A document that is
// no key set has none.
func Private(document []byte) []error {
	var set struct {
		Keys []jose.RawMessage `json:"keys"`
	}
	if tooDeep(document) || jose.Unmarshal(document, &set) != nil {
		return nil
	}
	var private []error
	for i, raw := range set.Keys {
		var key map[string]any
		if jose.Unmarshal(raw, &key) != nil || key["kty"] == "oct" || !CanSign(raw) {
			continue
		}
		name := fmt.Sprintf("keys[%d]", i)
		if id, ok := key["kid"].(string); ok && id != "" {
			name += fmt.Sprintf(" (kid %q)", id)
		}
		private = append(private, fmt.Errorf("%s: has its private part with it", name))
	}
	return private
}
