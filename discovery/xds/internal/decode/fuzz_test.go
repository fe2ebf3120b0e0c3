package decode

import (
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

// seed adds good resources and broken ones.
func seed(f *testing.F, resources ...proto.Message) {
	f.Helper()
	f.Add([]byte(nil))
	f.Add([]byte("\xff\xff\xff\xff"))
	for _, m := range resources {
		b := marshal(f, m)
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
}

// seedFixtures adds every good resource of a type: together they have every message that
// is decoded (TestEveryUnlistedFieldIsRefused), which the fuzzer would not find by
// itself behind the names of their types.
func seedFixtures[T proto.Message](f *testing.F) {
	f.Helper()
	for _, one := range fixtures(f) {
		if m, ok := one.root.(T); ok {
			seed(f, m)
		}
	}
}

// sameAgain checks that a decoder gives either a value or an error, and the same
// each time.
func sameAgain[T any](t *testing.T, value []byte, decode func([]byte) (string, *T, error)) *T {
	t.Helper()
	name, v, err := decode(value)
	if (v == nil) == (err == nil) {
		t.Fatalf("value %v and error %v", v, err)
	}
	again, _, errAgain := decode(value)
	if name != again || err != nil && err.Error() != errAgain.Error() {
		t.Fatalf("name %q, error %v, and then name %q, error %v", name, err, again, errAgain)
	}
	return v
}

func FuzzListener(f *testing.F) {
	seedFixtures[*listenerv3.Listener](f)
	f.Fuzz(func(t *testing.T, value []byte) {
		l := sameAgain(t, value, Listener)
		if l == nil {
			return
		}
		if (l.Outbound == nil) == (l.Inbound == nil) {
			t.Fatalf("not exactly one kind: %+v", l)
		}
		if o := l.Outbound; o != nil && (o.Routes == nil) == (o.RouteName == "") {
			t.Fatalf("not exactly one source of routes: %+v", o)
		}
		if in := l.Inbound; in != nil {
			for _, c := range in.Chains {
				if c.TLS != nil && (c.TLS.IdentityInstance == "" && c.TLS.IdentitySecret == "" || c.TLS.RequireClientCertificate && c.TLS.RootInstance == "" && c.TLS.RootSecret == "" && c.TLS.Bundles == nil) {
					t.Fatalf("TLS that cannot be served: %+v", c.TLS)
				}
			}
		}
	})
}

func FuzzRouteConfiguration(f *testing.F) {
	seedFixtures[*routev3.RouteConfiguration](f)
	f.Fuzz(func(t *testing.T, value []byte) {
		table := sameAgain(t, value, RouteConfiguration)
		if table == nil {
			return
		}
		for _, host := range table.VirtualHosts {
			for _, r := range host.Routes {
				checkRoute(t, r)
			}
		}
	})
}

// checkRoute checks what the users of a route rely on.
func checkRoute(t *testing.T, r *discovery.Route) {
	t.Helper()
	actions := 0
	for _, set := range []bool{r.Forward != nil, r.Redirect != nil, r.Direct != nil, r.Local} {
		if set {
			actions++
		}
	}
	if actions != 1 {
		t.Fatalf("%d actions: %+v", actions, r)
	}
	if kind := r.Match.Path.Kind; (kind == discovery.PathRegex || kind == discovery.PathTemplate) && r.Match.Path.Regex == nil {
		t.Fatalf("no program: %+v", r.Match)
	}
	if r.Forward == nil {
		return
	}
	var sum uint64
	for _, c := range r.Forward.Clusters {
		sum += uint64(c.Weight)
		if (c.Name == "") == (c.Header == "") {
			t.Fatalf("not exactly one source of the name: %+v", r.Forward)
		}
	}
	if sum == 0 || sum > 1<<32-1 {
		t.Fatalf("weights add up to %d", sum)
	}
}

func FuzzCluster(f *testing.F) {
	seedFixtures[*clusterv3.Cluster](f)
	f.Fuzz(func(t *testing.T, value []byte) {
		c := sameAgain(t, value, Cluster)
		if c == nil {
			return
		}
		sources := 0
		for _, set := range []bool{c.EDSName != "", c.Static != nil, c.Aggregate != nil} {
			if set {
				sources++
			}
		}
		if sources != 1 {
			t.Fatalf("not exactly one source of endpoints: %+v", c)
		}
		if c.DNS != nil && (c.Static == nil || c.DNS.Refresh <= 0 || c.DNS.FailureMax < c.DNS.FailureBase) {
			t.Fatalf("names that cannot be resolved: %+v", c.DNS)
		}
		if s := c.TLS; s != nil && s.RootInstance == "" && s.RootSecret == "" && s.Bundles == nil && (!s.SystemRoots || len(s.SANs)+len(s.Names) == 0) {
			t.Fatalf("TLS without roots: %+v", s)
		}
		if c.Breaker != nil {
			if err := c.Breaker.Validate(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzAssignment(f *testing.F) {
	seed(f, fromJSON[endpointv3.ClusterLoadAssignment](f, assignmentFixture), bigAssignment(8),
		&endpointv3.ClusterLoadAssignment{ClusterName: "without weights", Endpoints: []*endpointv3.LocalityLbEndpoints{{}, {Priority: 1}}})
	f.Fuzz(func(t *testing.T, value []byte) {
		sameBothWays(t, value)
		a := sameAgain(t, value, Assignment)
		if a == nil {
			return
		}
		// Who says nothing of weights is used, and who says 0 is not.
		weightless := make(map[localityKey]bool)
		m := new(endpointv3.ClusterLoadAssignment)
		if err := proto.Unmarshal(value, m); err != nil {
			t.Fatalf("accepted, and cannot be read: %v", err)
		}
		for _, l := range m.GetEndpoints() {
			if l.GetLoadBalancingWeight() == nil {
				at := l.GetLocality()
				weightless[localityKey{balancer.Locality{Region: at.GetRegion(), Zone: at.GetZone(), SubZone: at.GetSubZone()}, l.GetPriority()}] = true
			}
		}
		seen := make(map[string]bool)
		for _, l := range a.Localities {
			if (l.Weight == 0) != weightless[localityKey{l.Locality, l.Priority}] {
				t.Fatalf("a locality of another weight than it was given: %+v", l)
			}
			for _, e := range l.Endpoints {
				if seen[e.Address] {
					t.Fatalf("%s is there twice", e.Address)
				}
				seen[e.Address] = true
			}
		}
	})
}
