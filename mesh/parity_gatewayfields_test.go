package mesh_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// gatewayTypes is the Gateway API as the control plane reads it, generated from its
// published module.
const gatewayTypes = "../controlplane/istio/internal/gatewayapi/types.go"

// refusedFields are the fields of routes that are refused, and why. A field that a
// newer API brings is refused until it is translated, and fails this test until it
// is either here or in a row.
var refusedFields = map[string]string{
	"VirtualService.tls": notHTTP, "L4MatchAttributes.destinationSubnets": noAddress, "L4MatchAttributes.sourceSubnet": noAddress,
	"Abort.http2Error": notInIstio, "Delay.exponentialDelay": notInIstio,

	"HTTPRouteSpec.useDefaultGateways": noGateways, "GRPCRouteSpec.useDefaultGateways": noGateways,
	"HTTPRouteRule.sessionPersistence": persistence, "GRPCRouteRule.sessionPersistence": persistence,
	"HTTPRouteFilter.externalAuth": "who may call is decided by the server: AuthorizationPolicy with CUSTOM",
	"HTTPRouteFilter.extensionRef": extension, "GRPCRouteFilter.extensionRef": extension,
}

const (
	notHTTP     = "what callers have encrypted themselves is not routed: a caller in the process does not"
	noAddress   = "a caller in the process names a host, and has no address before it connects"
	notInIstio  = "Istio has the field and does nothing with it"
	noGateways  = "this is a mesh: it has no gateways"
	persistence = "callers of a mesh have no cookies: consistentHash of a DestinationRule keeps them together"
	extension   = "it is of the implementation's own, and there is none"
)

// gatewayWithoutRow are the fields of the Gateway API that are accepted and have no
// row, and why.
var gatewayWithoutRow = map[string]string{
	"HTTPRouteSpec.hostnames": "have no effect on routes of a Service, which is a warning", "GRPCRouteSpec.hostnames": "as above",
	"ParentReference.namespace": otherNamespace, "ParentReference.sectionName": otherNamespace,
	"HTTPBackendRef.namespace": otherNamespace, "GRPCBackendRef.namespace": otherNamespace, "BackendObjectReference.namespace": otherNamespace,
	"HTTPRouteRule.name": ruleName, "GRPCRouteRule.name": ruleName,
}

const (
	otherNamespace = "all rows are in one namespace, and one ServiceEntry has the ports: see the tests of the translation"
	ruleName       = "it names the route, for logs: see the tests of the translation"
)

// gatewayField is a field of a struct of the Gateway API.
type gatewayField struct {
	tag   string
	inner string // its struct, "" without one
	list  bool
}

func readGatewayTypes(t *testing.T) map[string][]gatewayField {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), gatewayTypes, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	structs := make(map[string][]gatewayField)
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		body, ok := spec.Type.(*ast.StructType)
		if !ok {
			return false
		}
		for _, f := range body.Fields.List {
			quoted, err := strconv.Unquote(f.Tag.Value)
			if err != nil {
				t.Fatal(err)
			}
			field := gatewayField{tag: reflect.StructTag(quoted).Get("json")}
			of := f.Type
			for {
				if pointer, ok := of.(*ast.StarExpr); ok {
					of = pointer.X
				} else if list, ok := of.(*ast.ArrayType); ok {
					field.list, of = true, list.Elt
				} else {
					break
				}
			}
			if name, ok := of.(*ast.Ident); ok && ast.IsExported(name.Name) {
				field.inner = name.Name
			}
			structs[spec.Name.Name] = append(structs[spec.Name.Name], field)
		}
		return false
	})
	return structs
}

// gatewayFields collects what is accepted, refused and used of the structs.
type gatewayFields struct {
	structs                 map[string][]gatewayField
	accepted, refused, used fieldSet
}

// ask asks the control plane about each field of a struct, and of those in it.
func (g *gatewayFields) ask(t *testing.T, name string, seen map[string]bool, document func(string) string) {
	t.Helper()
	if seen[name] {
		return
	}
	seen[name] = true
	for _, f := range g.structs[name] {
		within := func(value string) string { return document("{" + f.tag + ": " + value + "}") }
		if refuses(within("{}")) {
			g.refused[name+"."+f.tag] = true
			continue
		}
		g.accepted[name+"."+f.tag] = true
		switch {
		case f.inner == "":
		case f.list:
			g.ask(t, f.inner, seen, func(value string) string { return within("[" + value + "]") })
		default:
			g.ask(t, f.inner, seen, within)
		}
	}
}

