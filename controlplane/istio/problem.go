package istio

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Problem is one reason why a set of documents cannot be used, or a warning of
// what can be used and is hardly what was meant.
type Problem struct {
	// File is the name of the file, Line and Column where in it, from 1.
	// Column is 0 where it is not known, as for a file that is not YAML, and
	// Line too where it is no matter of a file's content.
	File         string
	Line, Column int
	// Object is the kind, namespace and name: "VirtualService shop/payment".
	// It is "" for a problem of a whole file.
	Object string
	// Field is the path of the field: "spec.http[0].mirror". It is "" for a
	// problem of a whole object.
	Field   string
	Message string
	// Warning tells that the documents can be used nevertheless.
	Warning bool
	// Code is that of the [Lint], for a warning.
	Code string
}

// String is "file:line:col: Kind namespace/name: field: message", without the
// parts that are not known, and with "warning:" before the object of a warning.
// It is one line: control characters, which names of files and objects can hold,
// are escaped.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File + ":")
	if p.Line > 0 {
		fmt.Fprintf(&b, "%d:", p.Line)
	}
	if p.Column > 0 {
		fmt.Fprintf(&b, "%d:", p.Column)
	}
	if p.Warning {
		b.WriteString(" warning:")
	}
	for _, part := range []string{p.Object, p.Field} {
		if part != "" {
			b.WriteString(" " + part + ":")
		}
	}
	b.WriteString(" " + p.Message)
	return printable(b.String())
}

// printable escapes what is not, as Go writes it.
func printable(text string) string {
	var b strings.Builder
	for _, r := range text {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// reporter collects problems. Rules that are looked at once per port or per
// reference find the same problem several times; it is kept once.
type reporter struct {
	problems []Problem
	// doubts are reported only if there is nothing else: they are what an
	// earlier mistake, reported in the words of the document, leads to.
	doubts   []Problem
	warnings []Problem
	// unread tells that a file could not be read to its end.
	unread bool
	seen   map[Problem]bool
	order  map[string]int
}

func newReporter(files []File) *reporter {
	r := &reporter{seen: make(map[Problem]bool), order: make(map[string]int)}
	for i, f := range files {
		if _, ok := r.order[f.Name]; !ok {
			r.order[f.Name] = i
		}
	}
	return r
}

func (r *reporter) add(p Problem) {
	if r.seen[p] {
		return
	}
	r.seen[p] = true
	r.problems = append(r.problems, p)
}

// doubt adds to the doubts.
func (r *reporter) doubt(p Problem) {
	if r.seen[p] {
		return
	}
	r.seen[p] = true
	r.doubts = append(r.doubts, p)
}

func (r *reporter) warn(p Problem) {
	if r.seen[p] {
		return
	}
	r.seen[p] = true
	r.warnings = append(r.warnings, p)
}

// sorted returns the problems in the order of the files and of their lines.
func (r *reporter) sorted() []Problem {
	if len(r.problems) == 0 {
		r.problems = r.doubts
	}
	r.sort(r.problems)
	return r.problems
}

// sortedWarnings returns the warnings in the order of the files and of their
// lines.
func (r *reporter) sortedWarnings() []Problem {
	if len(r.problems)+len(r.doubts) > 0 {
		r.warnings = slices.DeleteFunc(r.warnings, func(p Problem) bool {
			return !slices.ContainsFunc(ofOne, func(l lint) bool { return lints[l].Code == p.Code })
		})
	}
	r.sort(r.warnings)
	return r.warnings
}

func (r *reporter) sort(problems []Problem) {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(r.order[a.File], r.order[b.File]),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
		)
	})
}
