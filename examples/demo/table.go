package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// column is one column of a table. Texts that are wider than it push the rest
// of their row to the right.
type column struct {
	title string
	width int
	left  bool // aligned to the left; numbers are not
}

// table prints rows under each other as they come.
type table struct {
	out     io.Writer
	indent  string
	columns []column
}

// header prints the titles and a line below them.
func (t *table) header() {
	titles := make([]string, len(t.columns))
	lines := make([]string, len(t.columns))
	for i, c := range t.columns {
		titles[i] = c.title
		lines[i] = strings.Repeat("-", max(c.width, utf8.RuneCountInString(c.title)))
	}
	t.row(titles...)
	t.row(lines...)
}

// row prints one cell for each column.
func (t *table) row(cells ...string) {
	var b strings.Builder
	b.WriteString(t.indent)
	for i, c := range t.columns {
		if i > 0 {
			b.WriteString("  ")
		}
		padding := strings.Repeat(" ", max(0, max(c.width, utf8.RuneCountInString(c.title))-utf8.RuneCountInString(cells[i])))
		if c.left {
			b.WriteString(cells[i] + padding)
		} else {
			b.WriteString(padding + cells[i])
		}
	}
	fmt.Fprintln(t.out, strings.TrimRight(b.String(), " "))
}
