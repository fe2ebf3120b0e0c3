package grpcmesh

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/observe"
)

// carrier is the metadata of an attempt, to which observers add. Most calls have none,
// and one of an observer's, traceparent, for which no map is made.
type carrier struct {
	md metadata.MD
	// name and value are one more that md, which is empty then, does not have; name is
	// lower case, and "" without one.
	name, value string
}

var _ observe.Carrier = (*carrier)(nil)

// Get returns the first value of a name, "" without one.
func (c *carrier) Get(name string) string {
	if c.name != "" && strings.EqualFold(name, c.name) {
		return c.value
	}
	return header(c.md).Get(name)
}

// Set replaces the values of a name.
func (c *carrier) Set(name, value string) {
	if len(c.md) == 0 && (c.name == "" || strings.EqualFold(name, c.name)) {
		c.name, c.value = strings.ToLower(name), value
		return
	}
	c.whole().Set(name, value)
}

// Keys returns the names.
func (c *carrier) Keys() []string {
	keys := header(c.md).Keys()
	if c.name != "" {
		keys = append(keys, c.name)
	}
	return keys
}

// Format prints the names, as that of a header does.
func (c *carrier) Format(s fmt.State, _ rune) { fmt.Fprint(s, slices.Sorted(slices.Values(c.Keys()))) }

// MarshalText is Format for what logs in another way.
func (c *carrier) MarshalText() ([]byte, error) { return fmt.Append(nil, c), nil }

// whole is all of it in a map.
func (c *carrier) whole() metadata.MD {
	if c.md == nil {
		c.md = metadata.MD{}
	}
	if c.name != "" {
		c.md.Set(c.name, c.value)
		c.name, c.value = "", ""
	}
	return c.md
}

// outgoing returns a context that sends the metadata instead of what ctx would send.
// bare is whether there was nothing to send in the caller's context; that of an observer
// is looked at here.
func (c *carrier) outgoing(ctx context.Context, bare bool) context.Context {
	if bare && len(c.md) == 0 {
		if _, ok := metadata.FromOutgoingContext(ctx); !ok {
			if c.name == "" {
				return ctx
			}
			return metadata.AppendToOutgoingContext(ctx, c.name, c.value)
		}
	}
	return metadata.NewOutgoingContext(ctx, c.whole())
}
