package meshotel

import (
	"context"

	"go.opentelemetry.io/otel/metric"

	"github.com/inboardmesh/inboard/observe"
)

// Values of inboard.breaker.state.
const (
	breakerClosed = iota
	breakerHalfOpen
	breakerOpen
)

func (t *Telemetry) breakerChanged(e observe.BreakerEvent) {
	if e.Endpoint != "" {
		// Endpoints are no attributes: their number has no bound. Of their breakers
		// the changes are counted, and how many are open.
		t.count(breakerTransitions, e.Cluster, e.To, "endpoint")
		switch {
		case e.To == e.From:
		case e.To == "open":
			t.tripped(1, e.Cluster)
		case e.From == "open":
			t.tripped(-1, e.Cluster)
		}
		return
	}
	t.count(breakerTransitions, e.Cluster, e.To, "cluster")
	value := int64(breakerClosed)
	switch e.To {
	case "open":
		value = breakerOpen
	case "half-open":
		value = breakerHalfOpen
	}
	t.set(breakerState, t.meters.breakerState, value, e.Cluster)
}

func (t *Telemetry) tripped(n int64, cluster string) {
	t.meters.tripped.Add(context.Background(), n, t.series(trippedEndpoints, cluster).add...)
}

func (t *Telemetry) endpointEjected(e observe.EjectionEvent) {
	t.count(ejections, e.Cluster, e.Reason)
	t.ejected(1, &e)
}

func (t *Telemetry) endpointReturned(e observe.EjectionEvent) { t.ejected(-1, &e) }

func (t *Telemetry) ejected(n int64, e *observe.EjectionEvent) {
	t.meters.ejected.Add(context.Background(), n, t.series(ejectedEndpoints, e.Cluster).add...)
}

func (t *Telemetry) healthChecked(c observe.HealthCheck) { t.count(healthChecks, c.Cluster, c.Result) }

func (t *Telemetry) healthChanged(e observe.HealthEvent) {
	n := int64(1)
	if e.Healthy {
		n = -1
	}
	t.meters.unhealthy.Add(context.Background(), n, t.series(unhealthyEndpoints, e.Cluster).add...)
}

func (t *Telemetry) overflowed(e observe.OverflowEvent) {
	t.count(overflows, e.Cluster, e.Resource)
}

// mirrored counts copies by how they ended, or why they were dropped.
func (t *Telemetry) mirrored(e observe.MirrorEvent) {
	label := "dropped-" + e.Dropped
	if e.Dropped == "" {
		label = e.Outcome.Kind.String()
	}
	if e.Dropped == "no-cluster" {
		e.Cluster = "" // a request may have made it up
	}
	t.count(mirroredRequests, e.Cluster, label)
}

// nameResolved counts lookups. The names are the configuration's, and may be many.
func (t *Telemetry) nameResolved(e observe.ResolveEvent) {
	t.count(nameLookups, e.Cluster, outcomeOf(e.Err == nil, "ok", "error"))
}

func (t *Telemetry) keysFetched(e observe.KeysEvent) {
	t.count(keyFetches, e.Cluster, outcomeOf(e.Err == nil, "ok", "error"), e.Reason)
}

func (t *Telemetry) authorizationChecked(e observe.CheckEvent) {
	label := e.Result
	if label == "error" {
		label = outcomeOf(e.Allowed, "error-allowed", "error-denied")
	}
	t.count(authorizationChecks, e.Cluster, label, e.Reason)
}

// authorized counts decisions. Their policies have names of somebody's choice, and
// as many as he likes: they are for logs.
func (t *Telemetry) authorized(e observe.AuthorizationEvent) {
	label := outcomeOf(e.Allowed, "allowed", "denied")
	switch {
	case e.Shadow:
		label = "shadow-" + label
	case e.Asked:
		label = "asked" // which is no decision; those are in authorizationChecks
	case e.Logged:
		label = "logged"
	}
	t.count(authorizations, e.Listener, label)
}

func outcomeOf(holds bool, yes, no string) string {
	if holds {
		return yes
	}
	return no
}

func (t *Telemetry) capacityTracked(c *observe.Capacity) { t.capacities.Store(c, struct{}{}) }

