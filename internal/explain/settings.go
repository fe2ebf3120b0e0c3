package explain

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/health"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
)

// defaultIdle is after how long an idle connection is closed unless configured (Envoy's
// idle_timeout), which is not said.
const defaultIdle = time.Hour

// pool says how connections to the endpoints are shared, and when they are closed. Calls
// of gRPC share theirs in all priorities, and make none ahead.
func pool(c *discovery.Cluster, plan *pipeline.Plan) string {
	priority, isGRPC := plan.Priority, plan.Protocol == observe.GRPC
	if isGRPC {
		priority = discovery.PriorityDefault
	}
	var all []string
	add := func(has bool, format string, args ...any) {
		if has {
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	add(c.HostConnections[priority] > 0, "at most %d to an endpoint", c.HostConnections[priority])
	add(c.HTTP2.MaxStreams > 0 && c.Protocol != discovery.HTTP1, "%d calls at a time over one of HTTP/2", c.HTTP2.MaxStreams)
	add(c.MaxRequestsPerConnection > 0, "closed behind %d calls", c.MaxRequestsPerConnection)
	add(c.IdleTimeout > 0 && c.IdleTimeout != defaultIdle, "closed after %v without a call", c.IdleTimeout)
	add(c.IdleTimeout <= 0, "kept however long they are idle")
	add(c.MaxConnectionDuration > 0, "closed when %v old", c.MaxConnectionDuration)
	add(c.PreconnectRatio > 1 && !isGRPC, "made ahead: %.4g for each call", c.PreconnectRatio)
	all = append(all, keepAlive(c, isGRPC)...)
	return strings.Join(all, "; ")
}

// keepAlive says how connections are asked whether their peers are there.
func keepAlive(c *discovery.Cluster, isGRPC bool) []string {
	var all []string
	if k := c.KeepAlive; k != nil {
		probes := "TCP probes"
		if k.Time > 0 {
			probes += fmt.Sprintf(" after %v without a byte", k.Time)
		}
		if k.Interval > 0 {
			probes += fmt.Sprintf(" every %v", k.Interval)
		}
		if k.Probes > 0 {
			probes += fmt.Sprintf(", closed after %d without an answer", k.Probes)
		}
		if k.Off {
			probes = "no TCP probes"
		}
		all = append(all, probes)
	}
	if p := &c.HTTP2.Pings; isGRPC || c.Protocol != discovery.HTTP1 {
		if p.Interval > 0 {
			all = append(all, fmt.Sprintf("PING of HTTP/2 after %v without a byte, closed %v later", p.Interval, p.Timeout))
		}
		if p.Idle > 0 {
			all = append(all, fmt.Sprintf("PING with a call after %v without a byte, closed %v later", p.Idle, p.Timeout))
		}
	}
	return all
}

// panicking says what becomes of the calls that come to priorities with too few fit
// endpoints, "" if none do.
func panicking(t *upstream.Turn) string {
	if len(t.Panics) == 0 {
		return ""
	}
	config := &t.Cluster.Config().Balancer
	then := "all are used"
	if config.FailOnPanic {
		then = "calls that come there fail"
	}
	return fmt.Sprintf("less than %.4g%% of the endpoints of priority %s are fit: %s", config.PanicThreshold, numbers(t.Panics), then)
}

func numbers(all []uint32) string {
	names := make([]string, len(all))
	for i, p := range all {
		names[i] = strconv.FormatUint(uint64(p), 10)
	}
	return strings.Join(names, " and ")
}

// slowStart says how the traffic of new endpoints grows.
func slowStart(config *balancer.Config) string {
	s := &config.SlowStart
	if !config.SlowStarts() {
		return ""
	}
	text := fmt.Sprintf("over %v, from %.4g%%", s.Window, s.MinWeightPercent)
	if s.Aggression > 0 && s.Aggression != 1 {
		text += fmt.Sprintf(", aggression %.4g", s.Aggression)
	}
	return text
}

// detectors says what ejects endpoints, and for how long.
func detectors(o *balancer.OutlierConfig) string {
	if !o.Ejects() {
		return ""
	}
	var all []string
	add := func(enforcing uint32, format string, args ...any) {
		if enforcing == 0 {
			return
		}
		text := fmt.Sprintf(format, args...)
		if enforcing < 100 {
			text += fmt.Sprintf(" (enforced in %d%%)", enforcing)
		}
		all = append(all, text)
	}
	row := func(c balancer.ConsecutiveFailures, what string) {
		if c.Threshold > 0 {
			add(c.Enforcing, "%d %s in a row", c.Threshold, what)
		}
	}
	rate, share := &o.SuccessRate, &o.FailurePercentage
	row(o.Consecutive5xx, "failures")
	row(o.ConsecutiveGateway, "gateway failures")
	add(rate.Enforcing, "fewer successes than the others, %d of them with %d calls", rate.MinimumHosts, rate.RequestVolume)
	add(share.Enforcing, "%d%% failures, %d endpoints with %d calls", share.Threshold, share.MinimumHosts, share.RequestVolume)
	if o.SplitLocalOrigin {
		row(o.ConsecutiveLocal, "local failures")
		add(rate.EnforcingLocal, "fewer local successes than the others, %d of them with %d calls", rate.MinimumHosts, rate.RequestVolume)
		add(share.EnforcingLocal, "%d%% local failures, %d endpoints with %d calls", share.Threshold, share.MinimumHosts, share.RequestVolume)
	}
	most := fmt.Sprintf("at most %d%% at a time", o.MaxEjectionPercent)
	if o.AlwaysEjectOneHost {
		most += " or one"
	}
	return fmt.Sprintf("%s; for %v, up to %v; %s", strings.Join(all, ", "), o.BaseEjectionTime, max(o.MaxEjectionTime, o.BaseEjectionTime), most)
}

// checks says how endpoints are checked.
func checks(c *health.Config) string {
	if c == nil {
		return ""
	}
	what := "a connection"
	switch {
	case c.HTTP != nil:
		method := c.HTTP.Method
		if method == "" {
			method = "GET"
		}
		what = method + " " + c.HTTP.Path
	case c.GRPC != nil:
		what = "gRPC health"
		if c.GRPC.Service != "" {
			what += fmt.Sprintf(" of %q", c.GRPC.Service)
		}
	case len(c.TCP.Receive) > 0:
		what = "a connection and an answer"
	}
	if c.Port != 0 {
		what += fmt.Sprintf(" at port %d", c.Port)
	}
	return fmt.Sprintf("%s every %v, within %v, unhealthy after %d, healthy after %d",
		what, c.Interval, c.Timeout, max(c.UnhealthyThreshold, 1), max(c.HealthyThreshold, 1))
}

// checked is what the checks of an endpoint found, "" if it is not checked.
func checked(running *upstream.Endpoint) string {
	state, ok := running.Checked()
	if !ok {
		return ""
	}
	return map[health.State]string{
		health.Unknown: notYet, health.Healthy: "healthy", health.Reduced: "degraded", health.Unhealthy: "unhealthy",
	}[state]
}

// notYet is what is known of an endpoint of which no check has ended.
const notYet = "not yet"

// subsetting says how many of its endpoints a cluster uses, if that is not all.
func subsetting(from *upstream.Cluster) string {
	used, all := from.Parted()
	if all == 0 {
		return ""
	}
	return fmt.Sprintf("this process uses %d of %d endpoints, and no other", used, all)
}

// shares says how calls are divided, nil if they are not.
func shares(of *upstream.Cluster, m *balancer.Match) []string {
	var said []string
	all := of.Shares(m)
	divided := len(all) > 1
	for i := range all {
		s := &all[i]
		text := fmt.Sprintf("%.4g%% to ", s.Percent)
		if s.Cluster != of {
			text += s.Cluster.Name() + ", "
		}
		text += fmt.Sprintf("priority %d", s.Priority)
		if s.Degraded {
			text += ", degraded"
		}
		var places []string
		for _, l := range s.Localities {
			divided = true
			in := l.Locality.String()
			switch {
			case l.Any:
				in = "any"
			case in == "":
				in = "none"
			}
			places = append(places, fmt.Sprintf("%.4g%% in %s", l.Percent, in))
		}
		if len(places) > 0 {
			text += ": " + strings.Join(places, ", ")
		}
		said = append(said, text)
	}
	if !divided {
		return nil
	}
	return said
}
