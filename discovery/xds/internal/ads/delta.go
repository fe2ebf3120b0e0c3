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

func (d *delta) nextLocked(c *Client, ts *typeState, node *corev3.Node) (proto.Message, []string) {
	// An answer goes alone: some servers drop everything in a request whose
	// nonce is not the latest.
	if r := ts.takeReplyLocked(); r != nil {
		return &discoveryv3.DeltaDiscoveryRequest{
			Node:          node,
			TypeUrl:       ts.URL,
			ResponseNonce: r.nonce,
			ErrorDetail:   detail(r.err),
		}, nil
	}
	subscribe, unsubscribe := c.reconcileLocked(ts)
	if len(subscribe) == 0 && len(unsubscribe) == 0 {
		return nil, nil
	}
	slices.Sort(subscribe)
	slices.Sort(unsubscribe)
	request := &discoveryv3.DeltaDiscoveryRequest{
		Node:                     node,
		TypeUrl:                  ts.URL,
		ResourceNamesSubscribe:   subscribe,
		ResourceNamesUnsubscribe: unsubscribe,
	}
	if !ts.sub.started {
		ts.sub.started = true
		request.InitialResourceVersions = ts.versionsLocked()
		if len(subscribe) == 1 && subscribe[0] == Wildcard {
			// Every server understands the empty list, not every one "*".
			request.ResourceNamesSubscribe = nil
		}
	}
	return request, subscribe
}

// versionsLocked are the versions in force. What the server has removed is left
// out although it is kept: if it exists again, the server has to say so.
func (ts *typeState) versionsLocked() map[string]string {
	var versions map[string]string
	for name, e := range ts.entries {
		if !e.held || e.version == "" || errors.Is(e.err, discovery.ErrNotFound) {
			continue
		}
		if versions == nil {
			versions = make(map[string]string)
		}
		versions[name] = e.version
	}
	return versions
}
