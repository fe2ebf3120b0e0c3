package mesh_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// pageBlock is a piece of configuration that a page shows.
type pageBlock struct {
	heading  string // the last one above it
	language string
	// about are the words after the language: the hosts that a cluster is for, and
	// what the piece is. Readers do not see them.
	about []string
	text  string
}

func (b *pageBlock) is(what string) bool {
	return len(b.about) > 0 && b.about[len(b.about)-1] == what
}

func pageBlocks(t *testing.T, page string) []pageBlock {
	t.Helper()
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []pageBlock
	heading, inside := "", false
	for line := range strings.Lines(string(content)) {
		title, isTitle := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && inside:
			inside = false
		case isFence:
			words := append(strings.Fields(fence), "")
			blocks = append(blocks, pageBlock{heading: heading, language: words[0], about: words[1 : len(words)-1]})
			inside = true
		case inside:
			blocks[len(blocks)-1].text += line
		case isTitle && line[0] == '#':
			heading = strings.TrimSpace(title)
		}
	}
	return blocks
}

// pageWorld are two payments that are called over both protocols.
type pageWorld struct {
	world    *meshtest.World
	customer *mesh.Mesh
	channel  *grpc.ClientConn
	at       map[string][]string // their addresses, by host
}

func newPageWorld(t *testing.T) *pageWorld {
	p := &pageWorld{world: meshtest.New(t), at: make(map[string][]string)}
	for range 2 {
		p.world.Service("payment.shop", meshtest.HTTP(80, http.HandlerFunc(echoRequest)),
			meshtest.GRPC(9090, func(s grpc.ServiceRegistrar) {
				grpc_testing.RegisterTestServiceServer(s, echoService{})
				grpc_health_v1.RegisterHealthServer(s, health.NewServer())
				if err := orca.Register(s.(*grpc.Server), orca.ServiceOptions{ServerMetricsProvider: orca.NewServerMetricsRecorder()}); err != nil {
					t.Error(err)
				}
			}))
	}
	p.customer = p.world.Workload("customer.shop")
	var err error
	if p.channel, err = grpc.NewClient("mesh:///payment.shop:9090", p.customer.DialOptions()...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.channel.Close() })
	for _, host := range leavesHosts {
		for _, e := range p.explain(t, host).Cluster.Endpoints {
			p.at[host] = append(p.at[host], e.Address)
		}
	}
	return p
}

func (p *pageWorld) explain(t *testing.T, host string) *mesh.Explanation {
	t.Helper()
	if host == leavesHosts[0] {
		return explained(t, p.customer)
	}
	e, err := p.customer.ExplainRPC(t.Context(), "mesh:///"+host, explainPaths[0])
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// call fails the test unless a call to the host is answered, and one over HTTP with a
// cookie where one is wanted.
func (p *pageWorld) call(t *testing.T, host string, cookie bool) {
	t.Helper()
	if host != leavesHosts[0] {
		if err := p.channel.Invoke(t.Context(), explainPaths[0], &grpc_testing.Empty{}, &grpc_testing.Empty{}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
		return
	}
	resp, err := p.customer.Transport().RoundTrip(request(t, http.MethodGet, "http://payment.shop/"))
	if err != nil {
		t.Errorf("%s: %v", host, err)
		return
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || (len(resp.Cookies()) > 0) != cookie {
		t.Errorf("%s: status %d, cookies %v", host, resp.StatusCode, resp.Cookies())
	}
}

// push sends what a host is called by: a cluster with these fields, or an aggregate of
// two, and a listener with a filter, or none, and fields of its route.
func (p *pageWorld) push(t *testing.T, host, cluster, aggregate, filter, route string) {
	t.Helper()
	if filter != "" {
		filter += ","
	}
	action := strings.TrimPrefix(strings.TrimSpace(route), "{")
	if action == "" {
		action = "}"
	} else {
		action = "," + action
	}
	all := []proto.Message{parsed(new(listenerv3.Listener), `{"name": %q, "apiListener": {"apiListener": {
		"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"httpFilters": [%s {"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
		"routeConfig": {"virtualHosts": [{"name": "h", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "payment" %s}]}]}}}}`,
		host, filter, action)}
	names := []string{"payment"}
	if aggregate != "" {
		names = []string{"near", "far"}
		whole := parsed(new(clusterv3.Cluster), "%s", aggregate)
		whole.Name = "payment"
		all = append(all, whole)
	}
	for i, name := range names {
		var localities []string
		for j, address := range p.at[host] {
			if aggregate == "" || i == j {
				localities = append(localities, fmt.Sprintf(`{"locality": {"region": "r%d"}, "loadBalancingWeight": 1, "lbEndpoints": [%s]}`, j,
					strings.TrimSuffix(leafEndpoint(address, "HEALTHY"), "}")+fmt.Sprintf(`, "metadata": {"filterMetadata": {"envoy.lb": {"version": "v%d"}}}}`, j+1)))
			}
		}
		c := parsed(new(clusterv3.Cluster), `{"name": %q, "type": "STATIC", "loadAssignment": {"clusterName": %q, "endpoints": [%s]}}`, name, name, strings.Join(localities, ", "))
		if cluster != "" {
			proto.Merge(c, parsed(new(clusterv3.Cluster), "%s", cluster))
		}
		all = append(all, c)
	}
	p.world.Push(all...)
}

// TestThePageOfBalancingIsTrue: the YAML is applied without a warning, each piece of xDS is
// accepted, calls are answered, and every endpoint can be picked that is to be.
func TestThePageOfBalancingIsTrue(t *testing.T) {
	t.Parallel()
	blocks := pageBlocks(t, "../docs/balancing.md")
	synctest.Test(t, func(t *testing.T) {
		p := newPageWorld(t)
		cases := 0
		for i := range blocks {
			block := &blocks[i]
			var filter, route string
			for _, b := range blocks {
				if b.heading == block.heading && b.is("HttpFilter") {
					filter = b.text
				} else if b.heading == block.heading && b.is("RouteAction") {
					route = b.text
				}
			}
			hosts, can := leavesHosts, 2
			switch {
			case block.language == "yaml":
				p.world.Apply(block.text)
				if warnings := p.world.Warnings(); len(warnings) > 0 {
					t.Errorf("%s: warnings %q", block.heading, warnings)
				}
				for _, host := range hosts {
					p.call(t, host, false)
				}
				cases++
				continue
			case block.is("Aggregate"):
				can = 1 // the endpoint of the first cluster
			case block.is("Cluster"):
				if hosts = block.about[:len(block.about)-1]; route != "" {
					can = 1 // the endpoint of v1
				}
			case block.is("HttpFilter"), block.is("RouteAction"):
				continue
			default:
				t.Fatalf("%s: a block of %s is about %q", block.heading, block.language, block.about)
			}
			for _, host := range hosts {
				cases++
				if block.is("Aggregate") {
					p.push(t, host, "", block.text, "", "")
				} else {
					p.push(t, host, block.text, "", filter, route)
				}
				p.explain(t, host) // from here on endpoints are checked
				time.Sleep(20 * time.Second)
				p.call(t, host, filter != "")
				candidates := 0
				for _, e := range p.explain(t, host).Cluster.Endpoints {
					if e.Candidate {
						candidates++
					}
				}
				if candidates != can {
					t.Errorf("%s, %s: %d endpoints can be picked, want %d: %v", block.heading, host, candidates, can, p.explain(t, host))
				}
			}
		}
		t.Logf("%d pieces tried", cases)
		if cases < 10 {
			t.Errorf("%d pieces, want the page's", cases)
		}
	})
}
