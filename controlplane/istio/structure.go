package istio

import (
	"math"
	"reflect"

	"go.yaml.in/yaml/v3"

	"github.com/inboardmesh/inboard/controlplane/istio/internal/kubeapi"
)

// structure fills a struct of the Gateway API or Kubernetes' from a YAML node, as message fills
// a protobuf: by Kubernetes' rules for JSON, and as strictly.
func (d *decoder) structure(n *yaml.Node, to reflect.Value, a at) {
	entries, ok := d.mapping(n, a)
	if !ok {
		return
	}
	d.members(entries, to, a)
}

func (d *decoder) members(entries fieldList, to reflect.Value, a at) {
	of := to.Type()
	for _, e := range entries {
		child := a.field(e.name)
		i := fieldByTag(of, e.name)
		switch {
		case i < 0 && partialStructs[of.Name()]:
		case isNull(e.value) && i >= 0 && of.PkgPath() == kubePackage: // so kubectl writes an empty list
		case i < 0:
			child.refuse("unknown field%s", tagSuggestion(of, e.name))
			d.obj.broken[a.path] = true
		case isNull(e.value):
			child.undecodable("has no value: write one, or remove the field")
		case !isTranslatedMember(of.Name(), e.name):
			child.refuse("is not supported: remove it")
			d.obj.broken[a.path] = true
		default:
			d.fill(e.value, to.Field(i), child)
		}
	}
}

// fill sets a value from a node. What cannot be decoded stays as it is, and is
// reported.
func (d *decoder) fill(n *yaml.Node, to reflect.Value, a at) {
	switch to.Kind() {
	case reflect.Pointer:
		inner := reflect.New(to.Type().Elem())
		d.fill(n, inner.Elem(), a)
		if !d.obj.broken[a.path] || inner.Elem().Kind() == reflect.Struct {
			to.Set(inner)
		}
	case reflect.Struct:
		d.structure(n, to, a)
	case reflect.Slice:
		d.fillList(n, to, a)
	case reflect.Map:
		d.fillMap(n, to, a)
	case reflect.String:
		if to.Type() == reflect.TypeFor[kubeapi.IntOrString]() && n.Kind == yaml.ScalarNode && n.ShortTag() == "!!int" {
			to.SetString(n.Value)
			return
		}
		if text, ok := d.text(n, a); ok {
			to.SetString(text)
		}
	case reflect.Bool:
		if b, ok := d.boolean(n, a); ok {
			to.SetBool(b)
		}
	case reflect.Int, reflect.Int32:
		if i, ok := d.integer(n, math.MinInt32, math.MaxInt32, a); ok {
			to.SetInt(i)
		}
	default:
		a.refuse("has a type that is not supported: remove it")
	}
}

func (d *decoder) fillList(n *yaml.Node, to reflect.Value, a at) {
	if n.Kind != yaml.SequenceNode {
		a.undecodable("expected a list, found %s: begin each element with \"- \"", describe(n))
		return
	}
	// An element that cannot be decoded keeps its place, so that the indexes of
	// the others stay right.
	list := reflect.MakeSlice(to.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		child := a.index(i)
		d.obj.places[child.path] = place{value: positionOf(item)}
		if isNull(item) {
			child.undecodable("must not be empty")
			continue
		}
		d.fill(item, list.Index(i), child)
	}
	to.Set(list)
}

// fillMap fills a map of texts.
func (d *decoder) fillMap(n *yaml.Node, to reflect.Value, a at) {
	entries, ok := d.entries(n, a, a.key)
	if !ok {
		return
	}
	m := reflect.MakeMap(to.Type())
	for _, e := range entries {
		if text, ok := d.text(e.value, a.key(e.name)); ok {
			m.SetMapIndex(reflect.ValueOf(e.name), reflect.ValueOf(text))
		}
	}
	to.Set(m)
}

// fieldByTag is the index of the field with a name in JSON, -1 for none.
func fieldByTag(of reflect.Type, name string) int {
	for i := range of.NumField() {
		if of.Field(i).Tag.Get("json") == name {
			return i
		}
	}
	return -1
}

// tagSuggestion offers the fields whose names are like one that does not exist.
func tagSuggestion(of reflect.Type, name string) string {
	var names []string
	for field := range of.Fields() {
		names = append(names, field.Tag.Get("json"))
	}
	return offerField(name, names)
}

// translatedStructs lists, by struct of the Gateway API, the fields that are
// translated. What is not listed is refused.
var translatedStructs = map[string][]string{
	"HTTPRouteSpec":   {"parentRefs", "hostnames", "rules"},
	"GRPCRouteSpec":   {"parentRefs", "hostnames", "rules"},
	"ParentReference": {"group", "kind", "namespace", "name", "sectionName", "port"},

	"HTTPRouteRule":       {"name", "matches", "filters", "backendRefs", "timeouts", "retry"},
	"HTTPRouteMatch":      {"path", "headers", "queryParams", "method"},
	"HTTPPathMatch":       {"type", "value"},
	"HTTPHeaderMatch":     {"type", "name", "value"},
	"HTTPQueryParamMatch": {"type", "name", "value"},
	"HTTPRouteFilter": {
		"type", "requestHeaderModifier", "responseHeaderModifier", "requestRedirect", "urlRewrite", "requestMirror", "cors",
	},
	"HTTPCORSFilter":            {"allowOrigins", "allowCredentials", "allowMethods", "allowHeaders", "exposeHeaders", "maxAge"},
	"HTTPRequestMirrorFilter":   {"backendRef", "percent", "fraction"},
	"BackendObjectReference":    {"group", "kind", "name", "namespace", "port"},
	"Fraction":                  {"numerator", "denominator"},
	"HTTPHeaderFilter":          {"set", "add", "remove"},
	"HTTPHeader":                {"name", "value"},
	"HTTPRequestRedirectFilter": {"scheme", "hostname", "path", "port", "statusCode"},
	"HTTPURLRewriteFilter":      {"hostname", "path"},
	"HTTPPathModifier":          {"type", "replaceFullPath", "replacePrefixMatch"},
	"HTTPBackendRef":            {"group", "kind", "name", "namespace", "port", "weight", "filters"},
	"HTTPRouteTimeouts":         {"request", "backendRequest"},
	"HTTPRouteRetry":            {"codes", "attempts", "backoff"},

	"GRPCRouteRule":   {"name", "matches", "filters", "backendRefs"},
	"GRPCRouteMatch":  {"method", "headers"},
	"GRPCMethodMatch": {"type", "service", "method"},
	"GRPCHeaderMatch": {"type", "name", "value"},
	"GRPCRouteFilter": {"type", "requestHeaderModifier", "responseHeaderModifier", "requestMirror"},
	"GRPCBackendRef":  {"group", "kind", "name", "namespace", "port", "weight", "filters"},
}
