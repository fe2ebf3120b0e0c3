package layout

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// load reads every Go file of the module at root, whatever its build
// constraints, by package path. Nested modules, testdata and hidden
// directories are not part of the module.
func load(root string) (map[string][]source, error) {
	packages := make(map[string][]source)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if path != root && skipped(path, entry.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		file, err := read(path, filepath.ToSlash(name))
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(name))
		packages[dir] = append(packages[dir], file)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the module at %q: %w", root, err)
	}
	return packages, nil
}

func skipped(path, name string) bool {
	if name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
		return true
	}
	_, err := os.Stat(filepath.Join(path, "go.mod"))
	return err == nil
}

func read(path, name string) (source, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return source{}, err
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution|parser.ParseComments)
	if err != nil {
		return source{}, err
	}
	file := source{
		name:      name,
		pkg:       parsed.Name.Name,
		generated: ast.IsGenerated(parsed),
		test:      strings.HasSuffix(name, "_test.go"),
		lines:     bytes.Count(text, []byte("\n")),
	}
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return source{}, fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		file.imports = append(file.imports, imported)
		if spec.Name != nil && spec.Name.Name == "_" {
			file.blank = append(file.blank, imported)
		}
	}
	ast.Inspect(parsed, func(node ast.Node) bool {
		if call, ok := node.(*ast.SelectorExpr); ok && call.Sel.Name == "Sleep" {
			if pkg, ok := call.X.(*ast.Ident); ok && pkg.Name == "time" {
				file.sleeps = true
			}
		}
		return true
	})
	for _, decl := range parsed.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			file.inits++
		}
	}
	return file, nil
}
