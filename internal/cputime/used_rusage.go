//go:build linux || darwin

package cputime

import (
	"syscall"
	"time"
)

// Used is the time that all threads of the process have run, in the program and
// in the kernel. It reports false if the system does not tell.
func Used() (time.Duration, bool) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, false
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), true
}
