package mesh

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/inboardmesh/inboard/internal/inbound"
	"github.com/inboardmesh/inboard/observe"
)

// DrainReport is what became of the requests and connections that a process was
// serving when it began to drain, and of those that still came.
type DrainReport = observe.DrainReport

// DrainPolicy says how [Mesh.Drain] lets peers go. The zero value is meant for an
// orchestrator such as Kubernetes, which tells callers that an endpoint goes at the
// same time as it tells the process; a negative duration is none.
type DrainPolicy struct {
	// Listen is how long listeners accept connections at least, though nobody
	// comes: what it takes until the last caller has heard. 0 is 5 s.
	Listen time.Duration
	// Quiet is how long, after Listen, no connection and no request must have come
	// for listeners to be closed. 0 is 1 s.
	Quiet time.Duration
	// Time is within what peers are asked to end their connections, each at a
	// moment that is drawn, so that they do not all come back at once (Envoy's
	// drain time, strategy "gradual"). 0 is half of the time until the context's
	// deadline.
	Time time.Duration
	// Immediate asks all of them at once (Envoy's strategy "immediate").
	Immediate bool
	// Finish is how much of the time until the context's deadline is kept for what
	// runs: listeners are closed by then, though peers still come. 0 is a quarter.
	Finish time.Duration
}

// Drain lets a process end without losing a request. It can be begun as soon as the
// process hears that it has to end (SIGTERM):
//
//   - [Mesh.Ready] says at once that the process is not ready, [Mesh.Draining] is
//     closed, and [Mesh.Listen] refuses.
//   - Listeners stay open, for callers that have not heard yet: see
//     [DrainPolicy.Listen].
//   - Peers are asked to end their connections: with "Connection: close" in a
//     response of HTTP/1.1, with a GOAWAY that excludes no stream over a connection of
//     HTTP/2 to a server of [Mesh.Server], or to a gRPC server with
//     [Mesh.ServerOptions] (RFC 9113, section 6.8). A server of HTTP/2 that is the
//     application's own says its GOAWAY behind a response: a request that is on its
//     way is excluded, and lost if its body cannot be sent again.
//   - Then the listeners are closed, and what runs is finished: requests, streams,
//     connections that were upgraded, and those of applications that use a listener
//     by themselves. Peers that have nothing under way are given 5 s to close their
//     connections, since a request may be on its way.
//   - What still runs when ctx ends is cut off: its connections are closed, and the
//     error says how many there were. Without a deadline listeners stay open for no
//     more than ten minutes, and what runs has all the time that it takes.
//
// The report, which [observe.Hooks].Drained gets as well, says what became of all.
// Servers are shut down afterwards: net/http's Shutdown closes the idle connections
// that are left, gRPC's GracefulStop ends at once. Either of them, called earlier,
// ends the listening of its own listener. Outbound calls go on until [Mesh.Close].
//
// A mesh drains once: the policy is that of the first call, and every call returns
// its result, or an error if its own context ends before. [Mesh.Close] ends it at once,
// with an error if anything runs. Safe for concurrent use.
func (m *Mesh) Drain(ctx context.Context, policy DrainPolicy) (DrainReport, error) {
	if !m.inbound.Draining() {
		m.settings.logger.InfoContext(ctx, "draining")
	}
	report, err := m.inbound.Drain(ctx, inbound.DrainPolicy(policy))
	if err != nil {
		return report, fmt.Errorf("mesh: %w", err)
	}
	return report, nil
}

// Draining is closed when the mesh begins to drain, or is closed: streams that would
// not end by themselves had better end then.
func (m *Mesh) Draining() <-chan struct{} { return m.inbound.Stopping() }

// logDrains lets the log, too, say what became of the requests.
func (s *settings) logDrains() {
	hooks := *s.hooks
	next := hooks.Drained
	hooks.Drained = func(r observe.DrainReport) {
		level := slog.LevelInfo
		if r.Cut+r.ConnectionsCut > 0 {
			level = slog.LevelWarn
		}
		s.logger.Log(context.Background(), level, "drained",
			"duration", r.Duration, "listening", r.Listening,
			"finished", r.Finished, "late", r.Late, "cut", r.Cut,
			"connectionsClosed", r.Closed, "connectionsIdle", r.Idle, "connectionsCut", r.ConnectionsCut, "connectionsRefused", r.Refused)
		if next != nil {
			next(r)
		}
	}
	s.hooks = &hooks
}
