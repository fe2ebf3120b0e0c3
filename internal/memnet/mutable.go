package memnet

import (
	"net"
	"sync"
)

// Mutable is a connection whose peer can be made to vanish, as when a cable is cut:
// what is written goes nowhere, and nothing comes any more, not even the end.
type Mutable struct {
	net.Conn
	muted, closed chan struct{}
	mute, end     sync.Once
}

// NewMutable returns a connection that passes everything on until it is silenced.
func NewMutable(conn net.Conn) *Mutable {
	return &Mutable{Conn: conn, muted: make(chan struct{}), closed: make(chan struct{})}
}

// Silence cuts the connection. It may be called more than once.
func (m *Mutable) Silence() { m.mute.Do(func() { close(m.muted) }) }

func (m *Mutable) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	select {
	case <-m.muted:
		<-m.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (m *Mutable) Write(p []byte) (int, error) {
	select {
	case <-m.muted:
		return len(p), nil
	default:
		return m.Conn.Write(p)
	}
}

// Close closes the connection.
func (m *Mutable) Close() error {
	m.end.Do(func() { close(m.closed) })
	return m.Conn.Close()
}
