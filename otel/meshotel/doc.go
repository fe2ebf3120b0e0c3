// Package meshotel reports what a mesh does to OpenTelemetry.
//
//	telemetry, err := meshotel.New()
//	...
//	defer telemetry.Close()
//	// pass telemetry.Hooks() to the mesh
//
// By default it reports to OpenTelemetry's global providers, which do nothing
// until the application installs an SDK. No exporter is chosen here.
//
// # Traces
//
// An outbound call has an internal span, and each of its attempts a client span
// below it, so that retries are visible and the peer's server span hangs below
// the attempt that reached it (as gRFC A72 and the semantic conventions for
// resent HTTP requests ask). An inbound call has a server span below the
// caller's. The context travels as W3C Trace Context and Baggage unless another
// propagator is set; it is read when an inbound call begins and written into
// the headers of each attempt.
//
// If the call's span is not recorded, its attempts have no spans of their own,
// and the call's context is propagated: a sampler is asked once per call.
//
// # Metrics
//
// Names and attributes are those of the semantic conventions v1.43.0, where
// there are any:
//
//	http.client.request.duration     s          outbound HTTP calls, retries included
//	http.server.request.duration     s          inbound HTTP calls
//	rpc.client.call.duration         s          outbound gRPC calls, retries included
//	rpc.server.call.duration         s          inbound gRPC calls
//	http.client.active_requests      {request}  attempts of outbound HTTP calls that are open
//	http.server.active_requests      {request}  inbound HTTP calls that are open
//	inboard.rpc.client.active_requests, inboard.rpc.server.active_requests: the same of gRPC
//	inboard.tcp.{client,server}.session.duration and .active_sessions: the same of raw connections
//	inboard.call.attempts            {attempt}     ended attempts, by cluster, outcome, verdict and whether it was a retry or a hedge
//	inboard.overflow                 {attempt}     refused by a limit or an open breaker
//	inboard.jwks.fetches             {fetch}       fetches of key sets, by cluster, outcome and reason of a failure
//	inboard.authorization.checks     {check}       questions to external authorization, by cluster, outcome and reason of a failure
//	inboard.authorization.decisions  {decision}    denials, decisions on trial, reports and questions to a service (CUSTOM), by listener and outcome
//	inboard.dns.lookups              {lookup}      for the names of endpoints, by cluster and outcome
//	inboard.mirrored                 {request}     copies of requests, by cluster and outcome
//	inboard.breaker.state                          of a cluster: 0 closed, 1 half-open, 2 open
//	inboard.breaker.transitions      {transition}  by cluster, state and scope: that of the cluster, or of an endpoint
//	inboard.cluster.remaining                      what is left of limits that are tracked, by priority and resource
//	inboard.endpoint.tripped         {endpoint}    whose own breaker is open
//	inboard.endpoint.ejections       {ejection}    by outlier detection
//	inboard.endpoint.ejected         {endpoint}    that it leaves out
//	inboard.endpoint.checks          {check}       active health checks, by their result
//	inboard.endpoint.unhealthy       {endpoint}    that they find unfit for use
//	inboard.connections              {connection}  open ones
//	inboard.connection.failures      {connection}  that could not be opened
//	inboard.handshake.failures       {connection}  inbound, refused
//	inboard.drain.requests           {request}     that ran while the process drained: finished or cut
//	inboard.drain.connections        {connection}  closed, idle, cut or refused while it drained
//	inboard.xds.stream.connected                   0 or 1
//	inboard.xds.resources.rejected   {resource}    NACKs
//	inboard.xds.resources.accepted   {resource}
//	inboard.guest.rejected           {rejection}   by native gRPC in this process, by type
//	inboard.lastgood.resources       {resource}    in force that are from disk
//	inboard.lastgood.files           {file}        written, not written or refused, by outcome
//	inboard.certificate.expiry       s             end of validity since 1970
//	inboard.certificate.failures     {failure}
//
// error.type is the HTTP status, the gRPC code, or, for a call that ended
// without a response, a name of [outcome.Kind] such as "connect-failure",
// "timeout" or "canceled".
//
// inboard.failure.reason is why a service of filters is of no use, see
// [observe.ServiceState].
//
// Attributes are bounded: a path, a host or a peer is never one. HTTP methods
// that are not standard are "_OTHER"; so is the method of an inbound gRPC call
// until a call to it has reached a handler, and the server.address of a call
// that bypassed the mesh. [WithMaxSeries] bounds all of them together.
//
// Two meshes that report to one meter provider add up; give them providers of
// their own to tell them apart.
package meshotel
