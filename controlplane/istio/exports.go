package istio

import (
	"slices"

	networking "istio.io/api/networking/v1alpha3"
)

// exports are the namespaces that see an object.
type exports struct {
	all bool
	// to are the others, without all: names, sorted.
	to []string
}

// newExports reads exportTo by Istio's rules: nothing is "*", every namespace,
// and "." is the object's own. Only a ServiceEntry can be hidden from everybody,
// with "~".
func newExports(o *object, exportTo []string, a at) exports {
	if len(exportTo) == 0 {
		return exports{all: true}
	}
	var e exports
	_, hidable := o.spec.(*networking.ServiceEntry)
	for i, namespace := range exportTo {
		switch {
		case namespace == "*" || namespace == "~" && hidable:
			if len(exportTo) > 1 {
				a.index(i).errorf("%q cannot stand with others: keep one of them", namespace)
			}
			e.all = namespace == "*"
			continue
		case namespace == ".":
			namespace = o.namespace
		case !isDNSLabel(namespace):
			a.index(i).errorf("%q is not a namespace: use \"*\", \".\" or a name", namespace)
			continue
		}
		if slices.Contains(e.to, namespace) {
			a.index(i).errorf("%q is there twice", namespace)
			continue
		}
		e.to = append(e.to, namespace)
	}
	slices.Sort(e.to)
	return e
}

// visibleIn reports whether a namespace sees the object. "" is any namespace
// that no document names.
func (e exports) visibleIn(namespace string) bool {
	return e.all || slices.Contains(e.to, namespace)
}

// privateTo reports whether only this namespace sees the object.
func (e exports) privateTo(namespace string) bool {
	return !e.all && len(e.to) == 1 && e.to[0] == namespace
}
