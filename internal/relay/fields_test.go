package relay

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

// decided are the fields that no code of this package reads, each with what that
// means for a guest.
var decided = map[string]string{
	"Inbound.Name":         "the guest's own name of it is used",
	"Inbound.Address":      "the address that the guest listens on is used; the source has compared them",
	"Inbound.Clusters":     "filters that call clusters are refused",
	"ClusterResult.Leaves": "grpc-go finds out by itself what aggregates consist of",
	"APIListener.Name":     "as Inbound.Name", "APIListener.RouteName": "a target has Routes always", "APIListener.HideOriginals": "nothing is rewritten",
	"Cluster.Name": "the name in the target is used", "Cluster.EDSName": "the name is the guest's own", "Cluster.Static": "ClusterResult.Endpoints has it",
	"Cluster.ConnectTimeout": "gRPC has its own", "Cluster.TrackRemaining": "nothing is reported", "Cluster.LoadReports": "as TrackRemaining", "Cluster.Protocol": "gRPC is HTTP/2",
	"Cluster.IdleTimeout":   "gRPC has its own",
	"ClusterResult.Secrets": "what names them is refused", "Inbound.Secrets": "as ClusterResult.Secrets",
	"Cluster.PreconnectRatio": "gRPC has one connection to an endpoint", "Cluster.Families": "gRPC begins with the first address",
	"Cluster.HTTP2": "gRPC has its own", "NameMatch.OID": "other names are refused",
	"Forward.GRPCTimeoutHeaderMax": "Limit looks at it", "HashPolicy.NewCookie": "cookies are noted",
	"Config.Failover":  "grpc-go fails over as gRPC does",
	"UpstreamTLS.ALPN": "gRPC offers h2", "DownstreamTLS.ALPN": "gRPC takes h2",
	"DNS.Logical": "one name is logical", "DNS.Family": "gRPC dials all of them", "DNS.Refresh": "gRPC has its own", "DNS.Jitter": "as Refresh",
	"DNS.FailureBase": "as Refresh", "DNS.FailureMax": "as Refresh",
	"Assignment.Name": "the name is the guest's own", "Assignment.OverprovisioningFactor": "grpc-go fails over when nothing of a priority is left",
	"Endpoint.Check":        "Cluster.HealthCheck is noted",
	"FilterChain.RouteName": "a published Inbound has Routes", "FilterChain.StrictPaths": "a method is served under one spelling",
	"Forwarding.SkipAppend": "nothing is appended", "Forwarding.Internal": "no header of Envoy is believed or removed", "Forwarding.KeepRequestID": "nothing is removed",
	"Forwarding.Details":                         "nothing is set",
	"RouteTable.MostSpecificHeaderMutationsWins": "headers are not changed",
	"VirtualHost.Retry":                          "Forward.Retry has it", "VirtualHost.RetryHeaders": "as Retry", "VirtualHost.Hedge": "as Retry",
	"RouteMatch.GRPC": "every call is one",
	"Forward.Subset":  "clusters with subsets are refused", "WeightedCluster.Subset": "as Forward.Subset",
	"Forward.AppendForwardedHost": "rewrites are refused",
	"Policy.RetriableStatusCodes": "On has the condition",
	"RBAC.StatPrefix":             "nothing is reported", "RBAC.ShadowPrefix": "as StatPrefix",
	"Config.ActiveRequestBias": "grpc-go has none", "Config.MaglevSize": "a ring takes its place", "Config.DecayTime": "peak EWMA is least request",
	"Config.Custom": "refused", "Config.Pinnable": "sessions are noted", "Config.PanicThreshold": "grpc-go has no panic mode", "Config.FailOnPanic": "as PanicThreshold",
	"Config.LocalityWeighted": "grpc-go weighs localities always", "Config.OverprovisioningFactor": "as Assignment.OverprovisioningFactor",
	"ClientWeightedConfig.Metrics": "grpc-go looks at the utilization",
	"OutlierConfig.EjectionJitter": "grpc-go has none", "OutlierConfig.AlwaysEjectOneHost": "Ejects looks at it", "OutlierConfig.UnejectOnCheck": "there are no active checks",
	"SuccessRate.EnforcingLocal": "grpc-go counts all failures alike", "FailurePercentage.EnforcingLocal": "as SuccessRate.EnforcingLocal",
}

// TestEveryFieldOfTheModelIsDecidedAbout: a field that is new in the model must be
// written for guests, noted, refused, or have its reason here.
func TestEveryFieldOfTheModelIsDecidedAbout(t *testing.T) {
	t.Parallel()
	read := selectors(t)
	for _, model := range []any{
		discovery.Target{}, discovery.ClusterResult{}, discovery.APIListener{}, discovery.HTTPFilter{}, discovery.Cluster{},
		discovery.UpstreamTLS{}, discovery.TLSParams{}, discovery.NameMatch{}, discovery.TLSMatch{}, discovery.StringMatch{}, discovery.DNS{},
		discovery.Assignment{}, discovery.LocalityEndpoints{}, balancer.Endpoint{}, discovery.Drop{},
		discovery.Inbound{}, discovery.FilterChain{}, discovery.ChainMatch{}, discovery.DownstreamTLS{}, discovery.Forwarding{},
		discovery.RouteTable{}, discovery.VirtualHost{}, discovery.FilterOverride{}, discovery.Route{}, discovery.RouteMatch{}, discovery.PathMatch{},
		discovery.HeaderMatch{}, discovery.CookieMatch{}, discovery.Forward{}, discovery.WeightedCluster{}, discovery.HeaderMutations{}, discovery.HashPolicy{},
		discovery.Fault{}, discovery.FaultDelay{}, discovery.FaultAbort{}, discovery.RBAC{}, discovery.RBACRules{}, discovery.RBACPolicy{}, discovery.RBACRule{},
		retry.Policy{}, balancer.Config{}, balancer.ClientWeightedConfig{}, balancer.OutlierConfig{}, balancer.SuccessRate{}, balancer.FailurePercentage{},
	} {
		typ := reflect.TypeOf(model)
		for field := range typ.Fields() {
			name := typ.Name() + "." + field.Name
			_, reasoned := decided[name]
			switch {
			case !field.IsExported() || field.Anonymous:
			case !read[field.Name] && !reasoned:
				t.Errorf("%s is not decided about: write it for guests, note it, refuse it, or say here why not", name)
			}
		}
	}
}

// selectors are the names of the fields that the code of the package selects.
func selectors(t *testing.T) map[string]bool {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	for _, entry := range entries {
		if name := entry.Name(); !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), entry.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				found[s.Sel.Name] = true
			}
			return true
		})
	}
	return found
}
