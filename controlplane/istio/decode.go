package istio

import (
	"cmp"
	"encoding/base64"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// decoder fills the typed spec of one object from YAML nodes, by the rules of
// Istio's JSON form: field names in lowerCamelCase or as in the proto, enums
// by name, durations as Go writes them ("1h30m", "250ms"). It remembers where
// every field was, so that later checks can point there. It is stricter than
// JSON: a duplicate key, a number where text is expected, an alias and a null
// are problems.
type decoder struct {
	rep *reporter
	obj *object
}

// namedNode is one entry of a mapping.
type namedNode struct {
	name       string
	key, value *yaml.Node
}

type fieldList []namedNode

func (l fieldList) get(name string) (namedNode, bool) {
	for _, f := range l {
		if f.name == name {
			return f, true
		}
	}
	return namedNode{}, false
}

// mapping lists the entries of a mapping, each once, and remembers where they
// are under the names that they were written with.
func (d *decoder) mapping(n *yaml.Node, a at) (fieldList, bool) {
	return d.entries(n, a, a.field)
}

func (d *decoder) entries(n *yaml.Node, a at, child func(string) at) (fieldList, bool) {
	if n.Kind != yaml.MappingNode {
		if _, ok := d.obj.places[a.path]; !ok {
			d.obj.places[a.path] = place{value: positionOf(n)}
		}
		a.undecodable("expected a mapping, found %s", describe(n))
		return nil, false
	}
	list := make(fieldList, 0, len(n.Content)/2)
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			d.addAt(key, a, "expected a name before ':', found "+describe(key))
			continue
		}
		if seen[key.Value] {
			d.addAt(key, child(key.Value), "is set twice")
			continue
		}
		seen[key.Value] = true
		d.obj.places[child(key.Value).path] = place{key: positionOf(key), value: positionOf(value)}
		list = append(list, namedNode{key.Value, key, value})
	}
	return list, true
}

// addAt reports a problem at a node that has no place of its own.
func (d *decoder) addAt(n *yaml.Node, a at, message string) {
	d.rep.add(Problem{
		File: d.obj.file, Line: n.Line, Column: n.Column,
		Object: d.obj.title(), Field: a.path, Message: message,
	})
}

// optionalText is the text of the entry name, "" without it.
func (d *decoder) optionalText(fields fieldList, parent at, name string) string {
	f, ok := fields.get(name)
	if !ok || isNull(f.value) {
		return ""
	}
	text, _ := d.text(f.value, parent.field(name))
	return text
}

// textMap is the map of texts of the entry name, nil without it.
func (d *decoder) textMap(fields fieldList, parent at, name string) map[string]string {
	f, ok := fields.get(name)
	if !ok || isNull(f.value) {
		return nil
	}
	a := parent.field(name)
	entries, ok := d.entries(f.value, a, a.key)
	if !ok {
		return nil
	}
	m := make(map[string]string, len(entries))
	for _, e := range entries {
		if text, ok := d.text(e.value, a.key(e.name)); ok {
			m[e.name] = text
		}
	}
	return m
}

func (d *decoder) message(n *yaml.Node, m protoreflect.Message, a at) {
	entries, ok := d.mapping(n, a)
	if !ok {
		return
	}
	descriptor := m.Descriptor()
	set := make(map[protoreflect.Name]bool)
	for _, e := range entries {
		fd := fieldByName(descriptor, e.name)
		if fd == nil {
			a.field(e.name).refuse("unknown field%s", cmp.Or(misplaced(descriptor, entries, e), suggestion(descriptor, e.name)))
			d.obj.broken[a.path] = true
			continue
		}
		child := a.field(fd.JSONName())
		d.obj.places[child.path] = place{key: positionOf(e.key), value: positionOf(e.value)}
		switch {
		case isNull(e.value):
			// Kubernetes takes it for unset. But the one who wrote "mode:" meant
			// something, and unset can mean no TLS.
			child.undecodable("has no value: write one, or remove the field")
			continue
		case !isTranslated(fd):
			child.refuse("%s", cmp.Or(untranslated[fd.FullName()], "is not supported: remove it"))
			d.obj.broken[a.path] = true
			continue
		case set[fd.Name()]:
			child.refuse("is set twice")
			continue
		}
		set[fd.Name()] = true
		if group := fd.ContainingOneof(); group != nil {
			if other := m.WhichOneof(group); other != nil {
				child.refuse("cannot be set together with %q", other.JSONName())
				continue
			}
		}
		d.field(e.value, m, fd, child)
	}
}

