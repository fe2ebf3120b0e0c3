package fault

import (
	"math"
	"strconv"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
)

// The headers by which a request controls its own faults, where the configuration
// lets it (Envoy, "Controlling fault injection via HTTP headers"; gRFC A33). They
// are passed on.
const (
	delayHeader      = "x-envoy-fault-delay-request"
	delayShare       = "x-envoy-fault-delay-request-percentage"
	rateHeader       = "x-envoy-fault-throughput-response"
	rateShare        = "x-envoy-fault-throughput-response-percentage"
	abortHeader      = "x-envoy-fault-abort-request"
	abortGRPCHeader  = "x-envoy-fault-abort-grpc-request"
	abortShare       = "x-envoy-fault-abort-request-percentage"
	leastStatus      = 200
	greatestStatus   = 599
	greatestGRPCCode = 16 // UNAUTHENTICATED

	kibibyte = 1 << 10
)

// drawDelay says whether a request is delayed, and for how long.
func drawDelay(d *discovery.FaultDelay, req *route.Request) (time.Duration, bool) {
	wait, share := delayOf(d, req)
	return wait, route.Draw(share)
}

// delayOf is how long the share of the requests waits that is delayed.
func delayOf(d *discovery.FaultDelay, req *route.Request) (wait time.Duration, share uint32) {
	if d == nil {
		return 0, 0
	}
	if !d.FromHeader {
		return d.Fixed, d.PerMillion
	}
	ms, ok := number(req, delayHeader, math.MaxInt64/uint64(time.Millisecond))
	if !ok {
		return 0, 0
	}
	return time.Duration(ms) * time.Millisecond, smaller(req, delayShare, d.PerMillion, d.Unit)
}

// drawRate says whether the body of a response is slowed down, and to how many bytes
// per second.
func drawRate(l *discovery.FaultRateLimit, req *route.Request) (uint64, bool) {
	if l == nil {
		return 0, false
	}
	limit, share := l.KiBPerSecond, l.PerMillion
	if l.FromHeader {
		var ok bool
		if limit, ok = number(req, rateHeader, math.MaxUint64); !ok {
			return 0, false
		}
		share = smaller(req, rateShare, share, l.Unit)
	}
	return min(limit, math.MaxUint64/kibibyte) * kibibyte, limit > 0 && route.Draw(share)
}

// drawAbort is the answer to a request that is aborted; nil for one that is not.
func drawAbort(a *discovery.FaultAbort, req *route.Request) *filter.Answer {
	answer, share := abortOf(a, req)
	if answer == nil || !route.Draw(share) {
		return nil
	}
	return answer
}

// abortOf is the answer to the share of the requests that is aborted, nil for none.
func abortOf(a *discovery.FaultAbort, req *route.Request) (answer *filter.Answer, share uint32) {
	if a == nil {
		return nil, 0
	}
	answer = &filter.Answer{Status: a.HTTPStatus, IsGRPC: a.IsGRPC, Code: a.GRPCStatus}
	share = a.PerMillion
	if a.FromHeader {
		share = smaller(req, abortShare, share, a.Unit)
		if status, ok := number(req, abortHeader, greatestStatus); ok && status >= leastStatus {
			answer.Status = int(status)
		} else if code, ok := number(req, abortGRPCHeader, greatestGRPCCode); ok {
			answer.IsGRPC, answer.Code = true, uint32(code)
		} else {
			return nil, 0
		}
	}
	answer.Body, answer.Reason = []byte("fault filter abort"), "fault filter abort"
	return answer, share
}

// smaller is the share that a request asks for, if it is smaller than the one that
// is configured. What is no number is ignored.
func smaller(req *route.Request, header string, share, unit uint32) uint32 {
	n, ok := number(req, header, math.MaxUint32)
	if !ok {
		return share
	}
	return uint32(min(n*uint64(unit), uint64(share)))
}

// number is the first value of a header, if that is a number up to most.
func number(req *route.Request, name string, most uint64) (uint64, bool) {
	if req.Header == nil {
		return 0, false
	}
	values := req.Header.Values(name)
	if len(values) == 0 {
		return 0, false
	}
	n, err := strconv.ParseUint(values[0], 10, 64)
	return n, err == nil && n <= most
}
