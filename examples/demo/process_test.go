package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The processes of these tests are this test binary: see TestMain.
func TestMain(m *testing.M) {
	switch os.Getenv("DEMO_TEST_PROCESS") {
	case "":
		os.Exit(m.Run())
	case "serves":
		os.Stdout.WriteString(`{"http":"127.0.0.1:1"}` + "\n")
		select {} // until a signal
	case "fails":
		os.Stderr.WriteString("no luck today\n")
		os.Exit(3)
	case "ends":
		os.Stdout.WriteString("{}\n")
	}
}

func startTest(t *testing.T, kind string) (*process, <-chan error, error) {
	t.Helper()
	ended := make(chan error, 1)
	p, err := start(t.Context(), "test", filepath.Join(t.TempDir(), "log"), []string{"DEMO_TEST_PROCESS=" + kind},
		func(err error) { ended <- err }, os.Args[0])
	if err == nil {
		t.Cleanup(p.kill)
	}
	return p, ended, err
}

func TestProcessGetsReadyAndIsKilled(t *testing.T) {
	t.Parallel()
	p, ended, err := startTest(t, "serves")
	if err != nil {
		t.Fatal(err)
	}
	if p.ready["http"] != "127.0.0.1:1" {
		t.Errorf("ready line %v", p.ready)
	}
	p.kill()
	if err := p.cmd.Process.Signal(syscall.Signal(0)); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("still there: %v", err)
	}
	if len(ended) > 0 {
		t.Error("the end was asked for, and reported as a failure")
	}
	if err := p.stop(); err != nil {
		t.Errorf("stopping what has ended: %v", err)
	}
}

func TestProcessThatEndsBadlyIsReportedWithItsLog(t *testing.T) {
	t.Parallel()
	_, _, err := startTest(t, "fails")
	if err == nil || !strings.Contains(err.Error(), "test did not get ready (exit status 3)") || !strings.Contains(err.Error(), "no luck today") {
		t.Errorf("error %v", err)
	}
}

func TestProcessThatEndsByItselfIsReported(t *testing.T) {
	t.Parallel()
	_, ended, err := startTest(t, "ends")
	if err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "test ended by itself (exit status 0)") {
		t.Errorf("error %v", err)
	}
}

func TestProcessThatIsNotThereIsAnError(t *testing.T) {
	t.Parallel()
	_, err := start(t.Context(), "test", filepath.Join(t.TempDir(), "log"), nil, func(error) {}, filepath.Join(t.TempDir(), "nothing"))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}
