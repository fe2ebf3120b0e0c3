package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	xdscreds "google.golang.org/grpc/credentials/xds"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/xds"

	"github.com/inboardmesh/inboard/mesh"
)

type payments struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (payments) UnaryCall(context.Context, *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return &grpc_testing.SimpleResponse{Payload: &grpc_testing.Payload{Body: []byte(kilobyte)}}, nil
}

// serveGRPC serves in the background for the rest of the process.
func serveGRPC(ctx context.Context, k kind, ln net.Listener) error {
	var options []grpc.ServerOption
	switch {
	case k == grpcTLS, k == grpcOTel:
		config, err := mutualTLS("h2")
		if err != nil {
			return err
		}
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
		if k == grpcOTel {
			globalTelemetry()
			options = append(options, grpc.StatsHandler(otelgrpc.NewServerHandler()))
		}
	case needsControlPlane(k):
		m, err := mesh.New(ctx, meshOptions(k)...)
		if err != nil {
			return err
		}
		if ln, err = m.Serve(ctx, ln); err != nil {
			return err
		}
		options = m.ServerOptions()
	}
	server := grpc.NewServer(options...)
	grpc_testing.RegisterTestServiceServer(server, payments{})
	go func() { _ = server.Serve(ln) }() // until the process ends
	return nil
}

func dialGRPC(ctx context.Context, k kind, target string) (func() error, error) {
	var options []grpc.DialOption
	switch {
	case k == grpcPlain:
		options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	case k == grpcXDS:
		resolver, err := xds.NewXDSResolverWithConfigForTesting([]byte(os.Getenv("BENCH_NATIVE_BOOTSTRAP")))
		if err != nil {
			return nil, err
		}
		creds, err := xdscreds.NewClientCredentials(xdscreds.ClientOptions{FallbackCreds: insecure.NewCredentials()})
		if err != nil {
			return nil, err
		}
		options = append(options, grpc.WithResolvers(resolver), grpc.WithTransportCredentials(creds))
	case needsControlPlane(k):
		m, err := mesh.New(ctx, meshOptions(k)...)
		if err != nil {
			return nil, err
		}
		options = m.DialOptions()
	default:
		config, err := mutualTLS("h2")
		if err != nil {
			return nil, err
		}
		options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(config)))
		if k == grpcOTel {
			globalTelemetry()
			options = append(options, grpc.WithStatsHandler(otelgrpc.NewClientHandler()))
		}
	}
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, err
	}
	client := grpc_testing.NewTestServiceClient(conn)
	return func() error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		answer, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{})
		if err == nil && len(answer.GetPayload().GetBody()) != len(kilobyte) {
			return fmt.Errorf("got %d bytes", len(answer.GetPayload().GetBody()))
		}
		return err
	}, nil
}
