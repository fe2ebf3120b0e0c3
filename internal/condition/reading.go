package condition

import (
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
)

// evaluation is one decision: it evaluates an expression as often as there are
// readings of what the expression asks about. Which those are shows while it is
// evaluated. Used by one goroutine.
type evaluation struct {
	facts   *Facts
	certain bool
	// apart has the parts of joined values looked at.
	apart bool
	// choices are the readings of now, in the order in which they were asked for.
	choices []choice
}

// choice is one attribute that has several readings, and which of them is taken.
type choice struct {
	attribute    string
	taken, outOf int
}

var _ cel.Activation = (*evaluation)(nil)

// ResolveName finds a variable. Each of them is the evaluation, which their
// fields are taken from.
func (e *evaluation) ResolveName(name string) (any, bool) {
	_, ok := attributes[name]
	return e, ok
}

// Parent returns nil: there are no other variables.
func (*evaluation) Parent() cel.Activation { return nil }

// read returns the reading of an attribute that is taken now. Attributes that are
// written in the same ways, such as the path with its query and without, have one
// name and are read alike.
func (e *evaluation) read(attribute string, readings []string) string {
	if len(readings) == 1 {
		return readings[0]
	}
	for i := range e.choices {
		if c := &e.choices[i]; c.attribute == attribute {
			return readings[c.taken]
		}
	}
	e.choices = append(e.choices, choice{attribute: attribute, outOf: len(readings)})
	return readings[0]
}

// next takes the next readings; false after the last ones. Which attributes are
// asked for after one may depend on how that was read, so those are forgotten.
func (e *evaluation) next() bool {
	for len(e.choices) > 0 {
		last := &e.choices[len(e.choices)-1]
		if last.taken++; last.taken < last.outOf {
			return true
		}
		e.choices = e.choices[:len(e.choices)-1]
	}
	return false
}

// header returns the values that a header can be read as; none if it is missing.
// Values that are there apart are one list, joined as Envoy does, and each alone.
// What denies looks at the parts of a joined one too, without the space around
// them (decision D6), and so does what allows by saying what a value is not.
func (e *evaluation) header(name string) (readings []string, ok bool) {
	add := func(value string) {
		if !slices.Contains(readings, value) {
			readings = append(readings, value)
		}
	}
	r := e.facts.Request
	switch name {
	case ":method":
		return []string{r.Method}, true
	case ":path":
		return r.targets(), true
	case ":authority", "host":
		return r.Hosts, len(r.Hosts) > 0
	}
	values := r.Header(name)
	if len(values) == 0 {
		return nil, false
	}
	add(strings.Join(values, ","))
	for _, value := range values {
		add(value)
		if !e.apart {
			continue
		}
		add(strings.TrimSpace(value))
		for part := range strings.SplitSeq(value, ",") {
			add(strings.TrimSpace(part))
		}
	}
	return readings, true
}
