package grpcmesh_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// Without a configuration the calls of open connections are refused as those of an
// endpoint that is not there, what runs is finished, and peers are sent away (gRFC A36).
func TestX73_AListenerThatDoesNotServeRefusesCallsAndFinishesWhatRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := &backend{before: func(_ context.Context, n int64) error {
			if n == 1 {
				time.Sleep(time.Minute)
			}
			return nil
		}}
		server := f.serveAs(plaintext(endpoint), b)
		client := f.plainClient(endpoint)
		running := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			_, err := client.EmptyCall(ctx, &grpc_testing.Empty{})
			running <- err
		}()
		synctest.Wait()
		f.source.withdraw(endpoint)
		synctest.Wait()
		for range 3 { // over the open connection, and over those that follow it
			_, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{})
			if status.Code(err) != codes.Unavailable {
				t.Errorf("a call without a configuration: %v", err)
			}
			synctest.Wait()
		}
		if err := <-running; err != nil {
			t.Errorf("a call that ran before: %v", err)
		}
		synctest.Wait()
		if n := server.open.Load(); n != 0 {
			t.Errorf("%d connections are open to a listener that does not serve", n)
		}
		f.source.setInbound(endpoint, plaintext(endpoint))
		time.Sleep(2 * time.Minute) // the client's back-off
		if _, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{}); err != nil {
			t.Errorf("after it came back: %v", err)
		}
		if n := b.calls.Load(); n != 2 {
			t.Errorf("the application has seen %d calls", n)
		}
	})
}
