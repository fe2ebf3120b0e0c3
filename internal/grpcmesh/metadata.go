package grpcmesh

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net/url"
	"slices"

	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// header is gRPC metadata as routing and observers see it. Its keys are lower
// case, as metadata.MD keeps them.
type header metadata.MD

var (
	_ route.HeaderMap = header(nil)
	_ observe.Carrier = header(nil)
)

func (h header) Values(name string) []string {
	if name == "content-type" {
		return grpcContentType // gRFC A28
	}
	return h[name]
}

var grpcContentType = []string{"application/grpc"}

func (h header) Get(name string) string {
	if values := metadata.MD(h).Get(name); len(values) > 0 {
		return values[0]
	}
	return ""
}

func (h header) Set(name, value string) { metadata.MD(h).Set(name, value) }

func (h header) Add(name, value string) { metadata.MD(h).Append(name, value) }

func (h header) Del(name string) { metadata.MD(h).Delete(name) }

func (h header) Keys() []string {
	keys := make([]string, 0, len(h))
	for key := range h {
		keys = append(keys, key)
	}
	return keys
}

// Format prints the names: the values are credentials as often as not, and who logs a
// call does not mean to log them.
func (h header) Format(s fmt.State, _ rune) { fmt.Fprint(s, slices.Sorted(maps.Keys(h))) }

// MarshalText is Format for what logs in another way.
func (h header) MarshalText() ([]byte, error) { return fmt.Append(nil, h), nil }

// credentialsID is the peer's SPIFFE ID in the form that grpc-go hands to
// applications.
func credentialsID(state tls.ConnectionState) *url.URL {
	id, ok := meshtls.PeerID(state)
	if !ok {
		return nil
	}
	u, err := url.Parse(id.String())
	if err != nil {
		return nil
	}
	return u
}
