package arrival

import (
	"fmt"
	"strings"
)

// Parse reads x-forwarded-client-cert as Envoy writes it: elements that commas
// separate, each of pairs that semicolons separate, whose values may be quoted.
// Keys are in lower case.
func Parse(value string) ([]map[string][]string, error) {
	elements := []map[string][]string{{}}
	for rest := value; ; {
		key, after, ok := strings.Cut(rest, "=")
		if !ok || key == "" || strings.ContainsAny(key, `,;"`) {
			return nil, fmt.Errorf("no key at %q", rest)
		}
		var text strings.Builder
		if quoted := strings.HasPrefix(after, `"`); quoted {
			i, closed := 1, false
			for ; i < len(after) && !closed; i++ {
				switch after[i] {
				case '"':
					closed = true
				case '\\':
					if i++; i == len(after) {
						return nil, fmt.Errorf("no character after the backslash in %q", value)
					}
					text.WriteByte(after[i])
				default:
					text.WriteByte(after[i])
				}
			}
			if !closed {
				return nil, fmt.Errorf("no end of the quotes in %q", value)
			}
			after = after[i:]
		} else {
			end := strings.IndexAny(after, `,;"=\`)
			if end < 0 {
				end = len(after)
			}
			text.WriteString(after[:end])
			after = after[end:]
		}
		last := elements[len(elements)-1]
		last[strings.ToLower(key)] = append(last[strings.ToLower(key)], text.String())
		switch {
		case after == "":
			return elements, nil
		case after[0] == ',':
			elements = append(elements, map[string][]string{})
		case after[0] != ';':
			return nil, fmt.Errorf("no separator at %q", after)
		}
		rest = after[1:]
	}
}
