//go:build unix

package regularfile

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Nobody writes to it: opening it would block for ever.
func TestV60_APipeDoesNotBlock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path, MaxToken); err == nil || !strings.Contains(err.Error(), "is a pipe: want a regular file") {
		t.Errorf("got %v", err)
	}
}
