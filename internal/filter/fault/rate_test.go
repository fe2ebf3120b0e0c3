package fault

import (
	"math"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
)

func TestBF8_TheRateOfAResponseIsLimited(t *testing.T) {
	t.Parallel()
	const percent = 10_000
	fixed := &discovery.FaultRateLimit{KiBPerSecond: 20, PerMillion: everyCall}
	asked := &discovery.FaultRateLimit{FromHeader: true, PerMillion: everyCall, Unit: percent}
	on := func(l *discovery.FaultRateLimit) discovery.Fault { return discovery.Fault{RateLimit: l} }
	tests := []struct {
		name    string
		fault   discovery.Fault
		cluster string
		headers values
		piece   int // of a twentieth of a second; 0 without a limit
	}{
		{name: "a limit", fault: on(fixed), piece: 1024},
		{name: "of nothing", fault: on(&discovery.FaultRateLimit{KiBPerSecond: 20})},
		{name: "what is fixed cannot be controlled", fault: on(fixed), headers: values{rateHeader: {"1"}, rateShare: {"0"}}, piece: 1024},
		{name: "no header, no limit", fault: on(asked)},
		{name: "a header", fault: on(asked), headers: values{rateHeader: {"40"}}, piece: 2048},
		{name: "a header that is no number", fault: on(asked), headers: values{rateHeader: {"fast"}}},
		{name: "a limit of nothing is none", fault: on(asked), headers: values{rateHeader: {"0"}}},
		{name: "a limit that no body reaches", fault: on(asked), headers: values{rateHeader: {"18446744073709551615"}}, piece: math.MaxInt64 / 1_000_000_000 / 20},
		{name: "a share of nothing", fault: on(asked), headers: values{rateHeader: {"40"}, rateShare: {"0"}}},
		{name: "the cluster of the fault", fault: discovery.Fault{RateLimit: fixed, UpstreamCluster: "c"}, cluster: "c", piece: 1024},
		{name: "another cluster", fault: discovery.Fault{RateLimit: fixed, UpstreamCluster: "c"}, cluster: "d"},
		{name: "no cluster", fault: discovery.Fault{RateLimit: fixed, UpstreamCluster: "c"}},
		{name: "a node of the fault", fault: discovery.Fault{RateLimit: fixed, DownstreamNodes: []string{"m", "n"}}, headers: values{nodeHeader: {"n"}}, piece: 1024},
		{name: "another node", fault: discovery.Fault{RateLimit: fixed, DownstreamNodes: []string{"m"}}, headers: values{nodeHeader: {"n"}}},
		{name: "no node", fault: discovery.Fault{RateLimit: fixed, DownstreamNodes: []string{"m"}}},
		{
			name:  "beside an abort, which has no body",
			fault: discovery.Fault{RateLimit: fixed, Abort: &discovery.FaultAbort{HTTPStatus: 500, PerMillion: everyCall}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var faults Faults
			x := new(filter.Exchange)
			if tt.headers != nil {
				x.Header = tt.headers
			}
			if tt.cluster != "" {
				x.Decision = route.Decision{Cluster: &discovery.WeightedCluster{Name: tt.cluster}}
			}
			answer, err := faults.Filter(&tt.fault).Request(t.Context(), x)
			if err != nil || (answer != nil) != (tt.fault.Abort != nil) {
				t.Fatalf("%v, %v", answer, err)
			}
			piece := 0
			if pace := x.Pace(); pace != nil {
				piece = pace.Piece()
			}
			if piece != tt.piece {
				t.Errorf("pieces of %d bytes, want %d", piece, tt.piece)
			}
		})
	}
}

func TestBF3_ALimitIsActiveAsLongAsItsResponse(t *testing.T) {
	t.Parallel()
	var faults Faults
	injector := faults.Filter(&discovery.Fault{RateLimit: &discovery.FaultRateLimit{KiBPerSecond: 1, PerMillion: everyCall}, MaxActive: 1})
	begin := func() (*filter.Exchange, bool) {
		x := new(filter.Exchange)
		if _, err := injector.Request(t.Context(), x); err != nil {
			t.Fatal(err)
		}
		return x, x.Pace() != nil
	}
	first, limited := begin()
	if !limited {
		t.Error("the first is not limited")
	}
	if _, limited := begin(); limited {
		t.Error("the second is one too many")
	}
	first.End()
	third, limited := begin()
	if !limited {
		t.Error("the third is not limited, with none active")
	}
	third.End()
	if len(faults.active) != 0 {
		t.Errorf("%d faults are counted as active", len(faults.active))
	}
}

func TestBF7_SharesOfAllAndOfNothingAreExact(t *testing.T) {
	t.Parallel()
	const draws = 10_000
	// Envoy's tests allow 50 % to be off by 20 %; 4 standard deviations are 200.
	for perMillion, most := range map[uint32][2]int{0: {0, 0}, everyCall: {draws, draws}, everyCall / 2: {4800, 5200}} {
		var faults Faults
		injector := faults.Filter(&discovery.Fault{Abort: &discovery.FaultAbort{HTTPStatus: 401, PerMillion: perMillion}})
		n := 0
		for range draws {
			answer, err := injector.Request(t.Context(), new(filter.Exchange))
			if err != nil {
				t.Fatal(err)
			}
			if answer != nil {
				n++
			}
		}
		if n < most[0] || n > most[1] {
			t.Errorf("%d of a million: %d of %d are aborted", perMillion, n, draws)
		}
	}
}
