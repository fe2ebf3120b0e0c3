package controlplane

import (
	"slices"
	"strconv"
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

// rejected returns which resources of a response a rejection names, each with what is
// said of it. A name counts where a client puts that of the resource that it rejects,
// and nowhere else: reasons name other resources. So what is written in a form that is
// not known here names none, and stands in [NACK.Error] alone.
func (r *response) rejected(text string) []RejectedResource {
	names := r.resources()
	known := make(map[string]bool, len(names))
	for _, name := range names {
		known[name] = name != ""
	}
	if known[text] {
		return []RejectedResource{{Name: clip(text), Reason: clip(text)}}
	}
	form, list := formOf(text)
	all := make([]RejectedResource, 0)
	var reason strings.Builder
	end := func() {
		if len(all) > 0 {
			all[len(all)-1].Reason = clip(strings.Trim(reason.String(), " ;,\n"))
		}
		reason.Reset()
	}
	for i, part := range strings.Split(list, form.between) {
		name, said, ok := form.named(part)
		switch {
		case !ok || !known[name]: // it goes on with a reason
			if i > 0 {
				reason.WriteString(form.between)
			}
			reason.WriteString(part)
			continue
		case len(all) == maxRejected:
			end()
			return all
		}
		end()
		known[name] = false // what comes once more is said by a reason
		all = append(all, RejectedResource{Name: clip(name)})
		reason.WriteString(said)
	}
	end()
	return all
}

// form is how a client writes what it rejects.
type form struct {
	// between is what is between two resources.
	between string
	// named takes what is said of a resource apart.
	named func(part string) (name, reason string, ok bool)
}

// formOf finds the form of a rejection by how it begins, and returns what follows that.
// Envoy has one for each of the types of which a response may be rejected in part; it
// rejects others as a whole. Other clients are only believed a name that begins a line.
func formOf(text string) (f form, list string) {
	if list, ok := strings.CutPrefix(text, "Error adding/updating cluster(s) "); ok {
		return form{", ", plain}, list
	}
	if list, ok := strings.CutPrefix(text, "Error adding/updating listener(s) "); ok {
		return form{"\n", plain}, list
	}
	if strings.HasPrefix(text, "error parsing ") { // grpc-go
		if _, list, ok := strings.Cut(text, " response: "); ok {
			return form{";\n", quoted}, list
		}
	}
	if strings.HasPrefix(text, "rejected ") { // Inboard
		if _, list, ok := strings.Cut(text, " resources: "); ok {
			return form{"; ", quoted}, list
		}
	}
	return form{"\n", plain}, text
}

// plain is a name, a colon and the reason.
func plain(part string) (name, reason string, ok bool) { return strings.Cut(part, ": ") }

// quoted is "resource", for Inboard its index, the quoted name, a colon and the reason.
func quoted(part string) (name, reason string, ok bool) {
	part, ok = strings.CutPrefix(part, "resource ")
	if !ok {
		return "", "", false
	}
	literal, err := strconv.QuotedPrefix(strings.TrimLeft(strings.TrimLeft(part, "0123456789"), " "))
	if err != nil {
		return "", "", false
	}
	if name, err = strconv.Unquote(literal); err != nil {
		return "", "", false
	}
	_, reason, _ = strings.Cut(part, literal)
	reason, ok = strings.CutPrefix(reason, ": ")
	return name, reason, ok
}
