//go:build unix

package main

import "syscall"

// apart gives a process a group of its own, so that the Ctrl-C that ends the
// demo does not reach it as well: the demo ends its processes in order.
func apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
