package istio

import (
	"slices"
	"strings"
)

// elsewhere stands for all namespaces that have no answer of their own.
const elsewhere = ""

// byNamespace is an answer that can depend on the namespace of who asks. The
// zero value of T is no answer.
type byNamespace[T comparable] struct {
	elsewhere T
	own       []ownAnswer[T] // sorted; only where it is another one
}

type ownAnswer[T comparable] struct {
	namespace string
	answer    T
}

func (b byNamespace[T]) in(namespace string) T {
	if len(b.own) == 0 {
		return b.elsewhere
	}
	i, ok := slices.BinarySearchFunc(b.own, namespace, func(o ownAnswer[T], namespace string) int {
		return strings.Compare(o.namespace, namespace)
	})
	if !ok {
		return b.elsewhere
	}
	return b.own[i].answer
}

// answers collects the answers of one host by name, for each of its spaces.
type answers[T comparable] struct {
	spaces []string
	values map[string][]T
}

func newAnswers[T comparable](spaces []string) answers[T] {
	return answers[T]{spaces: spaces, values: make(map[string][]T)}
}

// put sets the answer for a name in the space with this number.
func (a answers[T]) put(name string, space int, answer T) {
	values, ok := a.values[name]
	if !ok {
		values = make([]T, len(a.spaces))
		a.values[name] = values
	}
	values[space] = answer
}

// into adds what was collected to an index. The first space is elsewhere; the
// others are sorted.
func (a answers[T]) into(index map[string]byNamespace[T]) {
	for name, values := range a.values {
		entry := byNamespace[T]{elsewhere: values[0]}
		for i, answer := range values {
			if answer != values[0] {
				entry.own = append(entry.own, ownAnswer[T]{a.spaces[i], answer})
			}
		}
		index[name] = entry
	}
}
