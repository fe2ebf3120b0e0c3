package lastgood

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// secrets looks for what must not be kept. The zero value is ready. It is for one
// goroutine.
type secrets struct {
	plans map[protoreflect.FullName]*plan
}

// holds reports whether a resource holds something that Envoy's API marks as
// sensitive, such as an inline private key, or a key set with which tokens could be
// signed; or may hold it and cannot be looked into.
//
// Nearly all that there is are endpoints, in which nothing can be. So the bytes are
// looked at first, and only what may hold a secret is made a message of.
func (s *secrets) holds(typeURL string, value []byte) bool {
	return (typeURL == secretURL || s.mayHold(typeURL, value)) && holdsSecret(typeURL, value)
}

// mayHold is never false for what holds a secret.
func (s *secrets) mayHold(typeURL string, value []byte) bool {
	known, err := protoregistry.GlobalTypes.FindMessageByURL(typeURL)
	return err != nil || s.suspect(s.planOf(known.Descriptor()), value)
}

// plan is where in the bytes of a message something sensitive could be.
type plan struct {
	// any is true for an Any, which can hold everything.
	any bool
	// steps are the fields to look at.
	steps map[protowire.Number]step
}

// step is a field that is sensitive, or may be, or a message that may hold something
// that is.
type step struct {
	marked bool
	below  *plan
}

// leads reports whether there is anything to look at, once the plan is pruned.
func (p *plan) leads() bool { return p.any || len(p.steps) > 0 }

func (s *secrets) planOf(m protoreflect.MessageDescriptor) *plan {
	if p := s.plans[m.FullName()]; p != nil {
		return p
	}
	fresh := make(map[*plan]bool)
	p := s.draw(m, fresh)
	prune(fresh)
	return p
}

// draw makes the plan of a message, with every message in it.
func (s *secrets) draw(m protoreflect.MessageDescriptor, fresh map[*plan]bool) *plan {
	if p := s.plans[m.FullName()]; p != nil {
		return p
	}
	if s.plans == nil {
		s.plans = make(map[protoreflect.FullName]*plan)
	}
	p := &plan{any: m.FullName() == "google.protobuf.Any", steps: make(map[protowire.Number]step)}
	s.plans[m.FullName()], fresh[p] = p, true // before its fields: messages hold themselves
	for i := range m.Fields().Len() {
		field := m.Fields().Get(i)
		one := step{marked: marked(field) || isKeySet(field)}
		if field.Message() != nil {
			one.below = s.draw(field.Message(), fresh)
		}
		if one.marked || one.below != nil {
			p.steps[field.Number()] = one
		}
	}
	return p
}

// prune takes out of plans that were just drawn what leads nowhere.
func prune(fresh map[*plan]bool) {
	leading := make(map[*plan]bool)
	leads := func(one step) bool {
		return one.marked || leading[one.below] || !fresh[one.below] && one.below.leads()
	}
	for again := true; again; {
		again = false
		for p := range fresh {
			if !leading[p] && (p.any || slices.ContainsFunc(slices.Collect(maps.Values(p.steps)), leads)) {
				leading[p], again = true, true
			}
		}
	}
	for p := range fresh {
		maps.DeleteFunc(p.steps, func(_ protowire.Number, one step) bool { return !leads(one) })
	}
}

// suspect reports whether a sensitive field is set in the bytes of a message, or may
// be. Bytes that are none of its kind are suspect, and so is what could mean another
// thing together with the same field elsewhere.
func (s *secrets) suspect(p *plan, b []byte) bool {
	if p.any {
		return s.suspectAny(b)
	}
	for len(b) > 0 {
		number, kind, body, n := next(b)
		if n < 0 {
			return true
		}
		b = b[n:]
		one, ok := p.steps[number]
		switch {
		case !ok:
		case one.marked, kind != protowire.BytesType, s.suspect(one.below, body):
			return true
		}
	}
	return false
}

func (s *secrets) suspectAny(b []byte) bool {
	var typeURL string
	var value []byte
	for len(b) > 0 {
		number, kind, body, n := next(b)
		if n < 0 || kind != protowire.BytesType {
			return true
		}
		b = b[n:]
		switch {
		case number == 1 && typeURL == "":
			typeURL = string(body)
		case number == 2 && value == nil:
			value = body
		default:
			return true
		}
	}
	known, err := protoregistry.GlobalTypes.FindMessageByURL(typeURL)
	if err != nil {
		return typeURL == "" && len(value) > 0
	}
	p := s.planOf(known.Descriptor())
	return p.leads() && (len(value) == 0 || s.suspect(p, value))
}

// next splits the first field off; n is negative if the bytes are none.
func next(b []byte) (number protowire.Number, kind protowire.Type, body []byte, n int) {
	number, kind, tag := protowire.ConsumeTag(b)
	if tag < 0 {
		return 0, 0, nil, -1
	}
	if kind == protowire.BytesType {
		body, n = protowire.ConsumeBytes(b[tag:])
	} else {
		n = protowire.ConsumeFieldValue(number, kind, b[tag:])
	}
	if n < 0 {
		return 0, 0, nil, -1
	}
	return number, kind, body, tag + n
}
