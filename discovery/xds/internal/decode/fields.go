package decode

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// messageFields says what happens to the fields of one message type. A
// populated field that it does not list is refused. The lists are field names
// separated by spaces.
type messageFields struct {
	message proto.Message
	// read are the fields that a decoder reads.
	read string
	// zero are the fields that are accepted only with the zero value that they
	// wrap: a BoolValue of false, a Duration of 0 s. That value is what the
	// mesh does.
	zero string
	// harmless are the fields that change nothing here whatever they hold. Each
	// list of a message says why.
	harmless string
	// instead says, for some of the fields that are refused, what to use.
	instead map[string]string
}

// fieldUse is what happens to a populated field.
type fieldUse uint8

const (
	unsupported fieldUse = iota
	readField
	zeroField
	harmlessField
)

// fieldUses is what happens to the fields of one message, by the index of the
// field in its descriptor. Without an entry a field is unsupported.
type fieldUses struct {
	uses    []fieldUse
	instead map[string]string
}

func (u fieldUses) of(index int) fieldUse {
	if index < len(u.uses) {
		return u.uses[index]
	}
	return unsupported
}

// fieldTable holds the messages that are known.
type fieldTable map[protoreflect.MessageDescriptor]*knownMessage

// knownMessage is a message of the table. Its fields are looked up at its first use:
// that makes protobuf unfold all that it knows of the message's file, which most
// processes need for a few files only, and would hold for all.
type knownMessage struct {
	messageFields
	once sync.Once
	uses fieldUses
}

// of is what happens to the fields of a message; those of one that is not known are
// unsupported.
func (t fieldTable) of(descriptor protoreflect.MessageDescriptor) fieldUses {
	known := t[descriptor]
	if known == nil {
		return fieldUses{}
	}
	known.once.Do(func() { known.uses = known.lookUp(descriptor) })
	return known.uses
}

// supportedFields is the table of all messages that this package decodes. It is
// built at the first use.
var supportedFields = sync.OnceValue(func() fieldTable {
	return newFieldTable(slices.Concat(
		listenerFields, tcpFields, connectionManagerFields, arrivalFields, httpFilterFields, faultFields, rbacFields, rbacTreeFields, conditionFields, metadataMatchFields,
		routeTableFields, routeFields, routeMatchFields, matcherFields, retryFields, mutationFields,
		substitutionFields, pathTemplateFields, internalRedirectFields, hashPolicyFields,
		mirrorFields, corsFields, clusterFields, aggregateFields, outlierFields, balancingFields, zoneFields, consistentHashFields, subsetFields, slowStartFields, protocolFields, tlsFields, keepAliveFields, preconnectFields, sessionFields, ownBalancingFields,
		assignmentFields, healthCheckFields, commonFields,
		jwtFields, serviceFields, extAuthzFields, dnsResolverFields,
	))
})

func newFieldTable(messages []messageFields) fieldTable {
	table := make(fieldTable, len(messages))
	for _, m := range messages {
		descriptor := m.message.ProtoReflect().Descriptor()
		if _, ok := table[descriptor]; ok {
			panic(fmt.Sprintf("decode: %s is listed twice", descriptor.FullName())) //nolint:forbidigo // the lists are constants of this package
		}
		table[descriptor] = &knownMessage{messageFields: m}
	}
	return table
}

// lookUp finds the fields by their names.
func (m *messageFields) lookUp(descriptor protoreflect.MessageDescriptor) fieldUses {
	uses := make([]fieldUse, descriptor.Fields().Len())
	for use, names := range map[fieldUse]string{readField: m.read, zeroField: m.zero, harmlessField: m.harmless} {
		for name := range strings.FieldsSeq(names) {
			fd := descriptor.Fields().ByName(protoreflect.Name(name))
			if fd == nil || uses[fd.Index()] != unsupported {
				panic(fmt.Sprintf("decode: field %q of %s is unknown or listed twice", name, descriptor.FullName())) //nolint:forbidigo // as above, and tests look up all
			}
			uses[fd.Index()] = use
		}
	}
	return fieldUses{uses: uses, instead: m.instead}
}

// fields refuses every populated field of m, and of the messages in it, that no
// decoder reads. What an Any holds is checked where it is unpacked.
func (d *decoder) fields(at path, m protoreflect.Message, table fieldTable) {
	descriptor := m.Descriptor()
	uses := table.of(descriptor)
	fields := descriptor.Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if !m.Has(fd) {
			continue
		}
		switch uses.of(i) {
		case unsupported:
			if instead, ok := uses.instead[string(fd.Name())]; ok {
				d.refusef(at.field(string(fd.Name())), "not supported: %s", instead)
			} else {
				d.refusef(at.field(string(fd.Name())), "not supported")
			}
		case zeroField:
			if v := m.Get(fd); fd.IsList() || fd.Message() == nil || proto.Size(v.Message().Interface()) > 0 {
				d.refusef(at.field(string(fd.Name())), "not supported with another value than zero")
			}
		case readField:
			if fd.IsMap() {
				d.mapFields(at, m.Get(fd).Map(), fd, table)
				continue
			}
			if fd.Message() == nil || isWellKnown(fd.Message()) {
				continue
			}
			if !fd.IsList() {
				d.fields(at.field(string(fd.Name())), m.Get(fd).Message(), table)
				continue
			}
			list := m.Get(fd).List()
			for j := range list.Len() {
				d.fields(at.element(string(fd.Name()), j), list.Get(j).Message(), table)
			}
		case harmlessField:
		}
	}
}

// mapFields checks the messages in a map, in the order of their keys, so that
// the same resource always gives the same errors.
func (d *decoder) mapFields(at path, m protoreflect.Map, fd protoreflect.FieldDescriptor, table fieldTable) {
	if value := fd.MapValue().Message(); value == nil || isWellKnown(value) {
		return
	}
	byName := make(map[string]protoreflect.Message, m.Len())
	m.Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		byName[key.String()] = value.Message()
		return true
	})
	for _, key := range slices.Sorted(maps.Keys(byName)) {
		d.fields(at.entry(string(fd.Name()), key), byName[key], table)
	}
}

// isWellKnown tells whether a message is one of protobuf's own, which have no
// fields of their own to check: durations, wrappers, structs, Any.
func isWellKnown(m protoreflect.MessageDescriptor) bool {
	return m.ParentFile().Package() == "google.protobuf"
}
