package istio

import (
	"fmt"
	"strings"
	"time"
)

// object is one decoded document. It never changes after it was decoded.
type object struct {
	kind        string
	namespace   string
	name        string
	labels      map[string]string
	annotations map[string]string
	// created is zero if the document does not tell.
	created time.Time
	// healthy tells that the condition Healthy of the status is True.
	healthy bool
	// foreign tells that the object is for gateways alone: what is in it is not checked.
	foreign bool
	// spec is a message of istio.io/api, or a struct of the Gateway API or of
	// Kubernetes'.
	spec any

	file string
	// places knows where each field was written, by its path.
	places map[string]place
	// broken are the fields that could not be decoded, or not whole. That was
	// reported, so that nothing more is to be said about their values, nor
	// about what seems to be missing in them.
	broken map[string]bool
	root   position
}

type position struct{ line, column int }

// place is where a field is: its key and its value. An element of a list has
// only a value.
type place struct{ key, value position }

// title names the object in problems.
func (o *object) title() string {
	switch {
	case o.name == "":
		return o.kind
	case o.namespace == "":
		return o.kind + " " + o.name
	}
	return o.kind + " " + o.namespace + "/" + o.name
}

// source names the object together with the place where it begins.
func (o *object) source() string {
	return fmt.Sprintf("%s (%s:%d)", o.title(), o.file, o.root.line)
}

// isOlder reports whether it is known that an object is older than another.
func (o *object) isOlder(other *object) bool {
	// No age is told by no time, not by the first of all times.
	return !o.created.IsZero() && !other.created.IsZero() && o.created.Before(other.created)
}

// at is a field of an object, which may or may not have been written. It
// carries what is needed to report a problem with the field.
type at struct {
	rep  *reporter
	obj  *object
	path string
}

func (a at) field(name string) at {
	if a.path != "" {
		name = a.path + "." + name
	}
	a.path = name
	return a
}

func (a at) index(i int) at {
	a.path = fmt.Sprintf("%s[%d]", a.path, i)
	return a
}

func (a at) key(k string) at {
	a.path = a.path + "[" + k + "]"
	return a
}

// written reports whether the field is in the document.
func (a at) written() bool {
	_, ok := a.obj.places[a.path]
	return ok
}

// source names a field together with its object and the place of the field.
func (a at) source() string {
	p := a.problem(func(p place) position { return p.value }, "")
	return fmt.Sprintf("%s of %s (%s:%d)", a.path, p.Object, p.File, p.Line)
}

// warnf reports what is allowed and not what was meant, at the value.
func (a at) warnf(kind lint, format string, args ...any) {
	for path := range a.obj.broken {
		// What could not be read says nothing of what was meant.
		if strings.HasPrefix(path, a.path) || strings.HasPrefix(a.path, path) {
			return
		}
	}
	p := a.problem(func(p place) position { return p.value }, fmt.Sprintf(format, args...))
	p.Warning, p.Code = true, lints[kind].Code
	a.rep.warn(p)
}

// errorf reports a wrong value, at the value.
func (a at) errorf(format string, args ...any) {
	if a.obj.broken[a.path] || !a.written() && a.obj.broken[a.parent()] {
		return
	}
	a.rep.add(a.problem(func(p place) position { return p.value }, fmt.Sprintf(format, args...)))
}

// doubt reports a translation that Envoy would refuse, if nothing else is
// wrong.
func (a at) doubt(err error) {
	p := a.problem(keyOrValue, fmt.Sprintf("translates to what Envoy refuses: %v", err))
	a.rep.doubt(p)
}

// undecodable reports a value that is not of the field's type.
func (a at) undecodable(format string, args ...any) {
	a.errorf(format, args...)
	a.obj.broken[a.path] = true
}

// refuse reports a field that must not be there, at its key.
func (a at) refuse(format string, args ...any) {
	a.rep.add(a.problem(keyOrValue, fmt.Sprintf(format, args...)))
}

// keyOrValue is where a field begins: an element of a list has no key.
func keyOrValue(p place) position {
	if p.key.line > 0 {
		return p.key
	}
	return p.value
}

func (a at) problem(pick func(place) position, message string) Problem {
	pos := a.obj.root
	if p, ok := a.obj.places[a.path]; ok {
		pos = pick(p)
	} else if p, ok := a.enclosing(); ok {
		pos = p.value
		if p.key.line > 0 {
			pos = p.key
		}
	}
	return Problem{
		File: a.obj.file, Line: pos.line, Column: pos.column,
		Object: a.obj.title(), Field: a.path, Message: message,
	}
}

// parent is the path of what contains the field.
func (a at) parent() string {
	return a.path[:max(0, strings.LastIndexAny(a.path, ".["))]
}

// enclosing finds the innermost written field that contains a missing one.
func (a at) enclosing() (place, bool) {
	for a.path != "" {
		a.path = a.parent()
		if p, ok := a.obj.places[a.path]; ok {
			return p, true
		}
	}
	return place{}, false
}
