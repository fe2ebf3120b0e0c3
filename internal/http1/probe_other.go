//go:build !unix

package http1

import "syscall"

// peek cannot look at a socket without taking from it.
func peek(syscall.Conn) (readable, known bool) { return false, false }
