package layout

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// source is one Go file, as far as the layout is concerned.
type source struct {
	// name is relative to the module's root.
	name string
	// pkg is the package clause, e.g. "mesh_test".
	pkg string
	// generated files answer only for the floors.
	generated bool
	test      bool
	imports   []string
	// blank are the imports under the name "_".
	blank []string
	// inits is the number of init functions.
	inits int
	// sleeps is whether time.Sleep occurs in it.
	sleeps bool
	lines  int
}

// house is the rules that check enforces.
type house struct {
	module       string
	floors       map[string]place
	confinements []confinement
	inits        map[string]string
	maxLines     int
}

// check returns every violation in packages, which maps a path below the
// module's to the files of the package, in a stable order.
func (h *house) check(packages map[string][]source) []string {
	var found []string
	report := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }

	for _, path := range slices.Sorted(maps.Keys(packages)) {
		at, ok := h.place(path)
		if !ok {
			report("package %q stands on no floor: add it to floors_test.go", path)
			continue
		}
		bubbles := slices.ContainsFunc(packages[path], func(f source) bool { return slices.Contains(f.imports, "testing/synctest") })
		for _, file := range packages[path] {
			if file.lines > h.maxLines && !file.generated {
				report("%s has %d lines: split it by noun below %d", file.name, file.lines, h.maxLines)
			}
			if file.inits > 0 && !file.test && !file.generated && h.inits[path] == "" {
				report("%s has an init function: build it in a constructor", file.name)
			}
			if len(file.blank) > 0 && !file.test && file.pkg != "main" {
				report("%s imports %q for its side effects: register nothing by import", file.name, file.blank[0])
			}
			if file.sleeps && file.test && !bubbles {
				report("%s sleeps in real time: use testing/synctest, or wait for what happens", file.name)
			}
			for _, imported := range file.imports {
				if problem := h.checkImport(path, at, &file, imported); problem != "" {
					report("%s imports %q: %s", file.name, imported, problem)
				}
			}
		}
	}
	return found
}

// checkImport returns what is wrong with one import, or "".
func (h *house) checkImport(path string, at place, file *source, imported string) string {
	inner, inside := strings.CutPrefix(imported, h.module+"/")
	if !inside {
		if file.test || file.generated {
			return ""
		}
		for _, c := range h.confinements {
			if matches(c.imported, imported) && !matchesAny(c.allowed, path) {
				return c.reason
			}
		}
		return ""
	}

	to, ok := h.place(inner)
	switch {
	case !ok:
		return "it stands on no floor"
	case at.plane == controlPlane && (to.plane == dataPlane || to.plane == whole):
		// This binds test files as well: the control plane is tested by its
		// wire format.
		return "the control plane knows nothing of the data plane"
	case file.test:
		// A test may start what stands above the package that it tests.
		return ""
	case at.plane == dataPlane && (to.plane == controlPlane || to.plane == whole):
		return "the data plane knows nothing of the control plane"
	case to.floor >= at.floor:
		return fmt.Sprintf("floor %d imports only from lower floors, and this is floor %d", at.floor, to.floor)
	}
	return ""
}

// place returns where the package at path stands. An exact entry goes before a
// pattern.
func (h *house) place(path string) (place, bool) {
	if at, ok := h.floors[path]; ok {
		return at, true
	}
	for pattern, at := range h.floors {
		if matches(pattern, path) {
			return at, true
		}
	}
	return place{}, false
}

// matches reports whether path is pattern or, if pattern ends in "/...", is at
// or below it.
func matches(pattern, path string) bool {
	prefix, tree := strings.CutSuffix(pattern, "/...")
	return path == prefix || tree && strings.HasPrefix(path, prefix+"/")
}

func matchesAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, path) })
}
