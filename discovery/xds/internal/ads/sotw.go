package ads

import (
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// sotw is the state-of-the-world variant: each request carries all names.
type sotw struct {
	stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
}

func (s *sotw) send(m proto.Message) error { return s.stream.SendMsg(m) }

func (s *sotw) recv() (*response, error) {
	m, err := s.stream.Recv()
	if err != nil {
		return nil, err
	}
	return parseSotW(m), nil
}

func (s *sotw) nextLocked(lt *linkType, node *corev3.Node) (proto.Message, []string) {
	// The version is read first: releasing the last resource forgets it, but
	// the request that unsubscribes still belongs to it.
	version := lt.version
	_, wildcard := lt.sub.sent[Wildcard]
	subscribe, unsubscribe := lt.reconcileLocked(1, func(string) int { return 0 }) // all: each request has every name
	changed := len(subscribe) > 0 || len(unsubscribe) > 0
	// With the nonce of the latest response every request answers it.
	r := lt.takeReplyLocked(changed)
	if r == nil && !changed {
		return nil, nil
	}
	request := &discoveryv3.DiscoveryRequest{
		Node:          node,
		TypeUrl:       lt.URL,
		VersionInfo:   version,
		ResponseNonce: lt.sub.nonce,
		ResourceNames: slices.Sorted(maps.Keys(lt.sub.sent)),
	}
	if r != nil {
		request.VersionInfo, request.ResponseNonce = r.version, r.nonce
		request.ErrorDetail = detail(r.err)
	}
	lt.sub.started = true
	switch _, all := lt.sub.sent[Wildcard]; {
	case lt.sub.named:
	case all && len(lt.sub.sent) == 1:
		// Every server understands the empty list, not every one "*".
		request.ResourceNames = nil
	case wildcard && len(lt.sub.sent) == 0:
		// An empty list would still mean everything. The wildcard has to be
		// named once before it can be given up by the next request.
		request.ResourceNames = []string{Wildcard}
		lt.sub.named = true
		lt.sub.sent[Wildcard] = struct{}{}
		lt.pending[Wildcard] = struct{}{}
	default:
		lt.sub.named = true
	}
	return request, subscribe
}

// detail is the error_detail of a NACK, nil for an ACK.
func detail(err error) *statuspb.Status {
	if err == nil {
		return nil
	}
	return &statuspb.Status{Code: int32(codes.InvalidArgument), Message: err.Error()}
}
