package ads

import (
	"errors"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery"
)

// maxRequest bounds the names and versions of a request: the rest goes with the next
// one. A gRPC server accepts 4 MiB by default, and refuses more whenever it is tried
// again.
const maxRequest = 3 << 20

// delta is the incremental variant: requests carry what changed.
type delta struct {
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
}

func (d *delta) send(m proto.Message) error { return d.stream.SendMsg(m) }

func (d *delta) recv() (*response, error) {
	m, err := d.stream.Recv()
	if err != nil {
		return nil, err
	}
	return parseDelta(m), nil
}

func (d *delta) nextLocked(lt *linkType, node *corev3.Node) (proto.Message, []string) {
	// An answer goes alone: some servers drop everything in a request whose
	// nonce is not the latest.
	if r := lt.takeReplyLocked(false); r != nil {
		return &discoveryv3.DeltaDiscoveryRequest{
			Node:          node,
			TypeUrl:       lt.URL,
			ResponseNonce: r.nonce,
			ErrorDetail:   detail(r.err),
		}, nil
	}
	first := !lt.sub.started
	subscribe, unsubscribe := lt.reconcileLocked(maxRequest, func(name string) int {
		cost := sizeOf(name)
		if e := lt.entries[name]; first && e != nil && e.held {
			cost += sizeOf(name) + sizeOf(e.version)
		}
		return cost
	})
	if len(subscribe) == 0 && len(unsubscribe) == 0 {
		return nil, nil
	}
	slices.Sort(subscribe)
	slices.Sort(unsubscribe)
	request := &discoveryv3.DeltaDiscoveryRequest{
		Node:                     node,
		TypeUrl:                  lt.URL,
		ResourceNamesSubscribe:   subscribe,
		ResourceNamesUnsubscribe: unsubscribe,
	}
	if first {
		lt.sub.started = true
		request.InitialResourceVersions = lt.versionsLocked()
		if len(subscribe) == 1 && subscribe[0] == Wildcard {
			// Every server understands the empty list, not every one "*".
			request.ResourceNamesSubscribe = nil
		}
	}
	return request, subscribe
}

// sizeOf is how much of a request a text takes at most, the tags around it included.
func sizeOf(text string) int { return len(text) + 8 }

// versionsLocked are the versions in force that the server has sent. What it has
// removed is left out although it is kept: if it exists again, the server has to
// say so. So is everything of an authority that has fallen back to another
// server: what this one sends shows that it is back. Of what has not been subscribed
// yet there is nothing, and no more of collections than a request may hold: a server
// sends again what it is not told of.
func (lt *linkType) versionsLocked() map[string]string {
	var versions map[string]string
	room := maxRequest
	for name := range lt.sub.sent {
		if e := lt.entries[name]; e != nil && e.held {
			room -= 2*sizeOf(name) + sizeOf(e.version)
		} else {
			room -= sizeOf(name)
		}
	}
	for name, e := range lt.entries {
		if !e.held || e.source != lt.link || e.version == "" || errors.Is(e.err, discovery.ErrNotFound) {
			continue
		}
		if used := e.authority.inUseLocked(); used[len(used)-1] != lt.link {
			continue
		}
		if _, told := lt.sub.sent[name]; !told {
			size := sizeOf(name) + sizeOf(e.version)
			if len(e.collectionsLocked()) == 0 || size > room {
				continue
			}
			room -= size
		}
		if versions == nil {
			versions = make(map[string]string)
		}
		versions[name] = e.version
	}
	return versions
}
