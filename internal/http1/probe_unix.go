//go:build unix

package http1

import (
	"errors"
	"syscall"
)

// socket looks at a socket without taking anything from it. It is for one
// goroutine at a time: what a look needs is made once.
type socket struct {
	raw  syscall.RawConn // nil once it is closed
	look func(fd uintptr)
	one  [1]byte

	readable, known bool
}

func newSocket(c syscall.Conn) Prober {
	s := &socket{}
	if raw, err := c.SyscallConn(); err == nil {
		s.raw = raw
	}
	s.look = func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), s.one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
			s.readable, s.known = false, true
		case errors.Is(err, syscall.ENOTSOCK):
			s.readable, s.known = false, false
		default:
			s.readable, s.known = true, true
		}
	}
	return s
}

// Readable looks. Control is not subject to the connection's deadlines, which may
// have passed while it was idle.
func (s *socket) Readable() (readable, known bool) {
	if s.raw == nil || s.raw.Control(s.look) != nil {
		return true, true // it is closed: a Read returns at once
	}
	return s.readable, s.known
}
