package relay

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/inboardmesh/inboard/observe"
)

// encoder writes the model as resources for grpc-go. It is used by one goroutine.
type encoder struct {
	// trustDomain is that of the identity in a certificate provider instance.
	trustDomain func(instance string) (string, error)
	// noted is what was left out, each once.
	noted map[observe.GuestNote]struct{}
}

func newEncoder(trustDomain func(string) (string, error)) *encoder {
	return &encoder{trustDomain: trustDomain, noted: make(map[observe.GuestNote]struct{})}
}

// leave notes something that is left out.
func (e *encoder) leave(where, format string, args ...any) {
	e.noted[observe.GuestNote{Where: where, What: fmt.Sprintf(format, args...)}] = struct{}{}
}

// refuse notes something that is refused.
func (e *encoder) refuse(where string, reason error) {
	e.noted[observe.GuestNote{Where: where, What: reason.Error(), Refused: true}] = struct{}{}
}

// notes are what was noted, those that were refused first.
func (e *encoder) notes() []observe.GuestNote {
	return slices.SortedFunc(maps.Keys(e.noted), func(a, b observe.GuestNote) int {
		if a.Refused != b.Refused {
			if a.Refused {
				return -1
			}
			return 1
		}
		return strings.Compare(a.String(), b.String())
	})
}

// errInstead is the end of the reasons for which a server is not served.
var errInstead = errors.New("serve it with mesh.ServerOptions instead")

// pack wraps a message. The same message gives the same bytes, by which is told
// whether a resource has changed.
func pack(m proto.Message) (*anypb.Any, error) {
	packed := new(anypb.Any)
	if err := anypb.MarshalFrom(packed, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, err
	}
	return packed, nil
}

// ads is the configuration source of everything that is not inline.
func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
}

// duration is d, or nil for 0.
func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// typeName is the name of a model type in a note: "JWTAuthn".
func typeName(v any) string {
	name := fmt.Sprintf("%T", v)
	return name[strings.LastIndexByte(name, '.')+1:]
}