// refuses reports whether the control plane refuses a field of a document.
func refuses(document string) bool {
	_, problems := istio.Parse([]istio.File{{Name: "field.yaml", Data: []byte(document)}}, istio.Options{})
	return slices.ContainsFunc(problems, isRefused)
}

// use adds the fields that a node sets.
func (g *gatewayFields) use(t *testing.T, name string, node any) {
	t.Helper()
	entries, ok := node.(map[string]any)
	if !ok {
		t.Fatalf("%s: %v is no mapping", name, node)
	}
	for tag, value := range entries {
		i := slices.IndexFunc(g.structs[name], func(f gatewayField) bool { return f.tag == tag })
		if i < 0 {
			t.Fatalf("%s has no field %q", name, tag)
		}
		f := g.structs[name][i]
		g.used[name+"."+tag] = true
		if f.inner == "" {
			continue
		}
		values, ok := value.([]any)
		if !ok {
			values = []any{value}
		}
		for _, v := range values {
			g.use(t, f.inner, v)
		}
	}
}

// TestEveryFieldOfARouteHasARowOrARefusal finds the fields by the descriptors of
// VirtualService and by the types of the Gateway API.
func TestEveryFieldOfARouteHasARowOrARefusal(t *testing.T) {
	t.Parallel()
	g := &gatewayFields{structs: readGatewayTypes(t), accepted: make(fieldSet), refused: make(fieldSet), used: make(fieldSet)}
	seen := make(map[string]bool)
	for _, kind := range []string{"HTTPRoute", "GRPCRoute"} {
		g.ask(t, kind+"Spec", seen, func(spec string) string {
			return "{apiVersion: gateway.networking.k8s.io/v1, kind: " + kind + ", metadata: {name: a, namespace: b}, spec: " + spec + "}"
		})
	}
	virtualService := parityKinds["VirtualService"]
	g.refuse(virtualService, make(map[protoreflect.FullName]bool), func(spec string) string {
		return "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a, namespace: b}, spec: " + spec + "}"
	})
	decoder := yaml.NewDecoder(strings.NewReader(parityYAML(parityRows(), map[string]parityAddress{})))
	for {
		var document struct {
			Kind string
			Spec any
		}
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if document.Kind == "HTTPRoute" || document.Kind == "GRPCRoute" {
			g.use(t, document.Kind+"Spec", document.Spec)
		}
	}
	if len(g.accepted) < 60 {
		t.Errorf("only %d fields are accepted: does the control plane still say so as this test expects?", len(g.accepted))
	}
	for _, field := range slices.Sorted(maps.Keys(g.accepted)) {
		if why, ok := gatewayWithoutRow[field]; g.used[field] == ok {
			t.Errorf("%s: in a row: %t, without a row because: %q", field, g.used[field], why)
		}
	}
	if want, got := slices.Sorted(maps.Keys(refusedFields)), slices.Sorted(maps.Keys(g.refused)); !slices.Equal(want, got) {
		t.Errorf("refused are\n%q\nand a reason have\n%q", got, want)
	}
}

// refuse adds the fields of a message, and of those in it, that are refused.
func (g *gatewayFields) refuse(message protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool, document func(string) string) {
	if seen[message.FullName()] {
		return
	}
	seen[message.FullName()] = true
	fields := message.Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		within := func(value string) string { return document("{" + field.JSONName() + ": " + value + "}") }
		if refuses(within("{}")) {
			g.refused[string(message.Name())+"."+field.JSONName()] = true
			continue
		}
		switch inner := innerMessage(field); {
		case inner == nil:
		case field.IsMap():
			g.refuse(inner, seen, func(value string) string { return within(`{"1": ` + value + "}") })
		case field.IsList():
			g.refuse(inner, seen, func(value string) string { return within("[" + value + "]") })
		default:
			g.refuse(inner, seen, within)
		}
	}
}
