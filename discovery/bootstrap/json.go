package bootstrap

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
)

// object is a JSON object that is being read. Its methods note a mistake and
// return the zero value when a field is not what was asked for; a field that
// is absent or null is the zero value without a mistake.
type object struct {
	path   string
	fields map[string]json.RawMessage
	found  *problems
}

// readObject reads data, which is valid JSON, as an object. An absent or null
// value is an object without fields; ok is false for anything else.
func readObject(found *problems, path string, data json.RawMessage) (o object, ok bool) {
	o = object{path: path, found: found}
	if absent(data) {
		return o, true
	}
	if err := json.Unmarshal(data, &o.fields); err != nil {
		found.addf(path, "expected an object, found %s", kind(data))
		return o, false
	}
	return o, true
}

func (o object) has(key string) bool { return !absent(o.fields[key]) }

// text returns a string field.
func (o object) text(key string) string {
	var s string
	if o.has(key) && json.Unmarshal(o.fields[key], &s) != nil {
		o.found.addf(child(o.path, key), "expected a string, found %s", kind(o.fields[key]))
	}
	return s
}

// required returns a string field that must not be empty; want says what it
// is for.
func (o object) required(key, want string) string {
	s := o.text(key)
	if s == "" {
		o.missing(key, want)
	}
	return s
}

// missing notes that a required field is absent or empty, with a hint if
// another key looks like it.
func (o object) missing(key, want string) {
	if like := o.lookalike(key); like != "" {
		o.found.addf(child(o.path, key), "is required: %s; found %q: did you mean %q?", want, shorten(like), key)
		return
	}
	o.found.addf(child(o.path, key), "is required: %s", want)
}

// child returns an object field.
func (o object) child(key string) object {
	c, _ := readObject(o.found, child(o.path, key), o.fields[key])
	return c
}

// list returns the elements of a list field.
func (o object) list(key string) []json.RawMessage {
	var elements []json.RawMessage
	if o.has(key) && json.Unmarshal(o.fields[key], &elements) != nil {
		o.found.addf(child(o.path, key), "expected a list, found %s", kind(o.fields[key]))
	}
	return elements
}

// texts returns the elements of a list of strings.
func (o object) texts(key string) []string {
	var texts []string
	for i, data := range o.list(key) {
		var s *string
		if json.Unmarshal(data, &s) != nil || s == nil {
			o.found.addf(fmt.Sprintf("%s[%d]", child(o.path, key), i), "expected a string, found %s", kind(data))
			continue
		}
		texts = append(texts, *s)
	}
	return texts
}

// config returns the configuration of a plugin: an object, or nil.
func (o object) config(key string) json.RawMessage {
	if !o.has(key) {
		return nil
	}
	if k := kind(o.fields[key]); k != "an object" {
		o.found.addf(child(o.path, key), "expected an object, found %s", k)
		return nil
	}
	return bytes.Clone(o.fields[key])
}

// only notes every key that is not in known.
func (o object) only(known ...string) {
	for _, key := range sortedKeys(o.fields) {
		isKnown := false
		for _, k := range known {
			isKnown = isKnown || k == key
		}
		if isKnown {
			continue
		}
		for _, k := range known {
			if similar(key, k) {
				o.found.addf(child(o.path, key), "is not a known key: did you mean %q?", k)
			}
		}
		o.found.addf(child(o.path, key), "is not a known key: expected one of %s", strings.Join(known, ", "))
	}
}

// optional notes keys that are probably misspellings of optional ones. Other
// keys are ignored, as gRPC does: a bootstrap may be written for a newer
// client. But a misspelt one would be ignored too, and with it a credential or
// a certificate provider.
func (o object) optional(known ...string) {
	for _, key := range known {
		if _, ok := o.fields[key]; ok {
			continue
		}
		if like := o.lookalike(key); like != "" {
			o.found.addf(child(o.path, like), "is not a known key: did you mean %q?", key)
		}
	}
}

// lookalike returns a key of the object that is probably a misspelling of key.
func (o object) lookalike(key string) string {
	for _, candidate := range sortedKeys(o.fields) {
		if candidate != key && similar(candidate, key) {
			return candidate
		}
	}
	return ""
}

// similar reports whether a may be a misspelling of b: the same without case
// and separators, or a few edits away, the more the longer it is ("_name" may be
// missing in the longest). Of a name so short that another one may be as near, only a
// letter too many counts.
func similar(a, b string) bool {
	a, b = plain(a), plain(b)
	edits := 2
	switch {
	case a == b:
		return true
	case len(b) < 4:
		return len(a) == len(b)+1 && strings.HasPrefix(a, b)
	case len(b) == 4:
		edits = 1
	case len(b) > 30:
		edits = 4
	}
	return len(a) < 2*len(b) && distance(a, b) <= edits
}

// plain is s in lower case without separators: "xdsServers" is "xdsservers".
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' {
			return -1
		}
		return unicode.ToLower(r)
	}, s)
}

// distance is the number of bytes to insert, remove or replace to get from a
// to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func absent(data json.RawMessage) bool {
	return len(data) == 0 || string(bytes.TrimSpace(data)) == "null"
}

// kind names the type of a JSON value.
func kind(data json.RawMessage) string {
	switch trimmed := bytes.TrimSpace(data); {
	case len(trimmed) == 0:
		return "nothing"
	case trimmed[0] == '{':
		return "an object"
	case trimmed[0] == '[':
		return "a list"
	case trimmed[0] == '"':
		return "a string"
	case trimmed[0] == 't', trimmed[0] == 'f':
		return "a boolean"
	case trimmed[0] == 'n':
		return "null"
	}
	return "a number"
}

// position returns the line and the column of an offset in data, from 1.
func position(data []byte, offset int64) (line, column int) {
	before := data[:min(max(offset-1, 0), int64(len(data)))]
	return 1 + bytes.Count(before, []byte("\n")), len(before) - bytes.LastIndexByte(before, '\n')
}
