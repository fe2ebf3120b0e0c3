package fault

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
)

// values are headers by their lower-case names.
type values map[string][]string

func (v values) Values(name string) []string { return v[name] }

func TestBF4_HeadersControlFaults(t *testing.T) {
	t.Parallel()
	const percent = 10_000
	delay := &discovery.FaultDelay{FromHeader: true, PerMillion: everyCall, Unit: percent}
	abort := &discovery.FaultAbort{FromHeader: true, PerMillion: everyCall, Unit: percent}
	never := &discovery.FaultAbort{FromHeader: true, PerMillion: 0, Unit: percent}
	fixed := &discovery.FaultAbort{HTTPStatus: 503, PerMillion: everyCall}
	tests := []struct {
		name    string
		fault   discovery.Fault
		headers values
		delay   time.Duration
		status  int
		code    uint32 // of gRPC, if not 0
	}{
		{name: "no header, no fault", fault: discovery.Fault{Delay: delay, Abort: abort}},
		{name: "a delay", fault: discovery.Fault{Delay: delay}, headers: values{delayHeader: {"1500"}}, delay: 1500 * time.Millisecond},
		{name: "a delay that is no number", fault: discovery.Fault{Delay: delay}, headers: values{delayHeader: {"-1"}}},
		{name: "a delay that is too long for a duration", fault: discovery.Fault{Delay: delay}, headers: values{delayHeader: {"9223372036855"}}},
		{name: "a status", fault: discovery.Fault{Abort: abort}, headers: values{abortHeader: {"418"}}, status: 418},
		{name: "a status that is none", fault: discovery.Fault{Abort: abort}, headers: values{abortHeader: {"199"}}},
		{name: "a status that is too high", fault: discovery.Fault{Abort: abort}, headers: values{abortHeader: {"600"}}},
		{name: "a code", fault: discovery.Fault{Abort: abort}, headers: values{abortGRPCHeader: {"14"}}, code: 14},
		{name: "a code that is none", fault: discovery.Fault{Abort: abort}, headers: values{abortGRPCHeader: {"17"}}},
		{name: "a status goes before a code", fault: discovery.Fault{Abort: abort}, headers: values{abortHeader: {"500"}, abortGRPCHeader: {"14"}}, status: 500},
		{name: "a share of nothing", fault: discovery.Fault{Abort: abort}, headers: values{abortHeader: {"500"}, abortShare: {"0"}}},
		{name: "a share that is no number", fault: discovery.Fault{Abort: abort}, headers: values{abortHeader: {"500"}, abortShare: {"x"}}, status: 500},
		{name: "no larger share than is configured", fault: discovery.Fault{Abort: never}, headers: values{abortHeader: {"500"}, abortShare: {"100"}}},
		{name: "what is fixed cannot be controlled", fault: discovery.Fault{Abort: fixed}, headers: values{abortHeader: {"500"}, abortShare: {"0"}}, status: 503},
		{
			name: "both", fault: discovery.Fault{Delay: delay, Abort: abort},
			headers: values{delayHeader: {"10"}, abortHeader: {"500"}}, delay: 10 * time.Millisecond, status: 500,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var faults Faults
				x := new(filter.Exchange)
				x.Header = tt.headers
				start := time.Now()
				answer, err := faults.Filter(&tt.fault).Request(context.Background(), x)
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took != tt.delay {
					t.Errorf("a delay of %v, want %v", took, tt.delay)
				}
				switch {
				case answer == nil:
					if tt.status != 0 || tt.code != 0 {
						t.Error("no abort")
					}
				case answer.Status != tt.status || answer.Code != tt.code || answer.IsGRPC != (tt.code != 0):
					t.Errorf("abort %+v", answer)
				}
			})
		})
	}
}

func TestBF4_AShareOfAHeaderIsInUnitsOfTheConfiguration(t *testing.T) {
	t.Parallel()
	// 4 standard deviations of 10,000 draws of 20 % are 160.
	const n, want, tolerance = 10_000, 2000, 160
	abort := &discovery.FaultAbort{FromHeader: true, PerMillion: 500_000, Unit: 100}
	var faults Faults
	injector := faults.Filter(&discovery.Fault{Abort: abort})
	aborted := 0
	for range n {
		x := new(filter.Exchange)
		x.Header = values{abortHeader: {"500"}, abortShare: {"2000"}} // of 10,000
		answer, err := injector.Request(context.Background(), x)
		if err != nil {
			t.Fatal(err)
		}
		if answer != nil {
			aborted++
		}
	}
	if aborted < want-tolerance || aborted > want+tolerance {
		t.Errorf("%d of %d are aborted, want about %d", aborted, n, want)
	}
}
