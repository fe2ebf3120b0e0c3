// Package near finds what may have been meant by a name that does not exist.
package near

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// maxNames is how many names are offered.
const maxNames = 3

// Names are the names that somebody may have meant, the most similar first: those
// with few other letters, and services of the same name in other namespaces.
func Names(name string, names []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	short, _, _ := strings.Cut(name, ".")
	var found []candidate
	for _, other := range names {
		first, _, _ := strings.Cut(other, ".")
		most := 1 + len(short)/4
		var d int
		switch {
		case first == short:
			d = distance(name, other)
		case short == name: // it may be the short name of a service
			d = min(far(name, other, most), far(name, first, most))
		default:
			d = far(name, other, most)
		}
		if d <= most || first == short {
			found = append(found, candidate{other, d})
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return cmp.Compare(a.distance, b.distance) })
	found = found[:min(len(found), maxNames)]
	all := make([]string, len(found))
	for i, c := range found {
		all[i] = c.name
	}
	return all
}

// far is the distance of two names, or more than most.
func far(a, b string, most int) int {
	if max(len(a)-len(b), len(b)-len(a)) > most {
		return most + 1
	}
	return distance(a, b)
}

// distance is how many letters have to be inserted, removed, replaced or swapped
// with their neighbour.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			changed := 1
			if a[i-1] == b[j-1] {
				changed = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+changed)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// Question asks whether one of the names was meant: ": did you mean ...?", "" without
// any.
func Question(names []string) string {
	if len(names) == 0 {
		return ""
	}
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = strconv.Quote(name)
	}
	return ": did you mean " + strings.Join(quoted, " or ") + "?"
}
