package nativegrpc

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/xds"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/relay"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/retry"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// model is a [discovery.Source] that says what a test wants.
type model struct {
	mu      sync.Mutex
	target  discovery.Update[*discovery.Target]  // guarded by mu
	inbound discovery.Update[*discovery.Inbound] // guarded by mu
	watches map[int]func()                       // guarded by mu
	next    int                                  // guarded by mu
}

var _ discovery.Source = (*model)(nil)

func (m *model) watch(notify func()) (stop func()) {
	m.mu.Lock()
	m.next++
	n := m.next
	m.watches[n] = notify
	m.mu.Unlock()
	notify()
	return func() {
		m.mu.Lock()
		delete(m.watches, n)
		m.mu.Unlock()
	}
}

func (m *model) WatchTarget(_ string, notify func(discovery.Update[*discovery.Target])) (stop func()) {
	return m.watch(func() {
		m.mu.Lock()
		u := m.target
		m.mu.Unlock()
		notify(u)
	})
}

func (m *model) WatchInbound(_ string, notify func(discovery.Update[*discovery.Inbound])) (stop func()) {
	return m.watch(func() {
		m.mu.Lock()
		u := m.inbound
		m.mu.Unlock()
		notify(u)
	})
}

func (m *model) Close() error { return nil }

// set changes what the source says.
func (m *model) set(change func()) {
	m.mu.Lock()
	change()
	watches := make([]func(), 0, len(m.watches))
	for _, notify := range m.watches {
		watches = append(watches, notify)
	}
	m.mu.Unlock()
	for _, notify := range watches {
		notify()
	}
}

// modelGuest is a relay over a model, and a guest of it.
type modelGuest struct {
	*Guest

	model *model
	relay *relay.Relay
}

