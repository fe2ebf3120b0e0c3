// Package gettingstarted_test does what docs/getting-started.md tells a newcomer to do,
// with the page's own programs, commands and configuration.
package gettingstarted_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// page is the text of docs/getting-started.md.
type page struct {
	t    *testing.T
	text string
}

func readPage(t *testing.T) *page {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "getting-started.md"))
	if err != nil {
		t.Fatal(err)
	}
	return &page{t: t, text: string(text)}
}

// block returns the code of a language that stands behind a sentence.
func (p *page) block(language, sentence string) string {
	p.t.Helper()
	_, behind, ok := strings.Cut(p.text, sentence)
	if !ok {
		p.t.Fatalf("the page does not say %q", sentence)
	}
	_, code, ok := strings.Cut(behind, "```"+language+"\n")
	if !ok {
		p.t.Fatalf("no block %q is behind %q", language, sentence)
	}
	code, _, _ = strings.Cut(code, "```")
	return code
}

// quotes returns what the page has between backquotes and is like an expression.
func (p *page) quotes(expression string) string {
	p.t.Helper()
	found := regexp.MustCompile("`" + expression + "`").FindString(p.text)
	if found == "" {
		p.t.Fatalf("the page quotes nothing like %s", expression)
	}
	return strings.Join(strings.Fields(strings.Trim(found, "`")), " ")
}

// build makes the page's programs, as if they stood in this module: a module of their
// own would have its dependencies resolved anew, from the network.
func (p *page) build(dir string) {
	p.t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		p.t.Fatal(err)
	}
	overlay := map[string]map[string]string{"Replace": {}}
	packages := []string{"./cmd/inboard"}
	for _, name := range []string{"server", "client"} {
		file := filepath.Join(dir, name+".go")
		write(p.t, file, p.block("go", "`"+name+"/main.go`"))
		overlay["Replace"][filepath.Join(root, "examples", "gettingstarted", name, "main.go")] = file
		packages = append(packages, "./examples/gettingstarted/"+name)
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		p.t.Fatal(err)
	}
	write(p.t, filepath.Join(dir, "overlay.json"), string(list))
	args := append([]string{"build", "-buildvcs=false", "-overlay", filepath.Join(dir, "overlay.json"), "-o", filepath.Join(dir, "bin") + string(filepath.Separator)}, packages...)
	cmd := exec.CommandContext(p.t.Context(), "go", args...)
	cmd.Dir = root
	if output, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, output)
	}
}

// write replaces a file, as an editor does.
func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name+"~", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+"~", name); err != nil {
		t.Fatal(err)
	}
}

func replace(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%q is not in:\n%s", pairs[i], text)
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}
