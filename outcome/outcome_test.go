package outcome

import "testing"

func TestVerdictAndGateway(t *testing.T) {
	t.Parallel()
	type want struct {
		verdict Verdict
		gateway bool
	}
	for status, w := range map[int]want{
		0: {Success, false}, 200: {Success, false}, 429: {Success, false}, 499: {Success, false},
		500: {Failure, false}, 501: {Failure, false}, 502: {Failure, true}, 503: {Failure, true},
		504: {Failure, true}, 505: {Failure, false},
	} {
		o := Outcome{Kind: Response, Status: status}
		if got := (want{o.Verdict(), o.Gateway()}); got != w {
			t.Errorf("status %d: %+v, want %+v", status, got, w)
		}
	}
	// By Envoy's mapping of gRPC's codes to HTTP.
	for code, w := range []want{
		0: {}, 1: {}, 2: {Failure, false}, 3: {}, 4: {Failure, true}, 5: {}, 6: {}, 7: {}, 8: {}, 9: {}, 10: {}, 11: {},
		12: {Failure, false}, 13: {Failure, false}, 14: {Failure, true}, 15: {Failure, false}, 16: {}, 17: {},
	} {
		o := Outcome{Kind: Response, GRPC: true, Code: uint32(code)}
		if got := (want{o.Verdict(), o.Gateway()}); got != w {
			t.Errorf("code %d: %+v, want %+v", code, got, w)
		}
	}
	for kind := ConnectFailure; kind <= Closed; kind++ {
		w := want{Ignored, false}
		switch kind {
		case ConnectFailure, RefusedStream, ResetBeforeRequest, Reset, PerTryTimeout, Timeout:
			w = want{Failure, true}
		}
		o := Outcome{Kind: kind, Status: 503}
		if got := (want{o.Verdict(), o.Gateway()}); got != w {
			t.Errorf("%v: %+v, want %+v", kind, got, w)
		}
	}
}

func TestAnExcusedTimeoutIsNobodysFailure(t *testing.T) {
	t.Parallel()
	for _, grpc := range []bool{false, true} {
		o := Outcome{Kind: Timeout, GRPC: grpc, Code: codeDeadlineExceeded, Sent: true, Excused: true}
		if o.Verdict() != Ignored || o.Gateway() {
			t.Errorf("%+v: verdict %v, a gateway's failure %t", o, o.Verdict(), o.Gateway())
		}
	}
}

func TestEveryKindHasItsName(t *testing.T) {
	t.Parallel()
	for kind := Response; kind <= Closed; kind++ {
		if name := kind.String(); name == "" || name == "unknown" {
			t.Errorf("kind %d has no name", kind)
		}
	}
	if got := Kind(200).String(); got != "unknown" {
		t.Errorf("an unknown kind is called %q", got)
	}
}
