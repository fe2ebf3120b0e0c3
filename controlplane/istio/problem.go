package istio

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one reason why a set of documents cannot be used.
type Problem struct {
	// File is the name of the file, Line and Column where in it, from 1.
	// Column is 0 where it is not known, as for a file that is not YAML.
	File         string
	Line, Column int
	// Object is the kind, namespace and name: "VirtualService shop/payment".
	// It is "" for a problem of a whole file.
	Object string
	// Field is the path of the field: "spec.http[0].mirror". It is "" for a
	// problem of a whole object.
	Field   string
	Message string
}

// String is "file:line:col: Kind namespace/name: field: message", without the
// parts that are not known.
func (p Problem) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:", p.File, p.Line)
	if p.Column > 0 {
		fmt.Fprintf(&b, "%d:", p.Column)
	}
	for _, part := range []string{p.Object, p.Field} {
		if part != "" {
			b.WriteString(" " + part + ":")
		}
	}
	b.WriteString(" " + p.Message)
	return b.String()
}

// reporter collects problems. Rules that are looked at once per port or per
// reference find the same problem several times; it is kept once.
type reporter struct {
	problems []Problem
	// doubts are reported only if there is nothing else: they are what an
	// earlier mistake, reported in the words of the document, leads to.
	doubts []Problem
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

// sorted returns the problems in the order of the files and of their lines.
func (r *reporter) sorted() []Problem {
	if len(r.problems) == 0 {
		r.problems = r.doubts
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(r.order[a.File], r.order[b.File]),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
		)
	})
	return r.problems
}