func (t *Telemetry) capacityUntracked(c *observe.Capacity) { t.capacities.Delete(c) }

// observeCapacity reports what is left. Past the limit of series there is nothing to
// report: what is left of different limits does not add up.
func (t *Telemetry) observeCapacity(o metric.Observer, c *observe.Capacity) {
	left := c.Remaining()
	for resource, n := range map[string]uint32{
		"connections": left.Connections, "pending": left.Pending, "requests": left.Requests, "retries": left.Retries,
	} {
		if series := t.series(remainingCapacity, c.Cluster, c.Priority, resource); !series.overflow {
			o.ObserveInt64(t.meters.remaining, int64(n), series.observe...)
		}
	}
}

func (t *Telemetry) connOpened(e observe.ConnEvent) {
	if e.Err != nil {
		t.count(connectionFailures, directionName(e.Direction), e.Cluster)
		return
	}
	t.connection(1, &e)
}

func (t *Telemetry) connClosed(e observe.ConnEvent) { t.connection(-1, &e) }

func (t *Telemetry) connection(n int64, e *observe.ConnEvent) {
	protocol := e.Protocol
	switch protocol {
	case "http/1.1", "h2", "grpc", "tcp", "":
	default:
		// The peer has its word in what is negotiated.
		protocol = other
	}
	security := "none"
	if e.TLS {
		security = "mutual_tls"
	}
	series := t.series(connections, directionName(e.Direction), e.Cluster, protocol, security)
	t.meters.connections.Add(context.Background(), n, series.add...)
}

func (t *Telemetry) streamChanged(e observe.StreamEvent) {
	value := int64(0)
	if e.Connected {
		value = 1
	}
	t.set(streamConnected, t.meters.streamConnected, value, e.Server)
}

func (t *Telemetry) resourceRejected(e observe.ResourceEvent) {
	t.count(resourcesRejected, e.Server, e.Type)
}

func (t *Telemetry) resourceAccepted(e observe.ResourceEvent) {
	t.count(resourcesAccepted, e.Server, e.Type)
}

func (t *Telemetry) guestRejected(e observe.ResourceEvent) { t.count(guestsRejected, e.Type) }

func (t *Telemetry) lastGood(e observe.LastGoodEvent) {
	if e.Kind == observe.LastGoodUsed {
		t.set(lastGoodUsed, t.meters.lastGoodUsed, int64(e.Resources))
		return
	}
	t.count(lastGoodEvents, e.Kind.String())
}

func (t *Telemetry) certificateChanged(e observe.CertificateEvent) {
	if e.Err != nil {
		t.count(certificateFailures, e.Source)
		return
	}
	t.set(certificateExpiry, t.meters.certificateExpiry, e.NotAfter.Unix(), e.Source)
}

func (t *Telemetry) handshakeFailed(e observe.HandshakeEvent) {
	t.count(handshakeFailures, e.Listener)
}

func (t *Telemetry) series(e event, labels ...string) *labelled {
	k := eventKey{event: e}
	copy(k.labels[:], labels)
	return t.events.get(k)
}

func (t *Telemetry) drained(r observe.DrainReport) {
	for outcome, n := range map[string]int64{"finished": r.Finished, "cut": r.Cut} {
		t.countN(n, drainedRequests, outcome)
	}
	for outcome, n := range map[string]int64{"closed": r.Closed, "idle": r.Idle, "cut": r.ConnectionsCut, "refused": r.Refused} {
		t.countN(n, drainedConnections, outcome)
	}
}

func (t *Telemetry) count(e event, labels ...string) { t.countN(1, e, labels...) }

func (t *Telemetry) countN(n int64, e event, labels ...string) {
	t.meters.counters[e].Add(context.Background(), n, t.series(e, labels...).add...)
}

// set records a state. States of different things do not add up, so past the
// limit there is nothing to report.
func (t *Telemetry) set(e event, gauge metric.Int64Gauge, value int64, labels ...string) {
	if series := t.series(e, labels...); !series.overflow {
		gauge.Record(context.Background(), value, series.record...)
	}
}
