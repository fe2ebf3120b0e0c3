package controlplane

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// TestCallsOfWhichOnlyTheHeadersComeAreBounded: in number on a connection, and in time.
func TestCallsOfWhichOnlyTheHeadersComeAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t, Config{Files: []istio.File{service("payment", "10.0.0.1")}})
		network := serveMemory(t, s)
		client := joined(t, network)
		conn := dial(t, network, "plaintext:1")
		begin := func() grpc.ClientStream {
			stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, grpc_health_v1.Health_Check_FullMethodName)
			if err != nil {
				t.Fatal(err)
			}
			return stream
		}
		var begun []grpc.ClientStream
		for range maxShortOfOne {
			begun = append(begun, begin())
		}
		synctest.Wait()
		start := time.Now()
		answer := new(grpc_health_v1.HealthCheckResponse)
		if err := begin().RecvMsg(answer); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("one more ends with %v", err)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("one more waits for %v", waited)
		}
		for _, stream := range begun {
			if err := stream.RecvMsg(answer); status.Code(err) != codes.DeadlineExceeded {
				t.Fatalf("a call without a message ends with %v", err)
			}
		}
		if waited := time.Since(start); waited != callTime {
			t.Errorf("they wait for %v", waited)
		}
		synctest.Wait()
		if _, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
			t.Errorf("there is no room again: %v", err)
		}
		synctest.Wait()
		s.connections.mu.Lock()
		if s.connections.short != 0 {
			t.Errorf("%d calls are left", s.connections.short)
		}
		s.connections.mu.Unlock()
		client.quiet()
	})
}

func TestCallsOfAllConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	c := newConnections(10, slog.New(slog.DiscardHandler))
	for range maxShort {
		if !c.beginShort(nil) {
			t.Fatal("refused too early")
		}
	}
	if c.beginShort(nil) {
		t.Error("one more is taken")
	}
	c.endShort(nil)
	if !c.beginShort(nil) {
		t.Error("there is no room again")
	}
}
