package layout

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// programs are what has the process to itself, and what only tests use.
var programs = map[string]bool{
	".git": true, ".cache": true, "cmd": true, "examples": true, "benchmarks": true, "interop": true, "tools": true,
	"internal/calltest": true, "internal/tokentest": true, "controlplane/istio/internal/kubeapi/generate": true, "controlplane/istio/internal/gatewayapi/generate": true,
}

// eachLibraryFile parses every file that ends up in programs of others.
func eachLibraryFile(t *testing.T, look func(path string, file *ast.File)) {
	t.Helper()
	seen := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		slashed, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		slashed = filepath.ToSlash(slashed)
		if entry.IsDir() {
			if programs[slashed] {
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
		seen++
		look(slashed, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 100 {
		t.Errorf("only %d files were looked at", seen)
	}
}

func imports(file *ast.File, path string) bool {
	for _, spec := range file.Imports {
		if text, err := strconv.Unquote(spec.Path.Value); err == nil && text == path {
			return true
		}
	}
	return false
}

// TestV39_NothingIsAuthenticatedByACodeOfOurOwn: where no code over several fields is
// made, none can be made without separators between them. Whoever needs one writes the
// length of each field before it, and lists the file here.
func TestV39_NothingIsAuthenticatedByACodeOfOurOwn(t *testing.T) {
	t.Parallel()
	eachLibraryFile(t, func(path string, file *ast.File) {
		for _, code := range []string{"crypto/hmac", "crypto/cipher", "golang.org/x/crypto/poly1305", "golang.org/x/crypto/blake2b"} {
			if imports(file, code) {
				t.Errorf("%s imports %s: a code over several fields needs the length of each before it (row V39)", path, code)
			}
		}
	})
}

// processes are functions that change what belongs to the whole process.
var processes = map[string][]string{
	"os":                             {"Exit", "Setenv", "Unsetenv", "Clearenv", "Chdir"},
	"syscall":                        {"Setrlimit", "Exit", "Kill", "Umask"},
	"runtime":                        {"LockOSThread", "SetMutexProfileFraction", "SetBlockProfileRate"},
	"runtime/debug":                  {"SetGCPercent", "SetMemoryLimit", "SetMaxStack", "SetMaxThreads", "SetPanicOnFault", "SetTraceback"},
	"log":                            {"SetOutput", "SetFlags", "SetPrefix", "Fatal", "Fatalf", "Fatalln"},
	"log/slog":                       {"SetDefault", "SetLogLoggerLevel"},
	"net/http":                       {"Handle", "HandleFunc"},
	"time":                           {"Tick"},
	"go.opentelemetry.io/otel":       {"SetTracerProvider", "SetMeterProvider", "SetTextMapPropagator", "SetErrorHandler", "SetLogger"},
	"google.golang.org/grpc/grpclog": {"SetLoggerV2"},
}

// TestV64_NoPackageTouchesWhatBelongsToTheProcess: nor does one take its signals.
func TestV64_NoPackageTouchesWhatBelongsToTheProcess(t *testing.T) {
	t.Parallel()
	eachLibraryFile(t, func(path string, file *ast.File) {
		for _, whole := range []string{"os/signal", "net/http/pprof", "expvar"} {
			if imports(file, whole) {
				t.Errorf("%s imports %s, which changes the whole process", path, whole)
			}
		}
		for pkg, functions := range processes {
			if !imports(file, pkg) {
				continue
			}
			name := pkg[strings.LastIndexByte(pkg, '/')+1:]
			ast.Inspect(file, func(n ast.Node) bool {
				selector, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if x, ok := selector.X.(*ast.Ident); ok && x.Name == name {
					for _, function := range functions {
						if selector.Sel.Name == function {
							t.Errorf("%s uses %s.%s: the process is the application's", path, name, function)
						}
					}
				}
				return true
			})
		}
	})
}
