package ads

import (
	"context"
	"time"

	"google.golang.org/grpc"
)

// Conn returns the connection to the server with an ID, nil while there is none. It
// is the client's, which closes it when it has no more use for it.
func (c *Client) Conn(id string) *grpc.ClientConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.links {
		if l.server.id() == id && l.stream != nil {
			return l.conn
		}
	}
	return nil
}

// Sources returns the names of the resources of a type that wanted wants, by the IDs of
// the servers that they came from. wanted is called with the client locked.
func (c *Client) Sources(typeURL string, wanted func(resource any) bool) map[string]map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	sources := make(map[string]map[string]bool)
	for name, e := range c.types[typeURL].entries {
		if !e.held || !wanted(e.resource) {
			continue
		}
		id := e.source.server.id()
		if sources[id] == nil {
			sources[id] = make(map[string]bool)
		}
		sources[id][name] = true
	}
	return sources
}

// Pace is the back-off of other streams to a server. The zero value is ready. It is
// for one goroutine.
type Pace struct{ backoff backoff }

// Wait waits until the next attempt may begin. It reports false when ctx ends.
func (p *Pace) Wait(ctx context.Context) bool {
	if !sleep(ctx, p.backoff.delay(time.Now())) {
		return false
	}
	p.backoff.last = time.Now()
	return ctx.Err() == nil
}

// Ended notes how an attempt ended: the server answered it, or it failed.
func (p *Pace) Ended(answered bool) {
	if answered {
		p.backoff.failures = 0
	} else {
		p.backoff.failures++
	}
}
