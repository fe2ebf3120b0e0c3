package explain

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
)

// shownBody is how many bytes of a body are shown.
const shownBody = 256

// shown is the value of a header, unless it may be a secret.
func (q *Question) shown(name, value string) string {
	switch {
	case !Secret(name):
		return value
	case q.exact:
		sum := sha256.Sum256([]byte(value))
		return fmt.Sprintf("%s, SHA-256 %x...", Hidden, sum[:4])
	}
	return Hidden
}

// empty are the headers that are to be sent whatever the request has, and are not,
// because what is computed for them is nothing.
func (q *Question) empty(d *route.Decision) []string {
	var all, removed []string
	for _, m := range d.Mutations() {
		removed = append(removed, m.RequestRemove...)
	}
	for _, m := range d.Mutations() {
		for i := range m.RequestAdd {
			v := &m.RequestAdd[i]
			always := v.Action == discovery.AppendIfExistsOrAdd || v.Action == discovery.OverwriteIfExistsOrAdd
			if always && v.Format != nil && len(q.Headers.Values(v.Name)) == 0 && !slices.Contains(removed, v.Name) {
				all = append(all, "without "+v.Name+": "+q.shown(v.Name, v.Format.Source)+" is empty here")
			}
		}
	}
	return all
}

// operations are header operations in words, in the order in which they are applied,
// of the headers that are wanted. Values that are computed are shown as they are
// configured.
func (q *Question) operations(add []discovery.HeaderValue, remove []string, wanted func(name string) bool) []string {
	var all []string
	for _, name := range remove {
		if wanted(name) {
			all = append(all, "removes "+name)
		}
	}
	for i := range add {
		v := &add[i]
		if !wanted(v.Name) {
			continue
		}
		value := v.Value
		if v.Format != nil {
			value = v.Format.Source
		}
		verb, condition := "sets ", ""
		switch v.Action {
		case discovery.AppendIfExistsOrAdd:
			verb = "adds "
		case discovery.AddIfAbsent:
			verb, condition = "adds ", " if it is absent"
		case discovery.OverwriteIfExists:
			condition = " if it is there"
		case discovery.OverwriteIfExistsOrAdd:
		}
		all = append(all, verb+v.Name+": "+q.shown(v.Name, value)+condition)
	}
	return all
}
