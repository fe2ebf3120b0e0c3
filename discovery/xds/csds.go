package xds

import (
	"context"
	"errors"
	"io"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
)

// clientStates are the states of resources as CSDS has them (gRFC A40, A88).
var clientStates = map[ads.State]adminv3.ClientResourceStatus{
	ads.StateRequested:     adminv3.ClientResourceStatus_REQUESTED,
	ads.StateDoesNotExist:  adminv3.ClientResourceStatus_DOES_NOT_EXIST,
	ads.StateAcked:         adminv3.ClientResourceStatus_ACKED,
	ads.StateNacked:        adminv3.ClientResourceStatus_NACKED,
	ads.StateReceivedError: adminv3.ClientResourceStatus_RECEIVED_ERROR,
	ads.StateTimeout:       adminv3.ClientResourceStatus_TIMEOUT,
}

// RegisterClientStatus adds the client status discovery service (CSDS, gRFC A40)
// to a gRPC server: what this process has of the control plane, for
// "grpcdebug xds status" and the like. What may be a secret is left out. The service
// authenticates nobody: the server does, or listens where only this host reaches it.
func (s *Source) RegisterClientStatus(r grpc.ServiceRegistrar) {
	statusv3.RegisterClientStatusDiscoveryServiceServer(r, &clientStatus{source: s})
}

// ClientStatusJSON is the answer of the client status discovery service as
// protobuf's JSON.
func (s *Source) ClientStatusJSON() ([]byte, error) {
	return protojson.MarshalOptions{Multiline: true}.Marshal(s.clientStatus(false))
}

// clientStatus is the service.
type clientStatus struct {
	statusv3.UnimplementedClientStatusDiscoveryServiceServer
	source *Source
}

// FetchClientStatus answers once.
func (c *clientStatus) FetchClientStatus(_ context.Context, r *statusv3.ClientStatusRequest) (*statusv3.ClientStatusResponse, error) {
	if len(r.GetNodeMatchers()) > 0 {
		return nil, status.Error(codes.InvalidArgument, "node_matchers: there is one node here: leave them out")
	}
	return c.source.clientStatus(r.GetExcludeResourceContents()), nil
}

// StreamClientStatus answers each request.
func (c *clientStatus) StreamClientStatus(stream statusv3.ClientStatusDiscoveryService_StreamClientStatusServer) error {
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		response, err := c.FetchClientStatus(stream.Context(), request)
		if err != nil {
			return err
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}

// clientStatus tells the state of every resource, with its contents unless they are
// excluded.
func (s *Source) clientStatus(bare bool) *statusv3.ClientStatusResponse {
	config := &statusv3.ClientConfig{Node: s.client.Node()}
	for _, state := range s.client.Dump() {
		one := &statusv3.ClientConfig_GenericXdsConfig{
			TypeUrl:      state.TypeURL,
			Name:         state.Name,
			VersionInfo:  state.Version,
			LastUpdated:  timestamppb.New(state.Updated),
			ClientStatus: clientStates[state.State],
		}
		if !bare && state.Raw != nil {
			one.XdsConfig = redacted(state.TypeURL, state.Raw)
		}
		if err := state.Err; err != nil {
			one.ErrorState = &adminv3.UpdateFailureState{
				Details:           err.Error(),
				VersionInfo:       state.RejectedVersion,
				LastUpdateAttempt: timestamppb.New(state.Failed),
			}
			if !bare && state.RejectedRaw != nil {
				one.ErrorState.FailedConfiguration = redacted(state.TypeURL, state.RejectedRaw)
			}
		}
		config.GenericXdsConfigs = append(config.GenericXdsConfigs, one)
	}
	return &statusv3.ClientStatusResponse{Config: []*statusv3.ClientConfig{config}}
}
