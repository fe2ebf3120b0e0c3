//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package lastgood

import (
	"errors"
	"os"
	"syscall"
)

// lockFile locks a file until it is closed or the process ends, or says that it is
// taken.
func lockFile(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var locked error
	if err := raw.Control(func(fd uintptr) { locked = syscall.Flock(int(fd), syscall.LOCK_EX|syscall.LOCK_NB) }); err != nil {
		return err
	}
	if errors.Is(locked, syscall.EWOULDBLOCK) {
		return errTaken
	}
	return locked
}
