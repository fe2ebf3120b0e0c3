package filter_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/internal/filter"
)

func TestBF8_ABodyPassesAtItsPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var x filter.Exchange
		x.LimitBody(4000)
		x.LimitBody(1000)
		x.LimitBody(math.MaxUint64) // the slowest holds
		pace := x.Pace()
		if n := pace.Piece(); n != 50 {
			t.Errorf("a piece of %d bytes", n)
		}
		start := time.Now()
		wait := func(n int, want time.Duration) {
			t.Helper()
			if err := pace.Wait(t.Context(), n, nil); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took != want {
				t.Errorf("%d bytes have passed after %v, want %v", n, took, want)
			}
		}
		wait(500, 500*time.Millisecond)
		wait(0, 500*time.Millisecond)
		wait(1500, 2*time.Second)
		time.Sleep(time.Hour) // of which a second counts
		start = time.Now()
		wait(1000, 0)
		wait(100, 100*time.Millisecond)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := pace.Wait(ctx, 1<<30, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a wait that is too long gives %v", err)
		}
		stop := make(chan struct{})
		close(stop)
		if err := pace.Wait(t.Context(), 1, stop); !errors.Is(err, context.Canceled) {
			t.Errorf("a wait that is stopped gives %v", err)
		}
		var none *filter.Pace
		if err := none.Wait(t.Context(), 1<<30, nil); err != nil || (*filter.Exchange)(nil).Pace() != nil {
			t.Error("there is a pace without a limit")
		}
	})
}

func TestBF8_PacesOfAnySizeWork(t *testing.T) {
	t.Parallel()
	for _, rate := range []uint64{0, 1, 19, 20, 1 << 40, math.MaxUint64} {
		var x filter.Exchange
		x.LimitBody(rate)
		if n := x.Pace().Piece(); n < 1 {
			t.Errorf("%d bytes per second pass in pieces of %d", rate, n)
		}
	}
}

func TestAnExchangeEndsAsOftenAsItWasAsked(t *testing.T) {
	t.Parallel()
	var x filter.Exchange
	n := 0
	x.AtEnd(func() { n++ })
	x.AtEnd(func() { n++ })
	x.End()
	(*filter.Exchange)(nil).End()
	if n != 2 {
		t.Errorf("%d of 2 functions were called", n)
	}
}
