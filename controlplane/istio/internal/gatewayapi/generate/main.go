// Command generate writes the types of Kubernetes' Gateway API that the control
// plane reads, as plain Go structs without dependencies. It takes them from the
// published Go module by reflection, so that no field can be misspelt or
// forgotten, and its test fails when the result is not the file that is there.
// It is a module of its own because that module brings a dozen others of
// Kubernetes with it.
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

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
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

// generate is the source of types.go.
func generate() ([]byte, error) {
	g := &generator{known: make(map[string]reflect.Type)}
	g.header()
	for _, spec := range []reflect.Type{reflect.TypeFor[gatewayv1.HTTPRouteSpec](), reflect.TypeFor[gatewayv1.GRPCRouteSpec]()} {
		if _, err := g.typeOf(spec); err != nil {
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
	queue []reflect.Type
}

func (g *generator) header() {
	g.printf("// Code generated from sigs.k8s.io/gateway-api/apis/v1 by generate; DO NOT EDIT.\n\npackage gatewayapi\n")
}

func (g *generator) printf(format string, args ...any) {
	_, _ = io.WriteString(&g.out, fmt.Sprintf(format, args...)) // a builder never fails
}

// structure writes a struct; the fields of embedded ones are its own in JSON.
func (g *generator) structure(t reflect.Type) error {
	g.printf("\n// %[1]s is %[1]s of the Gateway API.\ntype %[1]s struct {\n", t.Name())
	if err := g.fields(t); err != nil {
		return err
	}
	g.printf("}\n")
	return nil
}

func (g *generator) fields(t reflect.Type) error {
	for f := range t.Fields() {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && tag == "" {
			if err := g.fields(f.Type); err != nil {
				return err
			}
			continue
		}
		name, err := g.typeOf(f.Type)
		if err != nil {
			return fmt.Errorf("%s.%s: %w", t.Name(), f.Name, err)
		}
		g.printf("\t%s %s `json:%q`\n", f.Name, name, tag)
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
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int32, reflect.Uint16:
		return t.Kind().String(), nil
	case reflect.Struct:
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