func (d *decoder) field(n *yaml.Node, m protoreflect.Message, fd protoreflect.FieldDescriptor, a at) {
	switch {
	case fd.IsMap():
		d.mapField(n, m.Mutable(fd).Map(), fd, a)
	case fd.IsList():
		if n.Kind != yaml.SequenceNode {
			a.undecodable("expected a list, found %s: begin each element with \"- \"", describe(n))
			return
		}
		list := m.Mutable(fd).List()
		for i, item := range n.Content {
			child := a.index(i)
			d.obj.places[child.path] = place{value: positionOf(item)}
			if isNull(item) {
				child.undecodable("must not be empty")
			}
			// An element that cannot be decoded keeps its place, so that the
			// indexes of the others stay right.
			v, ok := d.value(item, fd, list.NewElement, child)
			if !ok {
				v = list.NewElement()
			}
			list.Append(v)
		}
	default:
		if v, ok := d.value(n, fd, func() protoreflect.Value { return m.NewField(fd) }, a); ok {
			m.Set(fd, v)
		}
	}
}

func (d *decoder) mapField(n *yaml.Node, m protoreflect.Map, fd protoreflect.FieldDescriptor, a at) {
	entries, ok := d.entries(n, a, a.key)
	if !ok {
		return
	}
	for _, e := range entries {
		child := a.key(e.name)
		key := protoreflect.ValueOfString(e.name).MapKey()
		if fd.MapKey().Kind() == protoreflect.Uint32Kind {
			number, err := strconv.ParseUint(e.name, 10, 32)
			if err != nil {
				child.refuse("expected a port number before ':'")
				continue
			}
			key = protoreflect.ValueOfUint32(uint32(number)).MapKey()
			if m.Has(key) {
				child.refuse("is set twice")
				continue
			}
		}
		if isNull(e.value) {
			child.undecodable("must not be empty")
			continue
		}
		if v, ok := d.value(e.value, fd.MapValue(), m.NewValue, child); ok {
			m.Set(key, v)
		}
	}
}

// value decodes one value that is neither a list nor a map. empty makes the
// message to fill if it is one.
func (d *decoder) value(n *yaml.Node, fd protoreflect.FieldDescriptor, empty func() protoreflect.Value, a at) (protoreflect.Value, bool) {
	if isNull(n) {
		return protoreflect.Value{}, false
	}
	switch fd.Kind() {
	case protoreflect.MessageKind:
		return d.messageValue(n, fd.Message(), empty, a)
	case protoreflect.StringKind:
		text, ok := d.text(n, a)
		return protoreflect.ValueOfString(text), ok
	case protoreflect.BoolKind:
		b, ok := d.boolean(n, a)
		return protoreflect.ValueOfBool(b), ok
	case protoreflect.Int32Kind:
		i, ok := d.integer(n, math.MinInt32, math.MaxInt32, a)
		return protoreflect.ValueOfInt32(int32(i)), ok
	case protoreflect.Uint32Kind:
		i, ok := d.integer(n, 0, math.MaxUint32, a)
		return protoreflect.ValueOfUint32(uint32(i)), ok
	case protoreflect.Uint64Kind:
		i, ok := d.integer(n, 0, math.MaxInt64, a)
		return protoreflect.ValueOfUint64(uint64(i)), ok
	case protoreflect.DoubleKind:
		f, ok := d.number(n, a)
		return protoreflect.ValueOfFloat64(f), ok
	case protoreflect.EnumKind:
		return d.enum(n, fd.Enum(), a)
	case protoreflect.BytesKind:
		text, ok := d.text(n, a)
		if !ok {
			return protoreflect.Value{}, false
		}
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			a.undecodable("expected base64: %v", err)
			return protoreflect.Value{}, false
		}
		return protoreflect.ValueOfBytes(raw), true
	default:
		a.refuse("has a type that is not supported: remove it")
		return protoreflect.Value{}, false
	}
}

