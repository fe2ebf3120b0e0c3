package layout

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// listens are the files that may open a port: each because its caller asks for one by
// an address, or to serve in memory.
var listens = map[string]string{
	"mesh/mesh.go": "Mesh.Listen",
}

// TestV54_NobodyListensUnasked: a library that opens a port of its own, for admin or for
// shutdown, opens it to whoever can reach the process. Programs, fixtures and the
// control plane's server are asked to.
func TestV54_NobodyListensUnasked(t *testing.T) {
	t.Parallel()
	opening := map[string]bool{"Listen": true, "ListenConfig": true, "ListenTCP": true, "ListenPacket": true, "ListenAndServe": true, "ListenAndServeTLS": true, "ListenUnix": true, "ListenUDP": true}
	seen := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		slashed, relErr := filepath.Rel(root, path)
		if relErr != nil {
			return relErr
		}
		slashed = filepath.ToSlash(slashed)
		if entry.IsDir() {
			switch slashed {
			case ".git", ".cache", "cmd", "examples", "benchmarks", "interop", "tools", "internal/worldtest", "internal/memnet", "internal/faultproxy", "mesh/meshtest", "internal/adstest":
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok || !opening[selector.Sel.Name] {
				return true
			}
			if pkg, ok := selector.X.(*ast.Ident); ok && (pkg.Name == "net" || pkg.Name == "http" || pkg.Name == "tls") {
				seen++
				if listens[slashed] == "" {
					t.Errorf("%s uses %s.%s: a port is opened for those who ask for it, and for nobody else", slashed, pkg.Name, selector.Sel.Name)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen == 0 {
		t.Error("not even Mesh.Listen was found: the check looks at nothing")
	}
}
