package mesh_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/inboardmesh/inboard/outcome"
)

// parityRow is one field of the configuration and what it does to calls. Each
// row has a host of its own, so that all are applied at once. HOST stands for
// the host in everything that a row writes, HTTP(v1-a) and GRPC(v1-a) for the
// ports of a payment.
type parityRow struct {
	name string
	// routes is spec.http of the VirtualService, a list that begins in the
	// first column; "" is no VirtualService.
	routes string
	// virtualService, rule and service are further fields of the three specs,
	// each on a line of its own.
	virtualService, rule, service string
	// annotations are those of the VirtualService, ruleAnnotations those of the
	// DestinationRule, as "name: value".
	annotations, ruleAnnotations string
	// endpoints are those of the ServiceEntry, unless service says itself which
	// they are; nil are parityEndpoints.
	endpoints []parityEndpoint
	// documents are further ones.
	documents string

	// cases are single calls; run is for what needs several.
	cases []parityCase
	run   func(t *testing.T, p *parityProbe)
	// why says how run tells the protocols apart, "" if it does not.
	why string
}

// parityEndpoint is an endpoint of a row.
type parityEndpoint struct {
	instance string // "" is an address that never answers
	fields   string // further ones, "name: value"; "" is parityAccount
}

// parityAccount is the service account of payments: with it, an endpoint offers
// mutual TLS.
const parityAccount = "serviceAccount: payment"

var parityEndpoints = []parityEndpoint{{instance: "v1-a"}, {instance: "v1-b"}, {instance: "v2-a"}}

// parityCase is one call of a row.
type parityCase struct {
	name string
	call parityCall
	want parityWant
	// grpc is what gRPC gets instead; httpOnly leaves gRPC out. Either needs a
	// why, and a check that tells the protocols apart should have one.
	grpc     *parityWant
	httpOnly bool
	why      string
	// check looks at more of the result; nil is no more.
	check func(t *testing.T, p *parityProbe, r *parityResult)
}

// parityProbe calls one row over one protocol.
type parityProbe struct {
	parityProtocol

	world *parityWorld
	host  string
}

// cluster is the name of a subset, "" is the whole service.
func (p *parityProbe) cluster(subset string) string {
	return "outbound|" + p.port + "|" + subset + "|" + p.host
}

// call makes a call. One that ended before the configuration of the row had
// arrived says nothing of the row, and is made again.
func (p *parityProbe) call(t *testing.T, c parityCall) (r *parityResult) {
	t.Helper()
	until(t, "the row is configured", func() bool {
		r = p.world.call(t, p.parityProtocol, p.host, c)
		return r.Failure == nil || r.Failure.Kind != outcome.NoConfig
	})
	return r
}

// hold makes n calls that hang and waits until each has arrived so often. They
// end with release.
func (p *parityProbe) hold(t *testing.T, n int, c parityCall, arrivals int64) (release func()) {
	t.Helper()
	giveUp := make(chan struct{})
	var wg sync.WaitGroup
	ids := make([]string, n)
	for i := range ids {
		ids[i] = p.world.newID(p.parityProtocol, p.host)
		held := c
		held.id, held.giveUp = ids[i], giveUp
		wg.Go(func() { p.call(t, held) })
	}
	release = sync.OnceFunc(func() {
		close(giveUp)
		wg.Wait()
	})
	t.Cleanup(release)
	for _, id := range ids {
		until(t, "calls have arrived", func() bool { return p.world.Arrivals(id) >= arrivals })
	}
	return release
}

// test makes the calls of the row.
func (row *parityRow) test(t *testing.T, p *parityProbe) {
	t.Helper()
	for i := range row.cases {
		c := &row.cases[i]
		if p.grpc && c.httpOnly {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			want := c.want
			if p.grpc && c.grpc != nil {
				want = *c.grpc
			}
			r := p.call(t, c.call)
			want.check(t, p.parityProtocol, r)
			if c.check != nil && !t.Failed() {
				c.check(t, p, r)
			}
		})
	}
	if row.run != nil {
		row.run(t, p)
	}
}

// parityDifference is a row that HTTP and gRPC do not fulfil alike, and why.
type parityDifference struct{ row, why string }

// differences are those that the row declares. It fails what does not say why.
func (row *parityRow) differences(t *testing.T) []parityDifference {
	t.Helper()
	var found []parityDifference
	for i := range row.cases {
		c := &row.cases[i]
		differs := c.httpOnly || c.grpc != nil
		if differs && c.why == "" {
			t.Errorf("%s: %s: gRPC differs, and nothing says why", row.name, c.name)
		}
		if c.httpOnly && c.grpc != nil {
			t.Errorf("%s: %s: gRPC is both left out and called", row.name, c.name)
		}
		if c.grpc != nil && *c.grpc == c.want {
			t.Errorf("%s: %s: gRPC is said to differ, and does not", row.name, c.name)
		}
		if c.why != "" {
			found = append(found, parityDifference{row.name, c.why})
		}
	}
	if row.why != "" {
		found = append(found, parityDifference{row.name, row.why})
	}
	if len(row.cases) == 0 && row.run == nil {
		t.Errorf("%s: makes no call", row.name)
	}
	return found
}

// parityHost is the host of row i.
func parityHost(i int) string { return fmt.Sprintf("row-%d.shop.svc.cluster.local", i) }

