package mesh_test

import (
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// parityKinds are the kinds that are translated, with their specs.
var parityKinds = map[string]protoreflect.MessageDescriptor{
	"ServiceEntry":          new(networking.ServiceEntry).ProtoReflect().Descriptor(),
	"WorkloadEntry":         new(networking.WorkloadEntry).ProtoReflect().Descriptor(),
	"DestinationRule":       new(networking.DestinationRule).ProtoReflect().Descriptor(),
	"VirtualService":        new(networking.VirtualService).ProtoReflect().Descriptor(),
	"PeerAuthentication":    new(security.PeerAuthentication).ProtoReflect().Descriptor(),
	"RequestAuthentication": new(security.RequestAuthentication).ProtoReflect().Descriptor(),
	"AuthorizationPolicy":   new(security.AuthorizationPolicy).ProtoReflect().Descriptor(),
}

// withoutRow are the fields that are accepted and have no row, and why.
var withoutRow = map[string]string{
	"istio.security.v1beta1.AuthorizationPolicy.provider":               custom,
	"istio.security.v1beta1.AuthorizationPolicy.ExtensionProvider.name": custom,
}

// custom is why CUSTOM is no row.
const custom = "the provider is of the configuration of the mesh, which the rows share: see the tests of CUSTOM"

// fieldSet holds full names of fields, such as
// "istio.networking.v1alpha3.HTTPRoute.timeout".
type fieldSet map[string]bool

// accepted adds the fields of a message that the control plane does not refuse,
// and those of the messages in them. document makes a document of the message,
// written in YAML's flow style.
func (s fieldSet) accepted(t *testing.T, message protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool, document func(string) string) {
	t.Helper()
	if seen[message.FullName()] {
		return
	}
	seen[message.FullName()] = true
	fields := message.Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		within := func(value string) string { return document("{" + field.JSONName() + ": " + value + "}") }
		_, problems := istio.Parse([]istio.File{{Name: "field.yaml", Data: []byte(within("{}"))}}, istio.Options{})
		if slices.ContainsFunc(problems, isRefused) {
			continue
		}
		s[string(field.FullName())] = true
		switch inner := innerMessage(field); {
		case inner == nil:
		case field.IsMap():
			s.accepted(t, inner, seen, func(value string) string { return within(`{"1": ` + value + "}") })
		case field.IsList():
			s.accepted(t, inner, seen, func(value string) string { return within("[" + value + "]") })
		default:
			s.accepted(t, inner, seen, within)
		}
	}
}

// isRefused reports whether a problem is that a field is refused, whatever it says.
func isRefused(p istio.Problem) bool {
	return strings.HasPrefix(p.Message, "is not supported: ") || strings.HasPrefix(p.Message, "is for gateways and waypoints")
}

// innerMessage is the message in a field, nil for a value that is written as one
// scalar.
func innerMessage(field protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if field.IsMap() {
		field = field.MapValue()
	}
	message := field.Message()
	if message == nil || message.ParentFile().Package() == "google.protobuf" {
		return nil
	}
	return message
}

// used adds the fields that a node of a document sets.
func (s fieldSet) used(t *testing.T, message protoreflect.MessageDescriptor, node any) {
	t.Helper()
	entries, ok := node.(map[string]any)
	if !ok {
		t.Fatalf("%s: %v is no mapping", message.FullName(), node)
	}
	for name, value := range entries {
		field := message.Fields().ByJSONName(name)
		if field == nil {
			t.Fatalf("%s has no field %q", message.FullName(), name)
		}
		s[string(field.FullName())] = true
		inner := innerMessage(field)
		if inner == nil {
			continue
		}
		var values []any
		switch v := value.(type) {
		case []any:
			values = v
		case map[string]any:
			if values = []any{v}; field.IsMap() {
				values = slices.Collect(maps.Values(v))
			}
		case map[any]any: // keys are numbers
			values = slices.Collect(maps.Values(v))
		}
		for _, v := range values {
			s.used(t, inner, v)
		}
	}
}

// acceptedFields are those of all kinds.
func acceptedFields(t *testing.T) fieldSet {
	t.Helper()
	accepted, seen := make(fieldSet), make(map[protoreflect.FullName]bool)
	for kind, message := range parityKinds {
		group := "networking"
		if message.ParentFile().Package() == "istio.security.v1beta1" {
			group = "security"
		}
		accepted.accepted(t, message, seen, func(spec string) string {
			return "{apiVersion: " + group + ".istio.io/v1, kind: " + kind + ", metadata: {name: a, namespace: b}, spec: " + spec + "}"
		})
	}
	return accepted
}

// usedIn adds the fields that documents of Istio set.
func (s fieldSet) usedIn(t *testing.T, documents string) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(documents))
	for {
		var document struct {
			Kind string
			Spec any
		}
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if message, ok := parityKinds[document.Kind]; ok { // not those of the Gateway API
			s.used(t, message, document.Spec)
		}
	}
}

// TestParityHasARowForEveryField finds the fields by asking the control plane
// about each that Istio has. That a row sets a field says nothing of how much
// of its meaning the row looks at.
func TestParityHasARowForEveryField(t *testing.T) {
	t.Parallel()
	accepted, used := acceptedFields(t), make(fieldSet)
	addresses := make(map[string]parityAddress)
	for _, instance := range parityInstances {
		addresses[instance] = parityAddress{http: "1", grpc: "2"}
	}
	used.usedIn(t, parityYAML(parityRows(), addresses))
	used.usedIn(t, streamDocuments()) // those about connections alone
	if len(accepted) < 100 {
		t.Errorf("only %d fields are accepted: does the control plane still say so as this test expects?", len(accepted))
	}
	for _, field := range slices.Sorted(maps.Keys(accepted)) {
		if why, ok := withoutRow[field]; used[field] == ok {
			t.Errorf("%s: in a row: %t, without a row because: %q", field, used[field], why)
		}
	}
}

