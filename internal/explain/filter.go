package explain

import (
	"fmt"
	"strings"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/filter/cors"
	"github.com/inboardmesh/inboard/internal/filter/fault"
	"github.com/inboardmesh/inboard/internal/route"
)

func filters(all []discovery.HTTPFilter, a *affinity, req *route.Request) []Filter {
	explained := make([]Filter, 0, len(all))
	for i := range all {
		config, ok := a.seen[i].Filter(&all[i])
		f, ofSession := a.effects[i]
		switch {
		case ofSession:
		case ok:
			f.Enabled, f.Effect = effect(config, req, &a.seen[i])
		default:
			f.Effect = "it is switched off for the route"
		}
		f.Name = all[i].Name
		explained = append(explained, f)
	}
	return explained
}

func delayOf(d *discovery.FaultDelay) string {
	if d.FromHeader {
		return "what the request asks for"
	}
	return d.Fixed.String()
}

// corsEffect says what the CORS filter does to a request.
func corsEffect(policy *discovery.CORS, req *route.Request) (enabled bool, text string) {
	switch {
	case policy.PerMillion == 0:
		return false, "no policy is set for the route"
	case req.Header == nil || len(req.Header.Values("origin")) == 0:
		return false, "the request has no origin"
	}
	marks := cors.Marks(policy, req)
	if len(marks) == 0 {
		return false, "the origin is not allowed"
	}
	parts := make([]string, len(marks))
	for i, h := range marks {
		parts[i] = h.Name + ": " + h.Value
	}
	return true, "answers preflights, and marks responses with " + strings.Join(parts, ", ")
}

// effect says what a filter does to a request.
func effect(config discovery.FilterConfig, req *route.Request, d *route.Decision) (enabled bool, text string) {
	if policy, ok := config.(*discovery.CORS); ok {
		return corsEffect(policy, req)
	}
	f, ok := config.(*discovery.Fault)
	if !ok {
		return true, strings.TrimPrefix(fmt.Sprintf("%T", config), "*discovery.")
	}
	var parts []string
	if delay := f.Delay; delay != nil && delay.PerMillion > 0 {
		parts = append(parts, fmt.Sprintf("delays %s by %s", percentOf(delay.PerMillion), delayOf(delay)))
	}
	if a := f.Abort; a != nil && a.PerMillion > 0 {
		with := fmt.Sprintf("status %d", a.HTTPStatus)
		switch {
		case a.FromHeader:
			with = "the status that the request asks for"
		case a.IsGRPC:
			with = fmt.Sprintf("gRPC status %d", a.GRPCStatus)
		}
		parts = append(parts, fmt.Sprintf("aborts %s with %s", percentOf(a.PerMillion), with))
	}
	if l := f.RateLimit; l != nil && l.PerMillion > 0 {
		to := fmt.Sprintf("%d KiB/s", l.KiBPerSecond)
		if l.FromHeader {
			to = "what the request asks for"
		}
		parts = append(parts, fmt.Sprintf("slows the responses of %s down to %s", percentOf(l.PerMillion), to))
	}
	if len(parts) == 0 {
		return false, "no fault is set for the route"
	}
	if f.UpstreamCluster != "" && f.UpstreamCluster != d.ClusterName(req) {
		return false, "the fault is for calls to the cluster " + f.UpstreamCluster
	}
	if len(f.DownstreamNodes) > 0 {
		parts = append(parts, "if sent by one of the nodes "+strings.Join(f.DownstreamNodes, ", "))
	}
	for i := range f.Headers {
		if !route.MatchHeader(&f.Headers[i], req) {
			return false, "the request has not the header " + f.Headers[i].Name + " that the fault is for"
		}
	}
	return true, strings.Join(parts, ", ")
}

// intercept says whether a filter answers before anything else happens.
func (q *Question) intercept(e *Explanation, all []discovery.HTTPFilter, seen []route.Decision) {
	const every = 1_000_000
	for i := range all {
		d := &seen[i]
		config, ok := d.Filter(&all[i])
		if !ok {
			continue
		}
		var answer *filter.Answer
		var share uint32
		what, limit := "", ""
		switch c := config.(type) {
		case *discovery.Fault:
			if q.endsIn(e, c, d) {
				return
			}
			answer, share = fault.Abort(c, &q.Request, d)
			if what = "an injected fault"; c.MaxActive > 0 {
				limit = fmt.Sprintf(", while fewer than %d faults are active", c.MaxActive)
			}
		case *discovery.CORS:
			what = "CORS"
			answer, share = cors.Answer(c, &q.Request)
		}
		switch {
		case answer == nil || share == 0:
		case share >= every && limit == "":
			e.Verdict, e.Answer = FilterAnswer, q.answer(answer)
			e.Reason = what + " answers: nothing is sent"
			e.Choices, e.Draw, e.Mirrors, e.Cluster = nil, nil, nil, nil
			e.Sent, e.Timeouts, e.Retry = nil, nil, nil
			return
		default:
			if e.Reason != "" {
				e.Reason += "; "
			}
			e.Reason += fmt.Sprintf("but %s answers %s of such calls with %s%s", what, percentOf(share), q.answer(answer).inWords(), limit)
		}
	}
}

// endsIn says whether the time that the application gives to such calls is over in an
// injected delay, always.
func (q *Question) endsIn(e *Explanation, c *discovery.Fault, d *route.Decision) bool {
	const every = 1_000_000
	delay, share := fault.Delay(c, &q.Request, d)
	forwarded := e.Verdict == Forward || e.Verdict == NoEndpoint || e.Verdict == Overflow || e.Verdict == FilterAnswer
	if share < every || c.MaxActive > 0 || q.ends.IsZero() || !forwarded {
		return false
	}
	left := time.Until(q.ends).Round(time.Millisecond) // the same, however long explaining takes
	if left >= delay {
		return false
	}
	e.Verdict, e.Reason = NoTime, fmt.Sprintf("not sent: %v are left, and an injected fault delays by %v", max(left, 0), delay)
	e.Sent, e.Retry, e.Answer = nil, nil, nil
	return true
}