func (d *decoder) messageValue(n *yaml.Node, md protoreflect.MessageDescriptor, empty func() protoreflect.Value, a at) (protoreflect.Value, bool) {
	var m proto.Message
	var ok bool
	switch md.FullName() {
	case "google.protobuf.Duration":
		var duration time.Duration
		duration, ok = d.duration(n, a)
		m = durationpb.New(duration)
	case "google.protobuf.BoolValue":
		var b bool
		b, ok = d.boolean(n, a)
		m = wrapperspb.Bool(b)
	case "google.protobuf.UInt32Value":
		var i int64
		i, ok = d.integer(n, 0, math.MaxUint32, a)
		m = wrapperspb.UInt32(uint32(i))
	case "google.protobuf.DoubleValue":
		var f float64
		f, ok = d.number(n, a)
		m = wrapperspb.Double(f)
	default:
		v := empty()
		d.message(n, v.Message(), a)
		return v, true
	}
	if !ok {
		return protoreflect.Value{}, false
	}
	return protoreflect.ValueOfMessage(m.ProtoReflect()), true
}

func (d *decoder) text(n *yaml.Node, a at) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		a.undecodable("expected text, found %s", describe(n))
		return "", false
	}
	if n.ShortTag() != "!!str" {
		a.undecodable("expected text, found %s: put it in quotes", describe(n))
		return "", false
	}
	return n.Value, true
}

func (d *decoder) duration(n *yaml.Node, a at) (time.Duration, bool) {
	if n.Kind != yaml.ScalarNode {
		a.undecodable("expected a duration, found %s", describe(n))
		return 0, false
	}
	v, err := time.ParseDuration(n.Value)
	if err != nil || n.ShortTag() != "!!str" {
		a.undecodable("%q is not a duration: write it like 1.5s, 250ms or 1h30m", n.Value)
		return 0, false
	}
	return v, true
}

func (d *decoder) boolean(n *yaml.Node, a at) (bool, bool) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool" {
		return strings.EqualFold(n.Value, "true"), true
	}
	a.undecodable("expected true or false, found %s", describe(n))
	return false, false
}

func (d *decoder) integer(n *yaml.Node, low, high int64, a at) (int64, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" {
		a.undecodable("expected a whole number, found %s%s", describe(n), unquoted(n))
		return 0, false
	}
	var i int64
	if err := n.Decode(&i); err != nil || i < low || i > high {
		a.undecodable("%s is not in %d..%d", n.Value, low, high)
		return 0, false
	}
	return i, true
}

func (d *decoder) number(n *yaml.Node, a at) (float64, bool) {
	var f float64
	if tag := n.ShortTag(); n.Kind == yaml.ScalarNode && (tag == "!!int" || tag == "!!float") {
		if err := n.Decode(&f); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f, true
		}
	}
	a.undecodable("expected a number, found %s", describe(n))
	return 0, false
}

func (d *decoder) enum(n *yaml.Node, ed protoreflect.EnumDescriptor, a at) (protoreflect.Value, bool) {
	text, ok := d.text(n, a)
	if !ok {
		return protoreflect.Value{}, false
	}
	if v := ed.Values().ByName(protoreflect.Name(text)); v != nil {
		return protoreflect.ValueOfEnum(v.Number()), true
	}
	names := make([]string, ed.Values().Len())
	for i := range names {
		names[i] = string(ed.Values().Get(i).Name())
	}
	a.undecodable("%q is not one of %s", text, strings.Join(names, ", "))
	return protoreflect.Value{}, false
}
