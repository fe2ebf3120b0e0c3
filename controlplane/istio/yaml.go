package istio

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/inboardmesh/inboard/internal/near"
)

func positionOf(n *yaml.Node) position { return position{n.Line, n.Column} }

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// describe says what a node is, in the words of the one who wrote it.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias (aliases are not supported: write the value out)"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "the truth value " + n.Value
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!timestamp":
		return "the date " + n.Value
	case "!!str":
		return "text"
	}
	return "a value with the tag " + n.Tag
}

func fieldByName(md protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if fd := md.Fields().ByJSONName(name); fd != nil {
		return fd
	}
	return md.Fields().ByName(protoreflect.Name(name))
}

// misplaced says that an unknown field is one of a field before it, which has no value
// because what should be in it is not indented further; "" if it is not so.
func misplaced(md protoreflect.MessageDescriptor, entries fieldList, unknown namedNode) string {
	for _, e := range entries {
		if e.key == unknown.key {
			return ""
		}
		if fd := fieldByName(md, e.name); fd != nil && isNull(e.value) && fd.Message() != nil && fieldByName(fd.Message(), unknown.name) != nil {
			return ": it belongs to \"" + e.name + "\": indent it further"
		}
	}
	return ""
}

// unquoted offers to leave out the quotes of a number.
func unquoted(n *yaml.Node) string {
	if _, err := strconv.ParseInt(n.Value, 10, 64); err == nil && n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
		return ": remove the quotes"
	}
	return ""
}

// suggestion offers the fields whose names are like one that does not exist.
func suggestion(md protoreflect.MessageDescriptor, name string) string {
	var names []string
	for i := range md.Fields().Len() {
		names = append(names, md.Fields().Get(i).JSONName())
	}
	return offerField(name, names)
}

// offerField offers the field that differs in upper and lower case only, or those
// that differ in few letters.
func offerField(name string, names []string) string {
	for _, other := range names {
		if strings.EqualFold(other, name) {
			return near.Question([]string{other})
		}
	}
	return near.Question(near.Names(name, names))
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
