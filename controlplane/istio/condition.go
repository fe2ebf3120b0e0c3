package istio

import (
	"reflect"

	"go.yaml.in/yaml/v3"
)

// condition reports whether a condition of the status is True. Of the status
// nothing else is read: Kubernetes writes it, and many hands.
func (d *decoder) condition(fields fieldList, whole at, kind string) bool {
	status, ok := fields.get("status")
	if !ok || isNull(status.value) {
		return false
	}
	a := whole.field("status")
	entries, ok := d.mapping(status.value, a)
	if !ok {
		return false
	}
	list, ok := entries.get("conditions")
	if !ok || isNull(list.value) {
		return false
	}
	a = a.field("conditions")
	if list.value.Kind != yaml.SequenceNode {
		a.undecodable("expected a list, found %s", describe(list.value))
		return false
	}
	for i, item := range list.value.Content {
		var c statusCondition
		d.structure(item, reflect.ValueOf(&c).Elem(), a.index(i))
		if c.Type == kind {
			return c.Status == "True"
		}
	}
	return false
}

// statusCondition is what is read of a condition.
type statusCondition struct {
	Type   string `json:"type"`
	Status string `json:"status"`
}
