package controlplane

import (
	"cmp"
	"slices"
	"strings"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// maxRejected bounds the resources that are listed for one NACK.
const maxRejected = 100

// RejectedResource is a resource that a client rejected.
type RejectedResource struct {
	Name string `json:"name"`
	// Reason is what the client said of it.
	Reason string `json:"reason"`
}

// response is the last response of a type to a client, for as long as it may be
// rejected.
type response struct {
	names []string     // delta
	any   []*anypb.Any // state of the world, where names are in the resources
}

func deltaResponse(from *discovery.DeltaDiscoveryResponse) response {
	names := make([]string, 0, len(from.GetResources()))
	for _, r := range from.GetResources() {
		names = append(names, r.GetName())
	}
	return response{names: names}
}

func responseOf(from *discovery.DiscoveryResponse) response {
	return response{any: from.GetResources()}
}

func (r *response) count() int { return len(r.names) + len(r.any) }

// resources returns the names. It decodes what a client of the state of the world
// got, which is only done when that was rejected.
func (r *response) resources() []string {
	names := slices.Clone(r.names)
	for _, packed := range r.any {
		message, err := packed.UnmarshalNew()
		if err != nil {
			continue // the server encoded it
		}
		names = append(names, nameOf(message))
	}
	return names
}

// rejected returns which resources of a response a rejection names, each with what
// is said of it. Clients have no form for that but to write the names: Envoy as they
// are, grpc-go and Inboard in quotes. What stands between a name and the next one is
// the reason.
func (r *response) rejected(text string) []RejectedResource {
	type mention struct {
		name     string
		from, to int
	}
	var found []mention
	for _, name := range r.resources() {
		if name == "" {
			continue
		}
		at, length := strings.Index(text, `"`+name+`"`), len(name)+2
		if at < 0 {
			at, length = word(text, name), len(name)
		}
		if at >= 0 {
			found = append(found, mention{name, at, at + length})
		}
	}
	slices.SortFunc(found, func(a, b mention) int { return cmp.Compare(a.from, b.from) })
	found = found[:min(len(found), maxRejected)]
	all := make([]RejectedResource, 0, len(found))
	for i, m := range found {
		reason := text[m.to:]
		if i+1 < len(found) && found[i+1].from >= m.to {
			// What introduces the next one belongs to that.
			reason, _ = cutLast(text[m.to:found[i+1].from], ";")
		}
		reason = strings.Trim(reason, " :;,\n")
		if reason == "" {
			reason = text
		}
		all = append(all, RejectedResource{Name: clip(m.name), Reason: clip(reason)})
	}
	return all
}

func cutLast(s, sep string) (before string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], true
	}
	return s, false
}

// word finds a name that is not a part of a longer one.
func word(text, name string) int {
	for from := 0; ; {
		at := strings.Index(text[from:], name)
		if at < 0 {
			return -1
		}
		at += from
		end := at + len(name)
		if (at == 0 || !partOfName(text[at-1])) && (end == len(text) || !partOfName(text[end])) {
			return at
		}
		from = end
	}
}

// partOfName reports whether a byte beside a name makes it another one. A full stop
// or a colon can end what is said of it.
func partOfName(b byte) bool {
	return b == '-' || b == '_' || b == '|' || b == '/' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}
