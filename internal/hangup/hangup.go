// Package hangup ends the connections of gRPC channels whose peers do not read.
package hangup

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// goodbye is how long the last words of a channel may take that is being closed.
const goodbye = 100 * time.Millisecond

// Lines are the network connections below gRPC channels. gRPC says GOAWAY over each
// before it closes it, and waits for 5 s if its peer does not read what was written
// before: who ends such channels calls End first. The zero value is ready. Safe for
// concurrent use.
type Lines struct {
	mu    sync.Mutex
	open  map[*line]struct{} // guarded by mu
	ended bool               // guarded by mu
}

// Secure returns the credentials of a channel whose connections are to be among the
// lines.
func (l *Lines) Secure(inner credentials.TransportCredentials) credentials.TransportCredentials {
	return secured{inner, l}
}

// End closes the connections to which something is being written, for it may be so for
// ever, and lets the others take no more than a moment for what is written from now on.
func (l *Lines) End() {
	l.mu.Lock()
	l.ended = true
	open := slices.Collect(maps.Keys(l.open))
	l.mu.Unlock()
	for _, c := range open {
		c.end()
	}
}

func (l *Lines) add(c *line) {
	l.mu.Lock()
	if l.open == nil {
		l.open = make(map[*line]struct{})
	}
	l.open[c] = struct{}{}
	ended := l.ended
	l.mu.Unlock()
	if ended {
		c.end()
	}
}

func (l *Lines) remove(c *line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
}

// Option tells who dials by the options of a program, and has credentials of its own,
// that the connections are to be among the lines. gRPC knows nothing of it.
type Option struct {
	grpc.EmptyDialOption

	Lines *Lines
}

// Of returns the lines of the options, nil if none has any.
func Of(options []grpc.DialOption) *Lines {
	for _, o := range options {
		if o, ok := o.(Option); ok {
			return o.Lines
		}
	}
	return nil
}

// Bundle is Secure for credentials that come with those of calls.
func (l *Lines) Bundle(inner credentials.Bundle) credentials.Bundle { return bundle{inner, l} }

type bundle struct {
	credentials.Bundle

	lines *Lines
}

// TransportCredentials implements [credentials.Bundle].
func (b bundle) TransportCredentials() credentials.TransportCredentials {
	inner := b.Bundle.TransportCredentials()
	if inner == nil {
		return nil
	}
	return b.lines.Secure(inner)
}

// NewWithMode implements [credentials.Bundle].
func (b bundle) NewWithMode(mode string) (credentials.Bundle, error) {
	inner, err := b.Bundle.NewWithMode(mode)
	if err != nil {
		return nil, err
	}
	return bundle{inner, b.lines}, nil
}

type secured struct {
	credentials.TransportCredentials

	lines *Lines
}

// ClientHandshake implements [credentials.TransportCredentials].
func (s secured) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c := &line{Conn: raw, lines: s.lines}
	s.lines.add(c)
	conn, info, err := s.TransportCredentials.ClientHandshake(ctx, authority, c)
	if err != nil {
		s.lines.remove(c) // gRPC closes what is below it
	}
	return conn, info, err
}

// Clone implements [credentials.TransportCredentials].
func (s secured) Clone() credentials.TransportCredentials {
	return secured{s.TransportCredentials.Clone(), s.lines}
}

// line is a connection below TLS.
type line struct {
	net.Conn

	lines *Lines

	mu      sync.Mutex
	writing int  // guarded by mu
	ended   bool // guarded by mu
}

// Write implements [net.Conn].
func (c *line) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writing++
	ended := c.ended
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.writing--
	}()
	if ended {
		_ = c.SetWriteDeadline(time.Now().Add(goodbye)) // the write has the error
	}
	return c.Conn.Write(p)
}

func (c *line) end() {
	c.mu.Lock()
	c.ended = true
	stuck := c.writing > 0
	c.mu.Unlock()
	if stuck {
		_ = c.Close() // who writes is told
	}
}

// Close implements [net.Conn].
func (c *line) Close() error {
	c.lines.remove(c)
	return c.Conn.Close()
}
