package mesh

import (
	"context"
	"net/http"

	"google.golang.org/grpc"

	"github.com/inboardmesh/inboard/internal/explain"
)

// Explanation is where a call would go, and why: virtual host, routes, cluster,
// endpoints, timeouts, retries, filters and limits. String is for people, JSON for
// programs.
type Explanation = explain.Explanation

// Verdict is what would become of a call.
type Verdict = explain.Verdict

// The verdicts.
const (
	// VerdictForward is a call that goes to an endpoint of the chosen cluster, if it
	// has a candidate and no filter answers before.
	VerdictForward = explain.Forward
	// VerdictDirectResponse is a call that the configuration answers.
	VerdictDirectResponse = explain.DirectResponse
	// VerdictRedirect is a call that is answered with another location.
	VerdictRedirect = explain.Redirect
	// VerdictNoRoute is a call that fails, because no route is for it.
	VerdictNoRoute = explain.NoRoute
	// VerdictNoCluster is a call that fails, because its route leads to a cluster
	// that is not there or cannot be used.
	VerdictNoCluster = explain.NoCluster
	// VerdictNoConfig is a call that fails, because its target's configuration
	// cannot be had.
	VerdictNoConfig = explain.NoConfig
	// VerdictAroundMesh is a call that passes round the mesh.
	VerdictAroundMesh = explain.AroundMesh
	// VerdictRefused is a call to a host that is unknown, which the outbound policy
	// refuses.
	VerdictRefused = explain.Refused
)

// The parts of an [Explanation].
type (
	// ExplainedFilter is a filter as it is set for the route.
	ExplainedFilter = explain.Filter
	// ExplainedChoice is one of the clusters of a route.
	ExplainedChoice = explain.Choice
	// ExplainedCluster is the chosen cluster.
	ExplainedCluster = explain.Cluster
	// ExplainedEndpoint is an endpoint of the chosen cluster.
	ExplainedEndpoint = explain.Endpoint
	// ExplainedMismatch is a route that does not match.
	ExplainedMismatch = explain.Mismatch
)

// Explain says what [Mesh.Transport] would do with a request, and why: by the
// matcher that routes, and from the clusters as they are at this moment. Nothing
// is sent to an endpoint, nothing is counted, and the request, whose body is not
// read, is not changed.
//
// What depends on chance is drawn anew each time: of several clusters the
// explanation names the one that it drew, with the weights of all. Filters are
// described and not run; where one would change the route, the explanation is of
// the route before.
//
// The configuration of a host that this process does not call is asked of the
// control plane for as long as the answer takes. The request's context bounds the
// wait; without a deadline it is 15 s. That there is no configuration is an answer
// and no error; the error is for a request that the transport would not take.
func (m *Mesh) Explain(req *http.Request) (*Explanation, error) { return m.transport.Explain(req) }

// ExplainRPC is [Mesh.Explain] for a gRPC call: what a channel to a target,
// "mesh:///HOST:PORT", with [Mesh.DialOptions] would do with a call of a method,
// "/package.Service/Method". The metadata are the outgoing ones of ctx, which also
// bounds the wait for a configuration. Of the options the authority is looked at.
func (m *Mesh) ExplainRPC(ctx context.Context, target, method string, opts ...grpc.CallOption) (*Explanation, error) {
	return m.grpc.Explain(ctx, target, method, opts...)
}
