package upstream

import (
	"fmt"
	"net"
	"time"

	"github.com/inboardmesh/inboard/internal/ping"
)

// keepAliver is what a TCP connection has for [Endpoint.KeepAlive].
type keepAliver interface {
	SetKeepAliveConfig(config net.KeepAliveConfig) error
}

// KeepAlive applies the cluster's TCP keep-alive to a new connection to the
// endpoint, if it has one: what the dialer has set stays otherwise. A connection
// that is not TCP's, nor tells of one below with NetConn, stays as it is.
func (e *Endpoint) KeepAlive(conn net.Conn) error {
	config := e.cluster.Config()
	if config == nil || config.KeepAlive == nil {
		return nil
	}
	k := config.KeepAlive
	for {
		if tcp, ok := conn.(keepAliver); ok {
			err := tcp.SetKeepAliveConfig(net.KeepAliveConfig{
				Enable: !k.Off, Idle: orUnchanged(k.Time), Interval: orUnchanged(k.Interval), Count: int(orUnchanged(time.Duration(k.Probes))),
			})
			if err != nil {
				return fmt.Errorf("tcp keep-alive: %w", err)
			}
			return nil
		}
		wrapper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		conn = wrapper.NetConn()
	}
}

// orUnchanged is how package net is told to leave a setting alone: 0 would be its
// own default.
func orUnchanged(n time.Duration) time.Duration {
	if n == 0 {
		return -1
	}
	return n
}

// Pinging returns a new HTTP/2 connection to the endpoint, after TLS, that asks its
// peer whether it is still there, if its cluster wants it.
func (e *Endpoint) Pinging(conn net.Conn) net.Conn {
	config := e.cluster.Config()
	if config == nil {
		return conn
	}
	return ping.Client(conn, ping.Settings(config.HTTP2.Pings))
}

// MaxStreams is how many requests the cluster lets be under way on one HTTP/2
// connection, 0 without a limit.
func (c *Cluster) MaxStreams() int {
	if config := c.Config(); config != nil {
		return int(config.HTTP2.MaxStreams)
	}
	return 0
}
