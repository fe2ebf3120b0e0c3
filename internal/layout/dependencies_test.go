package layout

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEveryDirectDependencyIsExplained(t *testing.T) {
	t.Parallel()
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(filepath.Join(root, "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	required, explained := directRequirements(string(mod)), explanations(string(doc))
	if len(required) == 0 || len(explained) == 0 {
		t.Fatalf("read %d requirements and %d explanations: the check would pass without looking", len(required), len(explained))
	}
	for _, dep := range required {
		if !slices.Contains(explained, dep) {
			t.Errorf("go.mod requires %q: explain in docs/dependencies.md why, or do without", dep)
		}
	}
	for _, dep := range explained {
		if !slices.Contains(required, dep) {
			t.Errorf("docs/dependencies.md explains %q, which go.mod does not require directly", dep)
		}
	}
}

func TestDirectRequirementsLeaveOutIndirectOnes(t *testing.T) {
	t.Parallel()
	got := directRequirements(`module m

go 1.26.0

require example.org/single v1.0.0

require (
	example.org/a v1.2.3
	example.org/b/v2 v2.0.0 // pinned: see issue 7
)

require (
	example.org/c v0.1.0 // indirect
)

replace example.org/a => ../a
`)
	if want := []string{"example.org/single", "example.org/a", "example.org/b/v2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestExplanationsAreTableRowsWithAReason(t *testing.T) {
	t.Parallel()
	got := explanations("Text about `example.org/x`.\n\n" +
		"| module | reason |\n| --- | --- |\n" +
		"| `example.org/a` | it is good |\n" +
		"| `example.org/b` | |\n" +
		"| example.org/c | no quotes |\n")
	if want := []string{"example.org/a"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// directRequirements returns the modules that a go.mod requires without the
// comment "// indirect".
func directRequirements(mod string) []string {
	var direct []string
	block := false
	for line := range strings.Lines(mod) {
		line = strings.TrimSpace(line)
		switch line {
		case "require (":
			block = true
			continue
		case ")":
			block = false
			continue
		}
		rest, single := strings.CutPrefix(line, "require ")
		if !block && !single || strings.HasSuffix(line, "// indirect") {
			continue
		}
		if fields := strings.Fields(rest); len(fields) > 0 {
			direct = append(direct, fields[0])
		}
	}
	return direct
}

// explanations returns the modules that have a row with a reason in a Markdown
// table whose first column is the module's path in backquotes.
func explanations(doc string) []string {
	var explained []string
	for line := range strings.Lines(doc) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 4 || strings.TrimSpace(cells[2]) == "" {
			continue
		}
		name, opened := strings.CutPrefix(strings.TrimSpace(cells[1]), "`")
		name, closed := strings.CutSuffix(name, "`")
		if opened && closed {
			explained = append(explained, name)
		}
	}
	return explained
}