// notOfConnections are what the names of fields begin with that have no row of
// connections, and why.
var notOfConnections = map[string]string{
	"istio.networking.v1alpha3.HTTP":                                                             ofRequests,
	"istio.networking.v1alpha3.CorsPolicy.":                                                      ofRequests,
	"istio.networking.v1alpha3.Delegate.":                                                        ofRequests,
	"istio.networking.v1alpha3.Headers.":                                                         ofRequests,
	"istio.networking.v1alpha3.Percent.":                                                         ofRequests,
	"istio.networking.v1alpha3.RegexRewrite.":                                                    ofRequests,
	"istio.networking.v1alpha3.StringMatch.":                                                     ofRequests,
	"istio.networking.v1alpha3.ConnectionPoolSettings.HTTPSettings.":                             ofRequests,
	"istio.networking.v1alpha3.TrafficPolicy.RetryBudget.":                                       ofRequests,
	"istio.networking.v1alpha3.TrafficPolicy.retry_budget":                                       ofRequests,
	"istio.networking.v1alpha3.LoadBalancerSettings.ConsistentHashLB.HTTPCookie.":                ofRequests,
	"istio.networking.v1alpha3.LoadBalancerSettings.ConsistentHashLB.http_":                      ofRequests,
	"istio.networking.v1alpha3.LoadBalancerSettings.ConsistentHashLB.MagLev.table_size":          ofBalancers,
	"istio.networking.v1alpha3.LoadBalancerSettings.ConsistentHashLB.RingHash.minimum_ring_size": ofBalancers,
	"istio.networking.v1alpha3.LoadBalancerSettings.ConsistentHashLB.maglev":                     ofBalancers,
	"istio.networking.v1alpha3.LoadBalancerSettings.ConsistentHashLB.minimum_ring_size":          ofBalancers,
	"istio.networking.v1alpha3.LoadBalancerSettings.ConsistentHashLB.ring_hash":                  ofBalancers,
	"istio.networking.v1alpha3.LoadBalancerSettings.warmup":                                      ofBalancers,
	"istio.networking.v1alpha3.WarmupConfiguration.":                                             ofBalancers,
	"istio.networking.v1alpha3.OutlierDetection.min_health_percent":                              ofBalancers,
	"istio.networking.v1alpha3.ServiceEntry.":                                                    ofEndpoints,
	"istio.networking.v1alpha3.ServicePort.":                                                     ofEndpoints,
	"istio.networking.v1alpha3.WorkloadEntry.":                                                   ofEndpoints,
	"istio.networking.v1alpha3.WorkloadSelector.":                                                ofEndpoints,
	"istio.security.v1beta1.RequestAuthentication.":                                              ofRequests,
	"istio.security.v1beta1.JWT":                                                                 ofRequests,
	"istio.security.v1beta1.ClaimToHeader.":                                                      ofRequests,
	"istio.security.v1beta1.Operation.":                                                          ofPolicies,
	"istio.security.v1beta1.Source.":                                                             ofPolicies,
	"istio.security.v1beta1.AuthorizationPolicy.provider":                                        custom,
	"istio.security.v1beta1.AuthorizationPolicy.ExtensionProvider.":                              custom,
}

// Why fields have no row of connections.
const (
	ofRequests  = "it is about requests, of which a connection has none"
	ofBalancers = "it is the balancer's, which does not know what it balances: the rows of calls have it"
	ofEndpoints = "it says which endpoints there are, whatever is sent to them: the rows of calls have it"
	ofPolicies  = "it is about requests: TestV11_PoliciesAboutConnections has what that means for connections"
)

// TestParityHasARowOfConnectionsForEveryField, or says why not.
func TestParityHasARowOfConnectionsForEveryField(t *testing.T) {
	t.Parallel()
	used, needed := make(fieldSet), make(map[string]bool)
	used.usedIn(t, streamDocuments())
	for _, field := range slices.Sorted(maps.Keys(acceptedFields(t))) {
		if used[field] {
			continue
		}
		stated := false
		for prefix := range notOfConnections {
			if strings.HasPrefix(field, prefix) {
				stated, needed[prefix] = true, true
			}
		}
		if !stated {
			t.Errorf("%s has no row of connections, and no reason", field)
		}
	}
	for prefix, why := range notOfConnections {
		if !needed[prefix] {
			t.Errorf("no field without a row of connections begins with %s: %s", prefix, why)
		}
	}
}

// parityPage is the statement of the differences.
const parityPage = "../docs/parity.md"

// TestParityDifferencesAreStated holds the table of the page to the rows: each
// of its lines is "| `field` | what differs | why |", for the rows whose names
// begin with the field.
func TestParityDifferencesAreStated(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(parityPage)
	if err != nil {
		t.Fatal(err)
	}
	stated := make(map[parityDifference]bool) // whether a row has it
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if field := strings.TrimSpace(cells[0]); len(cells) == 3 && strings.HasPrefix(field, "`") {
			stated[parityDifference{strings.Trim(field, "`"), strings.TrimSpace(cells[2])}] = false
		}
	}
	rows := parityRows()
	for i := range rows {
		for _, d := range rows[i].differences(t) {
			found := false
			for s := range stated {
				if strings.HasPrefix(d.row, s.row) && s.why == d.why {
					stated[s], found = true, true
				}
			}
			if !found {
				t.Errorf("%s does not state of %q: %s", parityPage, d.row, d.why)
			}
		}
	}
	for s, has := range stated {
		if !has {
			t.Errorf("%s states of %q what no row shows: %s", parityPage, s.row, s.why)
		}
	}
}
