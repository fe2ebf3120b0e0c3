//go:build !linux && !darwin

package cputime

import "time"

// Used reports false: this system does not tell.
func Used() (time.Duration, bool) { return 0, false }