// yaml is the row's part of the configuration. addresses are the ports of the
// payments by instance.
func (row *parityRow) yaml(i int, addresses map[string]parityAddress) string {
	var b strings.Builder
	document := func(kind, annotations string) {
		if annotations != "" {
			annotations = ", annotations: {" + annotations + "}"
		}
		fmt.Fprintf(&b, "---\napiVersion: networking.istio.io/v1\nkind: %s\nmetadata: {name: row-%d, namespace: shop%s}\nspec:\n", kind, i, annotations)
	}
	fields := func(lines string) {
		for line := range strings.Lines(lines) {
			b.WriteString("  " + strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	// defaults are lines of a spec, each unless the row has its own.
	spec := func(own string, defaults ...string) {
		for _, line := range defaults {
			key, _, _ := strings.Cut(line, ":")
			if !strings.HasPrefix(own, key+":") && !strings.Contains(own, "\n"+key+":") {
				fields(line)
			}
		}
		fields(own)
	}
	endpoints := "endpoints:"
	for _, e := range row.backends() {
		endpoints += "\n- " + e.yaml(addresses)
	}
	if strings.Contains(row.service, "workloadSelector:") {
		endpoints = "# those of the selector"
	}
	document("ServiceEntry", "")
	spec(row.service, "hosts: [HOST]", "resolution: STATIC", "location: MESH_INTERNAL",
		"ports: [{number: 80, name: http, protocol: HTTP}, {number: 82, name: http2, protocol: HTTP2}, {number: 9090, name: grpc, protocol: GRPC}]",
		endpoints)
	document("DestinationRule", row.ruleAnnotations)
	spec(row.rule, "host: HOST",
		"subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}, {name: none, labels: {version: none}}]")
	if row.routes != "" {
		document("VirtualService", row.annotations)
		spec(row.virtualService, "hosts: [HOST]")
		b.WriteString("  http:\n")
		fields(row.routes)
	}
	if row.documents != "" {
		b.WriteString("---\n" + row.documents + "\n")
	}
	return strings.NewReplacer("HOST", parityHost(i), "ROW", fmt.Sprintf("row-%d", i)).Replace(b.String())
}

func (row *parityRow) backends() []parityEndpoint {
	if row.endpoints == nil {
		return parityEndpoints
	}
	return row.endpoints
}

// parityAddress is the ports of a payment.
type parityAddress struct{ http, grpc string }

func (e parityEndpoint) yaml(addresses map[string]parityAddress) string {
	fields := e.fields
	if fields == "" {
		fields = parityAccount
	}
	if e.instance == "" {
		return fmt.Sprintf("{address: %s0.1, labels: {version: v1}, %s}", blackhole, fields)
	}
	a := addresses[e.instance]
	version, _, _ := strings.Cut(e.instance, "-")
	return fmt.Sprintf("{address: 127.0.0.1, ports: {http: %[1]s, http2: %[1]s, grpc: %[2]s}, labels: {version: %[3]s, app: %[3]s}, %[4]s}",
		a.http, a.grpc, version, fields)
}

// parityRows are all rows.
func parityRows() []parityRow {
	var rows []parityRow
	for _, group := range [][]parityRow{
		parityMatchRows(), parityActionRows(), parityRetryRows(), parityServiceRows(),
		parityPoolRows(), parityHTTP2Rows(), paritySourceRows(), parityGatewayRows(), parityGatewayMoreRows(), parityLimitRows(), parityOutlierRows(), parityBalancerRows(), parityTLSRows(), parityPeerRows(),
		parityLocalityRows(), parityHashRows(),
		parityTokenRows(), parityKubernetesRows(), parityAuthorizationRows(), parityAnnotationRows(),
	} {
		rows = append(rows, group...)
	}
	return rows
}

// TestParity holds one configuration to the same outcome over HTTP/1.1, HTTP/2
// and gRPC, for every field that the control plane translates. Where they
// differ, the row says why, and docs/parity.md does.
func TestParity(t *testing.T) {
	t.Parallel()
	rows := parityRows()
	w := newParityWorld(t, rows)
	names := make(map[string]bool)
	for i := range rows {
		row := &rows[i]
		row.differences(t)
		if names[row.name] {
			t.Errorf("%s: two rows have this name", row.name)
		}
		names[row.name] = true
		for _, protocol := range parityProtocols {
			t.Run(row.name+"/"+protocol.name, func(t *testing.T) {
				t.Parallel()
				row.test(t, &parityProbe{parityProtocol: protocol, world: w, host: parityHost(i)})
			})
		}
	}
}

// parityListeners opens the listeners of payments: the configuration has their
// addresses before they start.
func parityListeners(t *testing.T, instances []string) (listeners map[string][2]net.Listener, addresses map[string]parityAddress) {
	t.Helper()
	listeners, addresses = make(map[string][2]net.Listener), make(map[string]parityAddress)
	for _, instance := range instances {
		var pair [2]net.Listener
		var ports [2]string
		for i := range pair {
			ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ln.Close() })
			pair[i] = ln
			if _, ports[i], err = net.SplitHostPort(ln.Addr().String()); err != nil {
				t.Fatal(err)
			}
		}
		listeners[instance], addresses[instance] = pair, parityAddress{http: ports[0], grpc: ports[1]}
	}
	return listeners, addresses
}

// parityYAML is the configuration of all rows.
func parityYAML(rows []parityRow, addresses map[string]parityAddress) string {
	var b strings.Builder
	b.WriteString(parityPolicies)
	for i := range rows {
		b.WriteString(rows[i].yaml(i, addresses))
	}
	var ports []string
	for instance, a := range addresses {
		ports = append(ports, "HTTP("+instance+")", a.http, "GRPC("+instance+")", a.grpc)
	}
	return strings.NewReplacer(ports...).Replace(b.String())
}
