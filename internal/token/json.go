package token

import (
	"errors"

	"github.com/go-jose/go-jose/v4/json"
)

// maxDepth bounds the nesting of objects and lists: nobody nests claims so deep,
// and whoever reads them later may do so recursively.
const maxDepth = 32

var errTooDeep = errors.New("nested too deep")

// object decodes a JSON object. A name that occurs twice is an error, because
// two readers could take two different values.
func object(data []byte) (map[string]any, error) {
	if tooDeep(data) {
		return nil, errTooDeep
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, err
	}
	if fields == nil {
		return nil, errors.New("null is no object")
	}
	return fields, nil
}

// tooDeep counts brackets outside texts. Whether they match is for the decoder.
func tooDeep(data []byte) bool {
	depth, text := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			depth++
			if depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
