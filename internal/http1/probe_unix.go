//go:build unix

package http1

import (
	"errors"
	"syscall"
)

// peek looks at a socket without taking anything from it. Control is not
// subject to the connection's deadlines, which may have passed while it was idle.
func peek(c syscall.Conn) (readable, known bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return true, true // it is closed: a Read returns at once
	}
	var one [1]byte
	err = raw.Control(func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
			known = true
		case errors.Is(err, syscall.ENOTSOCK):
		default:
			readable, known = true, true
		}
	})
	if err != nil {
		return true, true
	}
	return readable, known
}
