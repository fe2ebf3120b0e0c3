package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// binary builds the demo.
func binary(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("runs processes for most of a minute")
	}
	name := filepath.Join(t.TempDir(), "demo")
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", name, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, output)
	}
	return name
}

// prepare returns a run of the demo in a temporary directory of its own.
func prepare(t *testing.T, name string, args ...string) (cmd *exec.Cmd, temporary string) {
	t.Helper()
	temporary = t.TempDir()
	cmd = exec.CommandContext(t.Context(), name, args...)
	// If the test runs out of time, the demo still ends its processes.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	cmd.Env = append(os.Environ(), "TMPDIR="+temporary, "TMP="+temporary)
	return cmd, temporary
}

func checkNothingLeft(t *testing.T, temporary string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(temporary, "inboard-demo-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestDemoEndsWithZeroFailed is the acceptance test of the whole: nothing is
// lost while a canary moves, processes die, payments break, certificates rotate
// and the control plane is away.
func TestDemoEndsWithZeroFailed(t *testing.T) {
	t.Parallel()
	cmd, temporary := prepare(t, binary(t))
	output, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(output), " 0 failed; ") {
		t.Errorf("%v\n%s", err, output)
	}
	checkNothingLeft(t, temporary)
}

func TestDemoThatIsInterruptedCleansUp(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("there is no way to send Ctrl-C")
	}
	name := binary(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd, temporary := prepare(t, name)
	var output bytes.Buffer
	cmd.Stdout = &writer{&output, func(text string) {
		if strings.Contains(text, "canary 90/10") {
			cancel()
		}
	}}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(os.Interrupt) })
	defer stop()
	err := cmd.Wait()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(output.String(), "interrupt") {
		t.Errorf("%v\n%s", err, &output)
	}
	checkNothingLeft(t, temporary)
}

// writer shows a function what is written.
type writer struct {
	buffer *bytes.Buffer
	look   func(string)
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.buffer.Write(p)
	w.look(w.buffer.String())
	return n, err
}
