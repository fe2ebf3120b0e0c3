package ads

import (
	"errors"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery"
)

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
	subscribe, unsubscribe := lt.reconcileLocked()
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
	if !lt.sub.started {
		lt.sub.started = true
		request.InitialResourceVersions = lt.versionsLocked()
		if len(subscribe) == 1 && subscribe[0] == Wildcard {
			// Every server understands the empty list, not every one "*".
			request.ResourceNamesSubscribe = nil
		}
	}
	return request, subscribe
}

// versionsLocked are the versions in force that the server has sent. What it has
// removed is left out although it is kept: if it exists again, the server has to
// say so. So is everything of an authority that has fallen back to another
// server: what this one sends shows that it is back.
func (lt *linkType) versionsLocked() map[string]string {
	var versions map[string]string
	for name, e := range lt.entries {
		if !e.held || e.source != lt.link || e.version == "" || errors.Is(e.err, discovery.ErrNotFound) {
			continue
		}
		if used := e.authority.inUseLocked(); used[len(used)-1] != lt.link {
			continue
		}
		if versions == nil {
			versions = make(map[string]string)
		}
		versions[name] = e.version
	}
	return versions
}
