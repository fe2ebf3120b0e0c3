package controlplane

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// subscription is what a client wants of one type and what it has. It is a
// copy: go-control-plane changes its own maps in place between watches.
type subscription struct {
	node     istio.Node
	typeURL  string
	wildcard bool
	explicit map[string]struct{}
	// known are the versions that the client was sent.
	known map[string]string
}

func newSubscription(node istio.Node, typeURL string, from cache.Subscription) *subscription {
	return &subscription{
		node:     node,
		typeURL:  typeURL,
		wildcard: from.IsWildcard(),
		explicit: maps.Clone(from.SubscribedResources()),
		known:    maps.Clone(from.ReturnedResources()),
	}
}

// names returns what the client is subscribed to, and what of the resources
// that it has, by way of a wildcard, is not there any more. Both are sorted.
func (s *subscription) names(from *snapshot) (wanted, gone []string) {
	if !s.wildcard {
		return slices.Sorted(maps.Keys(s.explicit)), nil
	}
	all := make(map[string]struct{})
	maps.Copy(all, s.explicit)
	for name := range from.names(s.node, s.typeURL) {
		all[name] = struct{}{}
	}
	for name := range s.known {
		if _, ok := all[name]; !ok {
			gone = append(gone, name)
		}
	}
	slices.Sort(gone)
	return slices.Sorted(maps.Keys(all)), gone
}

// signature says whose response it is: our clients take a control plane for Istio's
// workloads that does not say so for istiod, with which they do not speak delta.
func signature() *core.ControlPlane { return &core.ControlPlane{Identifier: "inboard"} }

// delta answers a delta request, or returns nil if there is nothing to say.
func (s *subscription) delta(from *snapshot, request *discovery.DeltaDiscoveryRequest) (cache.DeltaResponse, error) {
	// discovery.proto: the server must answer with every resource in
	// resource_names_subscribe, even if it believes that the client has it:
	// the client may have dropped it in between. Only the versions that the
	// client itself names, on a new stream, are to be believed.
	asked := make(map[string]bool)
	for _, name := range request.GetResourceNamesSubscribe() {
		if _, has := request.GetInitialResourceVersions()[name]; !has {
			asked[name] = true
		}
	}
	response := &discovery.DeltaDiscoveryResponse{TypeUrl: s.typeURL, ControlPlane: signature()}
	next := make(map[string]string)
	digest := xxhash.New()
	wanted, gone := s.names(from)
	response.RemovedResources = gone
	for _, name := range wanted {
		e, err := from.lookup(s.node, s.typeURL, name)
		if err != nil {
			return nil, err
		}
		version, known := s.known[name]
		if e == nil {
			if known || asked[name] {
				// Also what is refused: not everybody reads errors.
				response.RemovedResources = append(response.RemovedResources, name)
				response.ResourceErrors = append(response.ResourceErrors, s.refused(from, name)...)
			}
			continue
		}
		next[name] = e.version
		writeVersion(digest, name, e.version)
		if asked[name] || version != e.version {
			response.Resources = append(response.Resources, &discovery.Resource{Name: name, Version: e.version, Resource: e.any})
		}
	}
	// A wildcard subscription that has nothing yet is answered all the same,
	// so that the client knows that there is nothing.
	first := s.wildcard && request.GetResponseNonce() == "" && len(s.known) == 0
	if len(response.GetResources()) == 0 && len(response.GetRemovedResources()) == 0 && !first {
		return nil, nil
	}
	response.SystemVersionInfo = strconv.FormatUint(digest.Sum64(), 16)
	return &cache.DeltaPassthroughResponse{
		DeltaRequest:           request,
		DeltaDiscoveryResponse: response,
		NextVersionMap:         next,
	}, nil
}

// refused is the error of a resource that is another's (gRFC A88), if that is why the
// node does not get it. It tells the node who it is itself, and not who the other one is.
func (s *subscription) refused(from *snapshot, name string) []*discovery.ResourceError {
	if from.refusal(s.node, s.typeURL, name) == nil {
		return nil
	}
	return []*discovery.ResourceError{{
		ResourceName: &discovery.ResourceName{Name: name},
		ErrorDetail: &rpcstatus.Status{Code: int32(codes.PermissionDenied), Message: fmt.Sprintf(
			"refused: the configuration has another workload at this address, and this one is the service account %q of namespace %q; \"inboard status\" of the control plane tells which",
			clip(s.node.ServiceAccount), clip(s.node.Namespace))},
	}}
}

// stateOfTheWorld answers a request of the other protocol, or returns nil. A
// name that the client was told not to exist is known with version "".
func (s *subscription) stateOfTheWorld(from *snapshot, request *discovery.DiscoveryRequest) (cache.Response, error) {
	// Listeners and clusters are removed by being left out, so each answer
	// holds all of them. Others are never removed, and an answer holds those
	// that changed (xDS protocol, "grouping resources into responses").
	complete := s.typeURL == resource.ListenerType || s.typeURL == resource.ClusterType
	response := &discovery.DiscoveryResponse{TypeUrl: s.typeURL, ControlPlane: signature()}
	next := make(map[string]string)
	wanted, gone := s.names(from)
	changed := complete && (len(gone) > 0 || s.wildcard && request.GetResponseNonce() == "")
	digest := xxhash.New()
	for _, name := range wanted {
		e, err := from.lookup(s.node, s.typeURL, name)
		if err != nil {
			return nil, err
		}
		was, known := s.known[name]
		if e == nil {
			if complete {
				changed = changed || !known || was != ""
				next[name] = ""
			} else if known {
				next[name] = was // the client keeps it
			}
			writeVersion(digest, name, "")
			response.ResourceErrors = append(response.ResourceErrors, s.refused(from, name)...)
			continue
		}
		differs := !known || was != e.version
		changed = changed || differs
		next[name] = e.version
		writeVersion(digest, name, e.version)
		if complete || differs {
			response.Resources = append(response.Resources, e.any)
		}
	}
	if !changed {
		return nil, nil
	}
	response.VersionInfo = strconv.FormatUint(digest.Sum64(), 16)
	return &cache.PassthroughResponse{
		Request:           request,
		DiscoveryResponse: response,
		ReturnedResources: next,
	}, nil
}

// writeVersion adds a resource to a digest. NUL cannot be in a name that is
// found, so two sets never write the same.
func writeVersion(digest *xxhash.Digest, name, version string) {
	_, _ = digest.WriteString(name + "\x00" + version + "\x00") // never fails, says its documentation
}
