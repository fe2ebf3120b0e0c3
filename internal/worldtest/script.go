package worldtest

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
)

// ScriptHeader makes a request tell the payments what to do with it, so that
// many tests can share them. Its value is what happens at each arrival of the
// call, separated by commas; the last goes for all further ones:
//
//	ok           an ordinary answer
//	fail=503/14  a failure: the HTTP status and the gRPC code
//	wait=300ms   an ordinary answer, after a while
//	hang         no answer until the caller gives up
//
// CallHeader names the call whose arrivals are counted, see [World.Arrivals].
const (
	ScriptHeader = "Test-Script"
	CallHeader   = "Test-Call"
)

// arrivals counts the arrivals of calls at all payments of a world.
type arrivals struct{ counts sync.Map } // of *atomic.Int64 by name

func (a *arrivals) add(call string) int64 {
	n, _ := a.counts.LoadOrStore(call, new(atomic.Int64))
	return n.(*atomic.Int64).Add(1)
}

// Arrivals is how often a call has arrived at any payment.
func (w *World) Arrivals(call string) int64 {
	n, ok := w.arrivals.counts.Load(call)
	if !ok {
		return 0
	}
	return n.(*atomic.Int64).Load()
}

// failure is a scripted failure. Without one, Status is 0.
type failure struct {
	Status int
	Code   codes.Code
}

// follow does what the script of a call says. An error is a mistake in the
// script, or the end of the context.
func (a *arrivals) follow(ctx context.Context, call, script string) (failure, error) {
	n := int64(1)
	if call != "" {
		n = a.add(call)
	}
	if script == "" {
		return failure{}, nil
	}
	steps := strings.Split(script, ",")
	step := steps[min(int(n), len(steps))-1]
	verb, argument, _ := strings.Cut(strings.TrimSpace(step), "=")
	switch verb {
	case "ok":
		return failure{}, nil
	case "fail":
		return parseFailure(argument)
	case "wait":
		d, err := time.ParseDuration(argument)
		if err != nil {
			return failure{}, fmt.Errorf("script %q: %w", script, err)
		}
		return failure{}, wait(ctx, d)
	case "hang":
		// Not until the deadline that came with the call: a payment that is a
		// moment ahead of its caller would answer after all.
		if caller, ok := ctx.Value(callerKey{}).(context.Context); ok {
			<-caller.Done()
		}
		<-ctx.Done()
		return failure{}, ctx.Err()
	}
	return failure{}, fmt.Errorf("script %q: unknown step %q", script, step)
}

func parseFailure(s string) (failure, error) {
	status, code, _ := strings.Cut(s, "/")
	f := failure{Status: http.StatusServiceUnavailable, Code: codes.Unavailable}
	if n, err := strconv.Atoi(status); err == nil {
		f.Status = n
	} else if status != "" {
		return failure{}, fmt.Errorf("script: status %q: %w", status, err)
	}
	if n, err := strconv.ParseUint(code, 10, 32); err == nil {
		f.Code = codes.Code(n)
	} else if code != "" {
		return failure{}, fmt.Errorf("script: code %q: %w", code, err)
	}
	return f, nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
