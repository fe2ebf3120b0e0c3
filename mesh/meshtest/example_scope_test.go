package meshtest_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// scope is a test that is none: examples run in it, and the tests of failing
// look at how it failed.
type scope struct {
	mu       sync.Mutex
	cleanups []func() // guarded by mu
	failures []string // guarded by mu
}

var _ meshtest.TB = (*scope)(nil)

// run runs an example. How it fails shows in its output.
func run(f func(t meshtest.TB)) {
	if failure := failureOf(f); failure != "" {
		fmt.Println(failure)
	}
}

// failureOf runs f, and then its cleanups, and returns how it failed.
func failureOf(f func(t meshtest.TB)) string {
	s := new(scope)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer s.end()
		f(s)
	}()
	<-done
	return strings.Join(s.failures, "\n")
}

func (s *scope) end() {
	for _, f := range slices.Backward(s.cleanups) {
		f()
	}
}

func (s *scope) Helper() {}

func (s *scope) Logf(string, ...any) {}

func (s *scope) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

func (s *scope) Errorf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, fmt.Sprintf(format, args...))
}

func (s *scope) Fatal(args ...any) {
	s.Errorf("%s", fmt.Sprint(args...))
	runtime.Goexit()
}

func (s *scope) Fatalf(format string, args ...any) {
	s.Errorf(format, args...)
	runtime.Goexit()
}
