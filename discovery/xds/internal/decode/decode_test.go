package decode

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/inboardmesh/inboard/tls/meshtls"
)

// marshal encodes m the same way each time.
func marshal(tb testing.TB, m proto.Message) []byte {
	tb.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// fromJSON reads a protobuf in its JSON form, in which test resources are the
// most readable: {"@type": ...} is an Any.
func fromJSON[M any, P interface {
	*M
	proto.Message
}](tb testing.TB, text string) P {
	tb.Helper()
	m := P(new(M))
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		tb.Fatalf("%v in %s", err, text)
	}
	return m
}

func wrap(tb testing.TB, m proto.Message) *anypb.Any {
	tb.Helper()
	a, err := anypb.New(m)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// sameModel compares decoded values. Two expressions are equal if their sources
// and programs are.
var sameModel = cmp.Options{
	cmp.Comparer(func(a, b *regexp.Regexp) bool {
		if a == nil || b == nil {
			return a == b
		}
		return a.String() == b.String()
	}),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b *meshtls.Revocation) bool { return a.Key() == b.Key() }),
	cmp.Comparer(func(a, b *meshtls.Identity) bool { return a == b || a != nil && b != nil && a.RootsKey == b.RootsKey }),
}

// wantErrors checks the lines of an error, none for a nil error.
func wantErrors(tb testing.TB, err error, want ...string) {
	tb.Helper()
	var got []string
	if err != nil {
		got = strings.Split(err.Error(), "\n")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		tb.Errorf("errors (-want +got):\n%s", diff)
	}
}

func seconds(n int64) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Second) }

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
}

func edsCluster(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()},
	}
}

func TestUndecodableBytesAreAnErrorWithoutAName(t *testing.T) {
	t.Parallel()
	junk := []byte("\x0a\x03abc\xff")
	for typ, decode := range map[string]func() (string, bool, error){
		"envoy.config.listener.v3.Listener": func() (string, bool, error) {
			name, v, err := Listener(junk)
			return name, v == nil, err
		},
		"envoy.config.route.v3.RouteConfiguration": func() (string, bool, error) {
			name, v, err := RouteConfiguration(junk)
			return name, v == nil, err
		},
		"envoy.config.cluster.v3.Cluster": func() (string, bool, error) {
			name, v, err := Cluster(junk)
			return name, v == nil, err
		},
		"envoy.config.endpoint.v3.ClusterLoadAssignment": func() (string, bool, error) {
			name, v, err := Assignment(junk)
			return name, v == nil, err
		},
	} {
		name, isNil, err := decode()
		if name != "" || !isNil || err == nil || !strings.HasPrefix(err.Error(), "not a valid "+typ+": ") {
			t.Errorf("%s: name %q, nil %v, error %v", typ, name, isNil, err)
		}
	}
}

func TestX53_ABadResourceIsNamedBesideItsError(t *testing.T) {
	t.Parallel()
	bad := edsCluster("outbound|80||bad.shop")
	bad.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
	name, c, err := Cluster(marshal(t, bad))
	if name != "outbound|80||bad.shop" || c != nil {
		t.Errorf("name %q, cluster %v: want the name and no cluster", name, c)
	}
	wantErrors(t, err, "lb_policy: CLUSTER_PROVIDED is not supported: use ROUND_ROBIN, LEAST_REQUEST, RANDOM, RING_HASH or MAGLEV")

	if _, c, err := Cluster(marshal(t, edsCluster("good"))); c == nil || err != nil {
		t.Errorf("a good resource after a bad one: %v, %v", c, err)
	}
}

func TestX54_EveryProblemIsListed(t *testing.T) {
	t.Parallel()
	c := edsCluster("bad")
	c.ConnectTimeout = seconds(0)                         // Envoy's own constraint
	c.EdsClusterConfig.EdsConfig = &corev3.ConfigSource{} // the same, and then ours
	c.CloseConnectionsOnHostHealthFailure = true          // not read
	c.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED       // not supported
	_, _, err := Cluster(marshal(t, c))
	wantErrors(t, err,
		"eds_cluster_config.eds_config.config_source_specifier: value is required",
		"connect_timeout: value must be greater than 0s",
		"close_connections_on_host_health_failure: not supported: calls that an endpoint has are left to end: use outlier_detection and timeouts",
		"lb_policy: CLUSTER_PROVIDED is not supported: use ROUND_ROBIN, LEAST_REQUEST, RANDOM, RING_HASH or MAGLEV",
		"eds_cluster_config.eds_config: must be ads or self",
	)
}

func TestX55_AnUndecodableResourceHasNoNameToInferADeletionFrom(t *testing.T) {
	t.Parallel()
	// The name is intact, the rest is cut off.
	b := marshal(t, edsCluster("cut"))
	name, c, err := Cluster(b[:len(b)-1])
	if name != "" || c != nil || err == nil {
		t.Errorf("name %q, cluster %v, error %v", name, c, err)
	}
}

func TestX59_UnknownFieldsAreIgnored(t *testing.T) {
	t.Parallel()
	m := edsCluster("c")
	m.ProtoReflect().SetUnknown([]byte{0xfa, 0xff, 0x03, 0x01, 'x'}) // field 8191
	_, c, err := Cluster(marshal(t, m))
	if err != nil {
		t.Fatal(err)
	}
	_, want, err := Cluster(marshal(t, edsCluster("c")))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, c, sameModel); diff != "" {
		t.Errorf("an unknown field changed the cluster (-without +with):\n%s", diff)
	}
}

func TestManyProblemsAreCounted(t *testing.T) {
	t.Parallel()
	var p problems
	for i := range maxProblems + 5 {
		p.addf(path{}.element("endpoints", i), "bad")
	}
	p.addf(path{}.element("endpoints", 0), "a second problem of one field")
	lines := strings.Split(p.err().Error(), "\n")
	if got := len(lines); got != maxProblems+1 {
		t.Errorf("%d lines, want %d", got, maxProblems+1)
	}
	if got := lines[len(lines)-1]; got != "and 5 more problems" {
		t.Errorf("last line is %q", got)
	}
}

func TestPathsReadLikeProtobufFields(t *testing.T) {
	t.Parallel()
	at := path{}.element("virtual_hosts", 2).field("match").entry("typed_per_filter_config", "envoy.filters.http.fault").field("delay")
	if got, want := at.String(), `virtual_hosts[2].match.typed_per_filter_config["envoy.filters.http.fault"].delay`; got != want {
		t.Errorf("path %s, want %s", got, want)
	}
}

// errorsEnding are the lines of an error that end with a text.
func errorsEnding(err error, text string) []string {
	var found []string
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if strings.HasSuffix(line, text) {
				found = append(found, line)
			}
		}
	}
	return found
}
