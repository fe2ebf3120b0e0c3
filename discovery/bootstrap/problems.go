package bootstrap

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// maxProblems bounds how many mistakes one error lists.
const maxProblems = 50

// problems collects mistakes. The zero value is empty.
type problems struct {
	errs []error
	// reported is true for the paths with a mistake, false for those above.
	reported map[string]bool
	more     int
}

// addf notes a mistake at path. What is found at a path after a mistake at,
// above or below it is a consequence and is left out.
func (p *problems) addf(path, format string, args ...any) {
	if _, below := p.reported[path]; below {
		return
	}
	for above := parent(path); above != ""; above = parent(above) {
		if p.reported[above] {
			return
		}
	}
	if p.reported == nil {
		p.reported = make(map[string]bool)
	}
	p.reported[path] = true
	for above := parent(path); above != ""; above = parent(above) {
		p.reported[above] = false
	}
	if len(p.errs) == maxProblems {
		p.more++
		return
	}
	p.errs = append(p.errs, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...)))
}

// err returns all mistakes as one error, nil without one.
func (p *problems) err() error {
	if len(p.errs) == 0 {
		return nil
	}
	errs := p.errs
	if p.more > 0 {
		errs = append(slices.Clip(errs), fmt.Errorf("and %d more mistakes", p.more))
	}
	return fmt.Errorf("bootstrap: %w", errors.Join(errs...))
}

// parent returns the path of the object or list that holds what is at path, ""
// for the root.
func parent(path string) string { return path[:max(strings.LastIndexAny(path, ".["), 0)] }

// child returns the path of a key of the object at path.
func child(path, key string) string {
	if key != "" && strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == "" {
		return path + "." + shorten(key)
	}
	return path + "[" + strconv.Quote(shorten(key)) + "]"
}

// shorten bounds foreign text in an error.
func shorten(s string) string {
	const limit = 64
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "..."
}

// text is the text of a foreign error on one bounded line.
func text(err error) string {
	const limit = 256
	s := strings.Join(strings.Fields(err.Error()), " ")
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
