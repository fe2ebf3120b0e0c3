package layout

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/inboardmesh/inboard"
	root   = "../.."
)

func TestEveryPackageStandsOnItsFloor(t *testing.T) {
	t.Parallel()
	packages, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, known := range []string{"observe", "internal/layout"} {
		if len(packages[known]) == 0 {
			t.Fatalf("package %q was not read: the rest of the check would pass without looking", known)
		}
	}
	rules := house{module: module, floors: floors, confinements: confinements, inits: registersInInit, maxLines: maxLines}
	for _, violation := range rules.check(packages) {
		t.Error(violation)
	}
}

func TestPatternsOfFloorsDoNotOverlap(t *testing.T) {
	t.Parallel()
	for pattern := range floors {
		if !strings.HasSuffix(pattern, "/...") {
			continue
		}
		for path := range floors {
			// An exact entry goes before a pattern; of two patterns, chance decides.
			if path != pattern && strings.HasSuffix(path, "/...") && matches(pattern, path) {
				t.Errorf("%q and %q both match: the place of a package must not depend on chance", pattern, path)
			}
		}
	}
}

func TestCheckReports(t *testing.T) {
	t.Parallel()
	rules := house{
		module: "m",
		floors: map[string]place{
			"leaf":     {0, dataPlane},
			"common":   {0, shared},
			"middle":   {1, dataPlane},
			"sibling":  {1, dataPlane},
			"top":      {2, dataPlane},
			"control":  {2, controlPlane},
			"fixture":  {3, whole},
			"cmd/...":  {8, whole},
			"register": {1, dataPlane},
		},
		confinements: []confinement{
			{imported: "envoy.io/api/...", allowed: []string{"middle"}, reason: "protobufs end here"},
			{imported: "log", reason: "use slog"},
		},
		inits:    map[string]string{"register": "it must"},
		maxLines: 10,
	}
	tests := []struct {
		name string
		path string
		file source
		want []string
	}{
		{"nothing about a downward import", "middle", source{imports: []string{"m/leaf", "fmt"}}, nil},
		{
			"an upward import", "middle", source{imports: []string{"m/top"}},
			[]string{`f.go imports "m/top": floor 1 imports only from lower floors, and this is floor 2`},
		},
		{
			"an import of the same floor", "middle", source{imports: []string{"m/sibling"}},
			[]string{`f.go imports "m/sibling": floor 1 imports only from lower floors, and this is floor 1`},
		},
		{
			"a package on no floor", "attic", source{imports: []string{"m/leaf"}},
			[]string{`package "attic" stands on no floor: add it to floors_test.go`},
		},
		{
			"an import of a package on no floor", "top", source{imports: []string{"m/attic"}},
			[]string{`f.go imports "m/attic": it stands on no floor`},
		},
		{
			"the control plane that imports the data plane", "control", source{imports: []string{"m/leaf"}},
			[]string{`f.go imports "m/leaf": the control plane knows nothing of the data plane`},
		},
		{
			"a test of the control plane that imports the data plane", "control",
			source{test: true, imports: []string{"m/top"}},
			[]string{`f.go imports "m/top": the control plane knows nothing of the data plane`},
		},
		{
			"a test of the control plane that imports a fixture of both planes", "control",
			source{test: true, imports: []string{"m/fixture"}},
			[]string{`f.go imports "m/fixture": the control plane knows nothing of the data plane`},
		},
		{
			"the data plane that imports the control plane", "top", source{imports: []string{"m/control"}},
			[]string{`f.go imports "m/control": the data plane knows nothing of the control plane`},
		},
		{"nothing about a shared leaf", "control", source{imports: []string{"m/common"}}, nil},
		{"nothing about a test that starts what is above", "middle", source{test: true, imports: []string{"m/top", "m/control"}}, nil},
		{"nothing about a program that uses both planes", "cmd/a/b", source{imports: []string{"m/top", "m/control", "m/fixture"}}, nil},
		{
			"a confined dependency in the wrong place", "top", source{imports: []string{"envoy.io/api/v3"}},
			[]string{`f.go imports "envoy.io/api/v3": protobufs end here`},
		},
		{"nothing about a confined dependency in its place", "middle", source{imports: []string{"envoy.io/api/v3"}}, nil},
		{"nothing about a confined dependency in a test", "top", source{test: true, imports: []string{"envoy.io/api"}}, nil},
		{"nothing about a path that only begins alike", "top", source{imports: []string{"envoy.io/apis", "log/slog"}}, nil},
		{"a banned import", "top", source{imports: []string{"log"}}, []string{`f.go imports "log": use slog`}},
		{"an init function", "top", source{inits: 1}, []string{"f.go has an init function: build it in a constructor"}},
		{"nothing about the one registration", "register", source{inits: 1}, nil},
		{
			"a blank import", "top", source{blank: []string{"drivers"}, imports: []string{"drivers"}},
			[]string{`f.go imports "drivers" for its side effects: register nothing by import`},
		},
		{"nothing about a blank import of a program", "cmd/a", source{pkg: "main", blank: []string{"drivers"}}, nil},
		{
			"a test that sleeps in real time", "top", source{test: true, sleeps: true, imports: []string{"testing"}},
			[]string{"f.go sleeps in real time: use testing/synctest, or wait for what happens"},
		},
		{"nothing about a test that sleeps in a bubble", "top", source{test: true, sleeps: true, imports: []string{"testing/synctest"}}, nil},
		{
			"nothing about what a generator wrote", "top",
			source{generated: true, inits: 1, lines: 11, imports: []string{"log"}}, nil,
		},
		{
			"an upward import that a generator wrote", "leaf", source{generated: true, imports: []string{"m/top"}},
			[]string{`f.go imports "m/top": floor 0 imports only from lower floors, and this is floor 2`},
		},
		{"a file that is too long", "top", source{lines: 11}, []string{"f.go has 11 lines: split it by noun below 10"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.file.name = "f.go"
			got := rules.check(map[string][]source{test.path: {test.file}})
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestLoadReadsImportsAndInits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "inner/a.go", `// Package inner is read by the tests of the layout.
package inner

import (
	_ "embed"
	"fmt"
)

func init() { fmt.Println("one") }

func init() { fmt.Println("two") }

type t struct{}

func (t) init() { time.Sleep(1) }
`)
	write(t, dir, "inner/b_test.go", "// Code generated by hand. DO NOT EDIT.\n\npackage inner\n")
	write(t, dir, "inner/testdata/c.go", "package data\n")
	write(t, dir, ".hidden/d.go", "package hidden\n")
	write(t, dir, "nested/go.mod", "module nested\n")
	write(t, dir, "nested/e.go", "package nested\n")

	packages, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) != 1 || len(packages["inner"]) != 2 {
		t.Fatalf("got %v, want the two files of inner alone", packages)
	}
	want := source{
		name: "inner/a.go", pkg: "inner", imports: []string{"embed", "fmt"}, blank: []string{"embed"},
		inits: 2, sleeps: true, lines: 15,
	}
	if got := packages["inner"][0]; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := packages["inner"][1]; !got.test || !got.generated {
		t.Errorf("%s is a generated test file", got.name)
	}
}

func TestLoadRefusesWhatDoesNotParse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "broken/a.go", "not a package\n")
	if _, err := load(dir); err == nil || !strings.Contains(err.Error(), "broken/a.go:1:1") {
		t.Errorf("got %v, want an error at broken/a.go:1:1", err)
	}
}

func write(tb testing.TB, dir, name, text string) {
	tb.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}
