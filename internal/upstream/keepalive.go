package upstream

import (
	"fmt"
	"net"
	"time"
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
