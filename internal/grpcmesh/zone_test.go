package grpcmesh_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/balancer"
)

func TestBP8_CallsStayInTheZoneOverHTTPAndGRPC(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		here, there := block(1, 3), block(2, 3)
		var local []*both
		for _, address := range here {
			local = append(local, f.serveBoth(address))
		}
		for _, address := range there {
			f.serveBoth(address)
		}
		calls := f.clients()
		// inZone makes 120 calls over each protocol, and says how many stayed.
		inZone := func() int64 {
			t.Helper()
			for _, b := range local {
				b.calls.Store(0)
				b.plain.Store(0)
			}
			for range 120 {
				if err := calls.callHTTP(context.Background()); err != nil {
					t.Fatal(err)
				}
				if err := calls.callGRPC(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			var got int64
			for _, b := range local {
				got += b.calls.Load() + b.plain.Load()
			}
			return got
		}
		called := placed(balancer.Config{ZoneAware: &balancer.ZoneAware{RoutingEnabled: 100}}, located(0, 1, "a", 3, here...), located(0, 1, "b", 3, there...))
		own := cluster("own")
		f.configure(forward("main"), called)
		synctest.Wait()
		if got := inZone(); got != 120 {
			t.Errorf("the caller's own cluster is not known: %d of 240 calls stayed, want half", got)
		}
		own.Endpoints.Localities = append(own.Endpoints.Localities[:0], located(0, 1, "a", 2, block(3, 2)...), located(0, 1, "b", 2, block(4, 2)...))
		f.configure(forward("main"), called, own)
		synctest.Wait()
		if got := inZone(); got != 240 {
			t.Errorf("%d of 240 calls stayed, want all", got)
		}
		crowded := cluster("own") // two thirds of the callers are here, half of the endpoints
		crowded.Endpoints.Localities = append(crowded.Endpoints.Localities[:0], located(0, 1, "a", 4, block(3, 4)...), located(0, 1, "b", 2, block(4, 2)...))
		f.configure(forward("main"), called, crowded)
		synctest.Wait()
		if got := inZone(); got < 178 || got > 182 {
			t.Errorf("%d of 240 calls stayed, want three quarters", got)
		}
	})
}
