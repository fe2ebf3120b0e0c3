package istio_test

import (
	"bufio"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

func TestLintsAreDocumented(t *testing.T) {
	t.Parallel()
	file, err := os.Open("../../docs/lint.md")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var rows []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "| `") {
			rows = append(rows, lines.Text())
		}
	}
	want := make([]string, 0, len(istio.Lints()))
	for _, l := range istio.Lints() {
		want = append(want, "| `"+l.Code+"` | "+l.Summary+" | "+l.Remedy+" |")
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("docs/lint.md (-want +got):\n%s", diff)
	}
	if !slices.IsSorted(want) {
		t.Errorf("the codes are not sorted")
	}
}
