package istio_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// Each annotation that a document may have has its part of the page, with its fields
// and an example without problems and warnings.
func TestThePageOfAnnotationsIsComplete(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/annotations.md")
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Split(afterIn(t, problemOf(t, "DestinationRule", "inboard.none"), "known are "), ", ")
	parts := strings.Split(string(page), "\n## ")[1:]
	titles := make([]string, len(parts))
	for i, part := range parts {
		titles[i], _, _ = strings.Cut(part, "\n")
	}
	slices.Sort(known)
	if diff := cmp.Diff(known, titles); diff != "" {
		t.Fatalf("the annotations of docs/annotations.md (-known +page):\n%s", diff)
	}
	row := regexp.MustCompile("(?m)^\\| `([a-zA-Z]+)` \\|")
	for i, part := range parts {
		title := titles[i]
		_, block, _ := strings.Cut(part, "```yaml\n")
		example, _, _ := strings.Cut(block, "```")
		if !strings.Contains(example, "\n    "+title+": ") {
			t.Errorf("%s: the example does not have it: %q", title, example)
			continue
		}
		config, problems := istio.Parse([]istio.File{yamlFile(shop), yamlFile(example)}, istio.Options{})
		if len(problems) > 0 {
			t.Errorf("%s: the example has the problems %v", title, problems)
			continue
		}
		if warnings := config.Warnings(); len(warnings) > 0 {
			t.Errorf("%s: the example has the warnings %v", title, warnings)
		}
		kind := "DestinationRule"
		if strings.Contains(example, "kind: VirtualService") {
			kind = "VirtualService"
		}
		want := strings.Split(afterIn(t, problemOf(t, kind, title), `unknown field "none": use `), ", ")
		var fields []string
		for _, match := range row.FindAllStringSubmatch(part, -1) {
			fields = append(fields, match[1])
		}
		slices.Sort(fields)
		slices.Sort(want)
		if diff := cmp.Diff(want, fields); diff != "" {
			t.Errorf("%s: the fields of docs/annotations.md (-known +page):\n%s", title, diff)
		}
	}
}

// problemOf returns what is wrong with an annotation that has the field "none".
func problemOf(t *testing.T, kind, annotation string) string {
	t.Helper()
	spec := "{host: payment}"
	if kind == "VirtualService" {
		spec = "{hosts: [payment], http: [{route: [{destination: {host: payment}}]}]}"
	}
	_, problems := istio.Parse([]istio.File{yamlFile(shop), yamlFile(
		"apiVersion: networking.istio.io/v1\nkind: " + kind + "\nmetadata: {name: a, namespace: shop, annotations: {" +
			annotation + ": \"{none: 1}\"}}\nspec: " + spec + "\n")}, istio.Options{})
	for _, p := range problems {
		if strings.Contains(p.Message, "unknown") {
			return p.Message
		}
	}
	t.Fatalf("%s on a %s: problems %v", annotation, kind, problems)
	return ""
}

// afterIn returns what follows a word.
func afterIn(t *testing.T, text, word string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, word)
	if !ok {
		t.Fatalf("%q has no %q", text, word)
	}
	return rest
}
