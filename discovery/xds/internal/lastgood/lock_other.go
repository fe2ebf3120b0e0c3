//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package lastgood

import "os"

// lockFile does nothing where a file cannot be locked: there, give each process a
// directory of its own.
func lockFile(*os.File) error { return nil }
