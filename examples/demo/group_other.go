//go:build !unix

package main

import "syscall"

// apart is for systems where Ctrl-C goes to the group of a process.
func apart() *syscall.SysProcAttr { return nil }
