package controlplane

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// asNobody runs subtests of a test in a process of a user who may not do everything, for
// a test of root, who may. It fails unless each of them has passed.
func asNobody(t *testing.T, name string, subtests []string) {
	t.Helper()
	const nobody = 65534
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp("", "nobody") //nolint:usetesting // directories of the test are root's alone
	must(err)
	defer func() { must(os.RemoveAll(dir)) }()
	must(os.Chown(dir, nobody, nobody))
	program := filepath.Join(dir, "tests")
	copyProgram(t, program)

	patterns := make([]string, len(subtests))
	for i, one := range subtests {
		patterns[i] = regexp.QuoteMeta(strings.ReplaceAll(one, " ", "_"))
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.v", "-test.run", "^"+name+"$/^("+strings.Join(patterns, "|")+")$")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TMPDIR="+dir, "GOCOVERDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	output, err := cmd.CombinedOutput()
	if errors.Is(err, fs.ErrPermission) {
		t.Skipf("this root may not start a process of somebody else: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	for _, one := range subtests {
		if passed := "--- PASS: " + name + "/" + strings.ReplaceAll(one, " ", "_") + " "; !strings.Contains(string(output), passed) {
			t.Errorf("%q has not run, or was skipped:\n%s", one, output)
		}
	}
}

// copyProgram copies the program of this process, which may be where nobody else can
// reach it.
func copyProgram(t *testing.T, to string) {
	t.Helper()
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	// A child of somebody else's would have it open, and nobody could run it meanwhile.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	program, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(program, from); err != nil {
		t.Fatal(err)
	}
	if err := program.Close(); err != nil {
		t.Fatal(err)
	}
}
