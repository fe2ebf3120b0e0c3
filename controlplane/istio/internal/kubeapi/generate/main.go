// Command generate writes the types of Kubernetes' API that the control plane
// reads, as plain Go structs without dependencies. It takes them from the
// published Go modules by reflection, so that no field can be misspelt or
// forgotten, and its test fails when the result is not the file that is there.
// It is a module of its own because those modules bring a dozen others of
// Kubernetes with them.
//
//	go run . >../types.go
package main

import (
	"fmt"
	"go/format"
	"io"
	"os"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

func main() {
	source, err := generate()
	if err == nil {
		_, err = os.Stdout.Write(source)
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err) // there is nowhere else to say it
		os.Exit(1)
	}
}

// roots are the types that are read, and the fields of some that are. What pods
// and nodes are made of is a hundred types more that nothing here reads.
var roots = []struct {
	of     reflect.Type
	fields []string // nil are all
}{
	{reflect.TypeFor[discoveryv1.EndpointSlice](), []string{"addressType", "endpoints", "ports"}},
	{reflect.TypeFor[corev1.ServiceSpec](), nil},
	{reflect.TypeFor[corev1.PodSpec](), []string{"serviceAccountName"}},
	{reflect.TypeFor[corev1.NodeSpec](), []string{"unschedulable"}},
}

// generate is the source of types.go.
func generate() ([]byte, error) {
	g := &generator{known: make(map[string]reflect.Type), only: make(map[reflect.Type][]string)}
	g.printf("// Code generated from k8s.io/api by generate; DO NOT EDIT.\n\npackage kubeapi\n\n" +
		"// IntOrString is a number or a name, as it is written.\ntype IntOrString string\n")
	for _, root := range roots {
		g.only[root.of] = root.fields
		if _, err := g.typeOf(root.of); err != nil {
			return nil, err
		}
	}
	for len(g.queue) > 0 {
		next := g.queue[0]
		g.queue = g.queue[1:]
		if err := g.structure(next); err != nil {
			return nil, err
		}
	}
	return format.Source([]byte(g.out.String()))
}

type generator struct {
	out   strings.Builder
	known map[string]reflect.Type
	only  map[reflect.Type][]string
	queue []reflect.Type
}

func (g *generator) printf(format string, args ...any) {
	_, _ = io.WriteString(&g.out, fmt.Sprintf(format, args...)) // a builder never fails
}

func (g *generator) structure(t reflect.Type) error {
	g.printf("\n// %[1]s is %[1]s of Kubernetes' API.\ntype %[1]s struct {\n", t.Name())
	left := make(map[string]bool)
	for _, name := range g.only[t] {
		left[name] = true
	}
	for f := range t.Fields() {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if g.only[t] != nil && !left[tag] {
			continue
		}
		delete(left, tag)
		name, err := g.typeOf(f.Type)
		if err != nil {
			return fmt.Errorf("%s.%s: %w", t.Name(), f.Name, err)
		}
		g.printf("\t%s %s `json:%q`\n", f.Name, name, tag)
	}
	g.printf("}\n")
	if len(left) > 0 {
		return fmt.Errorf("%s does not have all of the fields %q", t.Name(), g.only[t])
	}
	return nil
}

// typeOf is how a type is written here: names of scalars are only names.
func (g *generator) typeOf(t reflect.Type) (string, error) {
	switch t.Kind() {
	case reflect.Pointer:
		inner, err := g.typeOf(t.Elem())
		return "*" + inner, err
	case reflect.Slice:
		inner, err := g.typeOf(t.Elem())
		return "[]" + inner, err
	case reflect.Map:
		inner, err := g.typeOf(t.Elem())
		return "map[" + t.Key().Kind().String() + "]" + inner, err
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int32:
		return t.Kind().String(), nil
	case reflect.Struct:
		if t.Name() == "IntOrString" { // a number or a name
			return "IntOrString", nil
		}
		if other, ok := g.known[t.Name()]; ok && other != t {
			return "", fmt.Errorf("two types are called %s", t.Name())
		} else if !ok {
			g.known[t.Name()] = t
			g.queue = append(g.queue, t)
		}
		return t.Name(), nil
	default:
		return "", fmt.Errorf("%s is of a kind that is not generated", t)
	}
}