func newModelGuest(t *testing.T) *modelGuest {
	t.Helper()
	root := tlstest.NewCA(t)
	identity, err := meshtls.NewIdentity(root.Workload(t, "spiffe://cluster.local/ns/shop/sa/a"), []*x509.Certificate{root.Certificate})
	if err != nil {
		t.Fatal(err)
	}
	m := &model{watches: make(map[int]func())}
	r, err := relay.New(relay.Options{
		Config: &bootstrap.Config{Node: bootstrap.Node{ID: "a"}}, Source: m, Logger: slog.New(slog.DiscardHandler),
		Identity:  func(string) (meshtls.Source, error) { return meshtls.NewStatic(identity), nil },
		Instances: []string{"default"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	guest, err := newGuest(r)
	if err != nil {
		t.Fatal(err)
	}
	return &modelGuest{Guest: guest, model: m, relay: r}
}

// settled waits until every guest has answered what it was sent, of a listener
// that is known, and returns what they rejected.
func (g *modelGuest) settled(t *testing.T) string {
	t.Helper()
	limit := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		rejected, done := "", true
		for _, s := range g.relay.Guests() {
			done = done && len(s.Listeners) > 0 && s.Types[0].Version != ""
			for _, typ := range s.Types {
				rejected += typ.Rejected
				done = done && (typ.Accepted == typ.Version && typ.Names == typ.Sent || typ.Rejected != "")
			}
			for _, l := range s.Listeners {
				done = done && l.Known
			}
		}
		if done && len(g.relay.Guests()) > 0 {
			return strings.ReplaceAll(rejected, `\`, "") // the texts are quoted
		}
		if time.Now().After(limit) {
			t.Fatalf("guests do not settle: %+v", g.relay.Guests())
		}
		<-tick.C
	}
}

func (g *modelGuest) notes() string {
	var b strings.Builder
	for _, s := range g.relay.Guests() {
		for _, l := range s.Listeners {
			for _, n := range l.Notes {
				b.WriteString(n.String() + "\n")
			}
		}
	}
	return b.String()
}

const destination = "payment.shop:9090"

func text(kind discovery.StringMatchKind, value string) discovery.StringMatch {
	m := discovery.StringMatch{Kind: kind, Value: value}
	if kind == discovery.MatchRegex {
		m.Regex = expression(value)
	}
	return m
}

func expression(source string) *discovery.Regex {
	return &discovery.Regex{Source: source, Program: regexp.MustCompile(`\A(?:` + source + `)\z`)}
}

// targetOf is a destination with one route to one cluster, which are changed as a
// test wants.
func targetOf(change func(r *discovery.Route, c *discovery.Cluster, a *discovery.Assignment, t *discovery.Target)) *discovery.Target {
	route := &discovery.Route{
		Match:   discovery.RouteMatch{Path: discovery.PathMatch{Kind: discovery.PathPrefix, Value: "/"}},
		Forward: &discovery.Forward{Clusters: []discovery.WeightedCluster{{Name: "c", Weight: 1}}},
	}
	cluster := &discovery.Cluster{Name: "c", EDSName: "c"}
	endpoints := &discovery.Assignment{Name: "c", Localities: []discovery.LocalityEndpoints{{
		Weight: 1, Endpoints: []balancer.Endpoint{{Address: "127.0.0.1:1"}},
	}}}
	target := &discovery.Target{
		Name: destination, Listener: &discovery.APIListener{},
		Routes: &discovery.RouteTable{VirtualHosts: []*discovery.VirtualHost{{Domains: []string{"*"}, Routes: []*discovery.Route{route}}}},
	}
	target.Clusters = map[string]discovery.ClusterResult{"c": {Cluster: cluster, Endpoints: endpoints}}
	change(route, cluster, endpoints, target)
	return target
}

type (
	aRoute   = discovery.Route
	aCluster = discovery.Cluster
)

// TestGRPCRejectsNothingButWhatIsRefused: of all that the model can say of a
// destination.
func TestGRPCRejectsNothingButWhatIsRefused(t *testing.T) {
	t.Parallel()
	seconds := func(n int) *time.Duration { return new(time.Duration(n) * time.Second) }
	route := func(f func(*aRoute)) func(*aRoute, *aCluster, *discovery.Assignment, *discovery.Target) {
		return func(r *aRoute, _ *aCluster, _ *discovery.Assignment, _ *discovery.Target) { f(r) }
	}
	cluster := func(f func(*aCluster)) func(*aRoute, *aCluster, *discovery.Assignment, *discovery.Target) {
		return func(_ *aRoute, c *aCluster, _ *discovery.Assignment, _ *discovery.Target) { f(c) }
	}
	endpoints := func(f func(*discovery.Assignment)) func(*aRoute, *aCluster, *discovery.Assignment, *discovery.Target) {
		return func(_ *aRoute, _ *aCluster, a *discovery.Assignment, _ *discovery.Target) { f(a) }
	}
	path := func(p discovery.PathMatch) func(*aRoute, *aCluster, *discovery.Assignment, *discovery.Target) {
		return route(func(r *aRoute) { r.Match.Path = p })
	}
	balance := func(b balancer.Config) func(*aRoute, *aCluster, *discovery.Assignment, *discovery.Target) {
		return cluster(func(c *aCluster) { c.Balancer = b })
	}
	for _, tt := range []struct {
		name    string
		change  func(*aRoute, *aCluster, *discovery.Assignment, *discovery.Target)
		refused string
		note    string
	}{
		{name: "plain", change: route(func(*aRoute) {})},
		{name: "a path without regard to case", change: path(discovery.PathMatch{Kind: discovery.PathExact, Value: "/A/b", IgnoreCase: true})},
		{name: "a separated prefix", change: path(discovery.PathMatch{Kind: discovery.PathSeparatedPrefix, Value: "/a.b"})},
		{name: "a separated prefix without regard to case", change: path(discovery.PathMatch{Kind: discovery.PathSeparatedPrefix, Value: "/a.b", IgnoreCase: true})},
		{name: "an expression", change: path(discovery.PathMatch{Kind: discovery.PathRegex, Value: "/.*", Regex: expression("/.*")})},
		{name: "a template", change: path(discovery.PathMatch{Kind: discovery.PathTemplate, Value: "/{a}/b", Regex: expression("/(?P<a>[^/]+)/b")})},
		{name: "headers", change: route(func(r *aRoute) {
			r.Match.Headers = []discovery.HeaderMatch{
				{Name: "a", String: text(discovery.MatchExact, "b")},
				{Name: "b", String: text(discovery.MatchPrefix, "b"), Invert: true},
				{Name: "c", String: text(discovery.MatchSuffix, "b")},
				{Name: "d", String: text(discovery.MatchContains, "b")},
				{Name: "e", String: text(discovery.MatchRegex, "b+")},
				{Name: "f", Kind: discovery.HeaderRange, Start: 1, End: 3},
				{Name: "g", Kind: discovery.HeaderPresent, Present: true},
				{Name: "h", Kind: discovery.HeaderPresent},
			}
			r.Match.Cookies = []discovery.CookieMatch{{Name: "s", String: text(discovery.MatchExact, "1")}}
			r.Match.PerMillion = new(uint32(500_000))
			r.Match.GRPC = true
		})},
		{name: "a header that is missing", note: `cannot match header "a"`, change: route(func(r *aRoute) {
			r.Match.Headers = []discovery.HeaderMatch{{Name: "a", String: text(discovery.MatchExact, "b"), Invert: true, TreatMissingAsEmpty: true}}
		})},
		{name: "a binary header, a cookie that is not", note: `cannot match header "a-bin", cookie "s"`, change: route(func(r *aRoute) {
			r.Match.Headers = []discovery.HeaderMatch{{Name: "a-bin", String: text(discovery.MatchExact, "b")}}
			r.Match.Cookies = []discovery.CookieMatch{{Name: "s", Invert: true}}
		})},
		{name: "retries and timeouts", note: "5 attempts at most", change: route(func(r *aRoute) {
			r.Forward.Timeout, r.Forward.MaxStreamDuration, r.Forward.GRPCTimeoutHeaderMax = time.Second, seconds(2), seconds(0)
			r.Forward.Retry = &retry.Policy{
				MaxRetries: 100, On: retry.OnGRPCUnavailable | retry.On5xx, Backoff: retry.Backoff{Base: time.Millisecond},
				PerTryTimeout: time.Second, AvoidPreviousHosts: true,
			}
			r.Forward.Hedge, r.Forward.Mirrors, r.Forward.AttemptCount = &retry.Hedge{}, []discovery.Mirror{{Cluster: "c"}}, true
			r.Forward.IdleTimeout, r.Forward.GRPCTimeoutHeaderOffset, r.Forward.MinTime = seconds(1), time.Second, time.Second
			r.Forward.InternalRedirect, r.Forward.Priority = &discovery.InternalRedirect{}, discovery.PriorityHigh
		})},
		{name: "no retries", change: route(func(r *aRoute) { r.Forward.Retry = &retry.Policy{On: retry.OnGRPCUnavailable} })},
		{name: "hash policies", note: "only headers and the channel", change: route(func(r *aRoute) {
			r.Forward.Hash = []discovery.HashPolicy{
				{Header: "a", HeaderRewrite: &discovery.Substitution{Source: "(b)c", Template: `\1`, Replacement: "${1}"}, Terminal: true},
				{Channel: true}, {Query: "q"}, {Cookie: "s"}, {Source: true},
			}
		})},
		{name: "a cluster from a header", note: `the cluster from header "x"`, change: route(func(r *aRoute) {
			r.Forward.Clusters = []discovery.WeightedCluster{{Header: "x", Weight: 1}}
		})},
		{name: "a fault", change: func(r *aRoute, _ *aCluster, _ *discovery.Assignment, t *discovery.Target) {
			fault := &discovery.Fault{
				Delay:     &discovery.FaultDelay{Fixed: time.Second, PerMillion: 10_000, Unit: 10_000},
				Abort:     &discovery.FaultAbort{HTTPStatus: 503, PerMillion: 100, Unit: 100},
				MaxActive: 3, RateLimit: &discovery.FaultRateLimit{KiBPerSecond: 1},
			}
			t.Listener.Filters = []discovery.HTTPFilter{
				{Name: "fault", Config: &discovery.Fault{}}, {Name: "off", Config: fault, Disabled: true},
				{Name: "cors", Config: &discovery.CORS{}}, {Name: "sticky", Config: &discovery.StatefulSession{Cookie: "s"}},
			}
			r.Filters = map[string]discovery.FilterOverride{
				"fault": {Config: fault}, "off": {}, "cors": {Disabled: true}, "other": {Disabled: true},
			}
			r.Forward.Clusters[0].Filters = map[string]discovery.FilterOverride{"fault": {Disabled: true}}
		}, note: "sessions do not stay"},
		{name: "a fault from headers", note: "it depends on headers", change: func(_ *aRoute, _ *aCluster, _ *discovery.Assignment, t *discovery.Target) {
			t.Listener.Filters = []discovery.HTTPFilter{
				{Name: "a", Config: &discovery.Fault{Headers: []discovery.HeaderMatch{{Name: "a"}}, Abort: &discovery.FaultAbort{PerMillion: 1_000_000, Unit: 1, IsGRPC: true, GRPCStatus: 7}}},
				{Name: "b", Config: &discovery.Fault{Delay: &discovery.FaultDelay{FromHeader: true, PerMillion: 1_000_000, Unit: 1}, Abort: &discovery.FaultAbort{FromHeader: true, PerMillion: 1, Unit: 1}}},
			}
		}},
		{name: "a policy", refused: `filter "rbac": a native gRPC client cannot apply RBAC`, change: func(_ *aRoute, _ *aCluster, _ *discovery.Assignment, t *discovery.Target) {
			t.Listener.Filters = []discovery.HTTPFilter{{Name: "rbac", Config: &discovery.RBAC{}}}
		}},
		{name: "random", change: balance(balancer.Config{Policy: balancer.Random}), note: "not at random"},
		{name: "least request", change: balance(balancer.Config{Policy: balancer.LeastRequest, ChoiceCount: 3, FullScan: true})},
		{name: "least request of one", change: balance(balancer.Config{Policy: balancer.LeastRequest, ChoiceCount: 1})},
		{name: "a ring", change: balance(balancer.Config{Policy: balancer.RingHash, MinRingSize: 2, MaxRingSize: 8 << 20, HashHostnames: true})},
		{name: "maglev", change: balance(balancer.Config{Policy: balancer.Maglev, MaglevSize: 65537}), note: "Maglev"},
		{name: "by what endpoints report", change: balance(balancer.Config{Policy: balancer.ClientWeighted, ClientWeighted: balancer.ClientWeightedConfig{Blackout: -1, Expiration: -1, OutOfBand: true, ErrorPenalty: 1}})},
		{name: "peak EWMA", change: balance(balancer.Config{Policy: balancer.PeakEWMA})},
		{name: "pick first", change: balance(balancer.Config{Policy: balancer.PickFirst, Shuffle: true})},
		{name: "a balancer of the application", refused: "balancing policy of the application", change: balance(balancer.Config{Policy: balancer.CustomPolicy})},
		{name: "subsets", refused: "no subsets", change: balance(balancer.Config{Subsets: &balancer.Subsets{}})},
		{name: "limits", change: cluster(func(c *aCluster) {
			c.Limits[0] = breaker.Limits{MaxRequests: 5, MaxConnections: 7}
			c.Breaker, c.RetryThrottle, c.KeepAlive = &breaker.Settings{}, &retry.ThrottleSettings{}, &discovery.KeepAlive{}
			c.Outlier = new(balancer.DefaultOutlierConfig())
		}), note: "failures in a row"},
		{name: "a name", change: func(_ *aRoute, c *aCluster, a *discovery.Assignment, _ *discovery.Target) {
			c.EDSName, c.Static, c.DNS = "", a, &discovery.DNS{}
			a.Localities[0].Endpoints[0].Address = "payment.test:80"
			a.Localities[0].Weight = 0
		}},
		{name: "names", refused: "one DNS name only", change: func(_ *aRoute, c *aCluster, a *discovery.Assignment, _ *discovery.Target) {
			c.EDSName, c.Static, c.DNS = "", a, &discovery.DNS{}
			a.Localities[0].Endpoints = []balancer.Endpoint{{Address: "a.test:80"}, {Address: "b.test:80"}}
		}},
		{name: "addresses of a cluster with names", change: func(_ *aRoute, c *aCluster, a *discovery.Assignment, _ *discovery.Target) {
			c.EDSName, c.Static, c.DNS = "", a, &discovery.DNS{}
			a.Localities[0].Weight = 0
		}},
		{name: "an aggregate", change: func(r *aRoute, _ *aCluster, _ *discovery.Assignment, t *discovery.Target) {
			r.Forward.Clusters[0].Name = "both"
			t.Clusters["both"] = discovery.ClusterResult{Cluster: &discovery.Cluster{Name: "both", Aggregate: []string{"c", "d"}}, Endpoints: &discovery.Assignment{}, Leaves: []string{"c"}}
			t.Clusters["d"] = discovery.ClusterResult{Err: errors.New("it is not there")}
		}, refused: "it is not there"},
		{name: "priorities with a gap, no endpoints, all states", change: endpoints(func(a *discovery.Assignment) {
			a.Localities = append(a.Localities, discovery.LocalityEndpoints{
				Locality: balancer.Locality{Region: "r", Zone: "z", SubZone: "s"}, Weight: 3, Priority: 4,
				Endpoints: []balancer.Endpoint{
					{Address: "[::1]:2", Additional: []string{"127.0.0.1:2"}, Health: balancer.Draining, Weight: 4}, {Address: "127.0.0.1:3", Health: balancer.Degraded, Hostname: "h"},
					{Address: "127.0.0.1:4", Health: balancer.Unhealthy}, {Address: "127.0.0.1:5", Health: balancer.Timeout},
				},
			}, discovery.LocalityEndpoints{Weight: 1, Priority: 2})
			a.Drops = []discovery.Drop{{Category: "a", PerMillion: 5}}
		})},
		{name: "mutual TLS", change: cluster(func(c *aCluster) {
			c.TLS = &discovery.UpstreamTLS{IdentityInstance: "default", RootInstance: "default", SANs: []discovery.StringMatch{text(discovery.MatchExact, "spiffe://a/b"), text(discovery.MatchRegex, "spiffe://.*")}, SNI: "a"}
		})},
		{name: "mutual TLS with members", change: cluster(func(c *aCluster) {
			c.TLS = &discovery.UpstreamTLS{IdentityInstance: "default", RootInstance: "default"}
		})},
		{name: "a DNS name", note: "SNI", change: cluster(func(c *aCluster) {
			c.TLS = &discovery.UpstreamTLS{RootInstance: "default", SNI: "a", Names: []discovery.NameMatch{{Type: discovery.NameDNS, StringMatch: text(discovery.MatchExact, "a.test")}}}
		})},
		{name: "the end of a DNS name", refused: "only whole ones are safe", change: cluster(func(c *aCluster) {
			c.TLS = &discovery.UpstreamTLS{RootInstance: "default", Names: []discovery.NameMatch{{Type: discovery.NameDNS, StringMatch: text(discovery.MatchSuffix, ".test")}}}
		})},
		{name: "a version of TLS", refused: "versions and ciphers", change: cluster(func(c *aCluster) {
			c.TLS = &discovery.UpstreamTLS{RootInstance: "default", TLSParams: discovery.TLSParams{MinVersion: 0x0304}}
		})},
		{name: "a pinned certificate", refused: "digests of certificates", change: cluster(func(c *aCluster) {
			c.TLS = &discovery.UpstreamTLS{RootInstance: "default", TLSParams: discovery.TLSParams{Keys: [][32]byte{{}}}}
		})},
		{name: "the system's roots", refused: "no system roots", change: cluster(func(c *aCluster) { c.TLS = &discovery.UpstreamTLS{SystemRoots: true} })},
		{name: "endpoints in two ways", note: `1 endpoints are not called: the others are reached by the transport socket "secure"`, change: func(_ *aRoute, c *aCluster, a *discovery.Assignment, _ *discovery.Target) {
			c.TLSMatches = []discovery.TLSMatch{
				{Name: "secure", Match: map[string]string{"tlsMode": "istio"}, TLS: &discovery.UpstreamTLS{IdentityInstance: "default", RootInstance: "default"}},
				{Name: "plain"},
			}
			a.Localities[0].Endpoints = append(a.Localities[0].Endpoints, balancer.Endpoint{
				Address: "127.0.0.1:2", Metadata: map[string]map[string]string{discovery.TLSMatchMetadata: {"tlsMode": "istio"}},
			})
		}},
		{name: "ports are ignored, headers changed", note: "headers are not changed", change: func(r *aRoute, _ *aCluster, _ *discovery.Assignment, t *discovery.Target) {
			t.Routes.IgnorePortInHostMatching = true
			t.Routes.VirtualHosts[0].Domains = []string{"payment.shop", "*.shop", "a.*"}
			add := discovery.HeaderMutations{RequestAdd: []discovery.HeaderValue{{Name: "a", Value: "b"}}}
			t.Routes.Headers, t.Routes.VirtualHosts[0].Headers, r.Headers, r.Forward.Clusters[0].Headers = add, add, add, add
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := newModelGuest(t)
			g.model.target.Value = targetOf(tt.change)
			conn, err := grpc.NewClient("xds:///"+destination, g.DialOptions()...)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// It has an answer when there is a configuration.
			if err := conn.Invoke(t.Context(), "/a.b/c", nil, nil); err == nil {
				t.Error("a call without a server succeeds")
			}
			rejected := g.settled(t)
			if tt.refused == "" && rejected != "" || !strings.Contains(rejected, tt.refused) {
				t.Errorf("rejected: %q, want %q", rejected, tt.refused)
			}
			if notes := g.notes(); !strings.Contains(notes, tt.note) || !strings.Contains(notes, tt.refused) {
				t.Errorf("notes:\n%swant %q %q", notes, tt.note, tt.refused)
			}
		})
	}
}

// serve starts a native server without services, and returns its address and the
// changes of its mode.
func serve(t *testing.T, g *modelGuest) (address string, modes chan xds.ServingModeChangeArgs) {
	t.Helper()
	modes = make(chan xds.ServingModeChangeArgs, 16)
	server, err := xds.NewGRPCServer(append(g.ServerOptions(), xds.ServingModeCallback(func(_ net.Addr, a xds.ServingModeChangeArgs) { modes <- a }))...)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	t.Cleanup(func() {
		server.Stop()
		// A test that is over before Serve has begun has stopped it already.
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return ln.Addr().String(), modes
}

// TestWhatIsUnknownFailsAtOnce, and what is on its way is waited for.
func TestWhatIsUnknownFailsAtOnce(t *testing.T) {
	t.Parallel()
	g := newModelGuest(t)
	g.model.target.Err = fmt.Errorf("listener %q: %w", destination, discovery.ErrNotFound)
	g.model.inbound.Err = fmt.Errorf("listener: %w", discovery.ErrNotFound)
	conn, err := grpc.NewClient("xds:///"+destination, g.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// grpc-go's resolver takes the addresses away first and gives the reason then: a
	// call between the two has failed as well, and knows of the addresses only.
	for err = conn.Invoke(t.Context(), "/a/b", nil, nil); err != nil && strings.HasSuffix(err.Error(), "produced zero addresses"); {
		err = conn.Invoke(t.Context(), "/a/b", nil, nil)
	}
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "refused by the mesh") || !strings.Contains(err.Error(), discovery.ErrNotFound.Error()) {
		t.Errorf("call: %v", err)
	}
	_, modes := serve(t, g)
	if change := <-modes; change.Mode != connectivity.ServingModeNotServing || !strings.Contains(change.Err.Error(), discovery.ErrNotFound.Error()) {
		t.Errorf("mode: %v", change)
	}
	// It is known later, and then serves.
	g.model.set(func() {
		g.model.inbound = discovery.Update[*discovery.Inbound]{Value: inboundOf(func(*discovery.FilterChain, *discovery.Inbound) {})}
	})
	if change := <-modes; change.Mode != connectivity.ServingModeServing {
		t.Errorf("mode: %v", change)
	}

	waiting := newModelGuest(t)
	waiting.model.target.Err = status.Error(codes.Unavailable, "the control plane is away")
	other, err := grpc.NewClient("xds:///"+destination, waiting.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	result := make(chan error, 1)
	go func() { result <- other.Invoke(t.Context(), "/a/b", nil, nil) }()
	waiting.model.set(func() {
		waiting.model.target = discovery.Update[*discovery.Target]{Value: targetOf(func(r *aRoute, _ *aCluster, _ *discovery.Assignment, _ *discovery.Target) {
			r.Forward, r.Direct = nil, &discovery.DirectResponse{}
		})}
	})
	if err := <-result; !strings.Contains(err.Error(), "unsupported") && !strings.Contains(err.Error(), "route") {
		t.Errorf("call: %v", err)
	}
}

// TestALargeServiceReachesGuests: its endpoints are more than gRPC takes by
// default (finding O4).
func TestALargeServiceReachesGuests(t *testing.T) {
	t.Parallel()
	g := newModelGuest(t)
	g.model.target.Value = targetOf(func(_ *aRoute, _ *aCluster, a *discovery.Assignment, _ *discovery.Target) {
		for i := range 60_000 {
			a.Localities[0].Endpoints = append(a.Localities[0].Endpoints, balancer.Endpoint{
				Address: fmt.Sprintf("127.%d.%d.%d:%d", 1+i>>16, i>>8&255, i&255, 1), Health: balancer.Unhealthy, Hostname: strings.Repeat("h", 80),
			})
		}
	})
	conn, err := grpc.NewClient("xds:///"+destination, g.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Invoke(t.Context(), "/a.b/c", nil, nil); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	if rejected := g.settled(t); rejected != "" {
		t.Error(rejected)
	}
}
