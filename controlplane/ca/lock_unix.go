//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package ca

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lockDirectory waits until no other process has the directory locked, and
// locks it until unlock is called or the process ends.
func lockDirectory(name string) (unlock func() error, err error) {
	dir, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %q: %w", name, err), dir.Close())
	}
	return dir.Close, nil
}
