package bootstrap

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// maxDuplicatePath bounds the length of paths: what is nested deeper is reported
// at the path of what holds it.
const maxDuplicatePath = 16

// checkDuplicates notes every key that is given twice in one object of data,
// which is valid JSON. Readers differ in which value they take, and so could
// those who check a bootstrap and those who use it (RFC 8259, section 4).
func checkDuplicates(found *problems, data json.RawMessage) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	walkDuplicates(found, decoder, "$", 0)
}

// walkDuplicates reads one value. A decoder of valid JSON has no errors.
func walkDuplicates(found *problems, decoder *json.Decoder, path string, depth int) {
	token, err := decoder.Token()
	if err != nil {
		return
	}
	switch token {
	case json.Delim('{'):
		seen := make(map[string]bool)
		for decoder.More() {
			token, err := decoder.Token()
			key, ok := token.(string)
			if err != nil || !ok {
				return
			}
			at := path
			if depth < maxDuplicatePath {
				at = child(path, key)
			}
			if seen[key] {
				found.addf(at, "the key %q is given twice", shorten(key))
			}
			seen[key] = true
			walkDuplicates(found, decoder, at, depth+1)
		}
	case json.Delim('['):
		for i := 0; decoder.More(); i++ {
			at := path
			if depth < maxDuplicatePath {
				at = fmt.Sprintf("%s[%d]", path, i)
			}
			walkDuplicates(found, decoder, at, depth+1)
		}
	default:
		return
	}
	_, _ = decoder.Token() // the end of the object or the list: it is there
}
