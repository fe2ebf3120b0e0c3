package mesh_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/internal/racing"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// What Explain says is held against what becomes of a call that is made just
// after it: a thousand random VirtualServices, each with a random HTTP request and
// a random gRPC call.
func TestExplainSaysWhatHappens(t *testing.T) {
	t.Parallel()
	const worlds = 10
	configs := 100
	if racing.Enabled {
		configs = 25
	}
	verdicts := make(chan map[string]int, worlds)
	t.Cleanup(func() { checkExplainCoverage(t, verdicts) })
	for n := range worlds {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			synctest.Test(t, func(t *testing.T) {
				p := newExplainProperty(t, rand.New(rand.NewPCG(seed, 0)))
				for range configs {
					p.yaml = p.randomConfig()
					p.world.Apply(p.yaml)
					p.checkHTTP(t)
					p.checkGRPC(t)
					if t.Failed() {
						return
					}
				}
				verdicts <- p.verdicts
			})
		})
	}
}

type explainProperty struct {
	random   *rand.Rand
	world    *meshtest.World
	customer *mesh.Mesh
	channel  *grpc.ClientConn
	yaml     string
	verdicts map[string]int
}

func newExplainProperty(t *testing.T, random *rand.Rand) *explainProperty {
	p := &explainProperty{random: random, world: meshtest.New(t), verdicts: make(map[string]int)}
	for i, version := range []string{"v1", "v1", "v2", "v3"} {
		p.world.Service("payment.shop", meshtest.Version(version), meshtest.Locality([]string{"eu/a", "us/a", "eu/b", "us"}[i]),
			meshtest.HTTP(80, http.HandlerFunc(echoRequest)),
			meshtest.GRPC(9090, func(s grpc.ServiceRegistrar) { grpc_testing.RegisterTestServiceServer(s, echoService{}) }))
	}
	p.customer = p.world.Workload("customer.shop")
	var err error
	if p.channel, err = grpc.NewClient("mesh:///payment.shop:9090", p.customer.DialOptions()...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.channel.Close() })
	return p
}

// echoed is what a payment saw of a request.
type echoed struct {
	Host   string      `json:"host"`
	Path   string      `json:"path"`
	Header http.Header `json:"header"`
}

// failHeader makes a payment fail, slowHeader makes it wait.
const (
	failHeader = "X-Fail"
	slowHeader = "X-Slow"
)

func echoRequest(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get(slowHeader) != "" {
		<-r.Context().Done()
		return
	}
	if r.Header.Get(failHeader) != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if err := json.NewEncoder(w).Encode(echoed{Host: r.Host, Path: r.URL.EscapedPath(), Header: r.Header}); err != nil {
		panic(err)
	}
}

type echoService struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (echoService) EmptyCall(ctx context.Context, _ *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return &grpc_testing.Empty{}, echoMethod(ctx)
}

func (echoService) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return &grpc_testing.SimpleResponse{}, echoMethod(ctx)
}

func echoMethod(ctx context.Context) error {
	in, _ := metadata.FromIncomingContext(ctx)
	if len(in.Get(slowHeader)) > 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	if len(in.Get(failHeader)) > 0 {
		return status.Error(codes.Unavailable, "scripted")
	}
	method, _ := grpc.Method(ctx)
	data, err := json.Marshal(echoed{Host: strings.Join(in.Get(":authority"), ""), Path: method, Header: http.Header(in)})
	if err != nil {
		return err
	}
	return grpc.SetHeader(ctx, metadata.Pairs("echo-bin", string(data)))
}

func pickOf[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// The methods are the paths of gRPC, so that both protocols meet all matches.
var explainPaths = []string{"/grpc.testing.TestService/EmptyCall", "/grpc.testing.TestService/UnaryCall"}

// randomConfig is a VirtualService of a few rules, most of which match little.
func (p *explainProperty) randomConfig() string {
	var b strings.Builder
	b.WriteString(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec:
  host: payment
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}, {name: none, labels: {version: v9}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http:
`)
	rules := 1 + p.random.IntN(5)
	for i := range rules {
		fmt.Fprintf(&b, "  - name: rule-%d\n", i)
		if i < rules-1 || p.random.IntN(4) == 0 {
			b.WriteString("    match:\n")
			for range 1 + p.random.IntN(2) {
				b.WriteString("    - {" + strings.Join(p.randomMatch(), ", ") + "}\n")
			}
		}
		b.WriteString(p.randomAction())
	}
	return b.String()
}

func (p *explainProperty) randomMatch() []string {
	r := p.random
	all := []func() string{
		func() string {
			return "uri: {exact: " + pickOf(r, explainPaths...) + "}"
		},
		func() string {
			return "uri: {prefix: " + pickOf(r, "/grpc", "/", "/other", explainPaths[0], "/GRPC.testing") + "}, ignoreUriCase: " + strconv.FormatBool(r.IntN(2) == 0)
		},
		func() string {
			return `uri: {regex: "` + pickOf(r, "/grpc.*Call", ".*Empty.*", "/[a-z]+") + `"}`
		},
		func() string {
			return "headers: {x-user: {" + pickOf(r, "exact: ann", "prefix: b", `regex: "[a-b].*"`, `regex: "*"`) + "}}"
		},
		func() string {
			return "withoutHeaders: {x-user: {" + pickOf(r, "exact: ann", "prefix: b") + "}}"
		},
		func() string { return "method: {exact: " + pickOf(r, "GET", "POST") + "}" },
		func() string { return "queryParams: {v: {exact: " + pickOf(r, `"1"`, `"2"`) + "}}" },
		func() string { return "authority: {prefix: " + pickOf(r, "payment", "other") + "}" },
	}
	var match []string
	for i, n := range r.Perm(len(all)) {
		clause := all[n]()
		if i > 0 && (strings.HasPrefix(clause, "uri") && slices.ContainsFunc(match, func(m string) bool { return strings.HasPrefix(m, "uri") })) {
			continue
		}
		if match = append(match, clause); r.IntN(2) == 0 {
			break
		}
	}
	return match
}

func (p *explainProperty) randomAction() string {
	r := p.random
	switch r.IntN(8) {
	case 0:
		return fmt.Sprintf("    directResponse: {status: %d, body: {string: made}}\n", pickOf(r, 200, 404, 503))
	case 1:
		return pickOf(r,
			"    redirect: {uri: /elsewhere}\n", "    redirect: {authority: other.shop, redirectCode: 307}\n",
			"    redirect: {scheme: https, uri: /secure}\n")
	}
	var b strings.Builder
	switch r.IntN(4) {
	case 0:
		b.WriteString("    route: [{destination: {host: payment, subset: v1}, weight: 50}, {destination: {host: payment, subset: v2}, weight: 50}]\n")
	case 1:
		b.WriteString("    route: [{destination: {host: payment, subset: " + pickOf(r, "v1", "v2", "none") + "}}]\n")
	default:
		b.WriteString("    route: [{destination: {host: payment}}]\n")
	}
	if r.IntN(4) == 0 {
		b.WriteString("    fault: {abort: {percentage: {value: " + pickOf(r, "100", "0") + "}, " + pickOf(r, "httpStatus: 418", "grpcStatus: DATA_LOSS") + "}}\n")
	}
	if r.IntN(3) == 0 {
		b.WriteString("    timeout: " + pickOf(r, "2s", "700ms") + "\n")
	}
	if r.IntN(2) == 0 {
		b.WriteString("    retries: {attempts: " + pickOf(r, "0}", `1, retryOn: "5xx,unavailable"}`, `3, retryOn: "5xx,unavailable", perTryTimeout: 300ms}`,
			`2, retryOn: "connect-failure"}`) + "\n")
	}
	if r.IntN(3) == 0 {
		b.WriteString("    rewrite: " + pickOf(r, "{authority: rewritten.example}", "{uri: "+explainPaths[1]+"}") + "\n")
	}
	if r.IntN(3) == 0 {
		b.WriteString("    headers: {request: {set: {x-set: one}, remove: [x-user]}}\n")
	}
	return b.String()
}

func (p *explainProperty) randomHeader() map[string]string {
	r := p.random
	header := make(map[string]string)
	if r.IntN(2) == 0 {
		header["x-user"] = pickOf(r, "ann", "bob", "eve")
	}
	switch r.IntN(6) {
	case 0:
		header[failHeader] = "yes"
	case 1, 2:
		header[slowHeader] = "yes"
	}
	if r.IntN(3) > 0 {
		header["idempotency-key"] = "once"
	}
	switch r.IntN(8) {
	case 0:
		header["x-envoy-upstream-rq-timeout-ms"] = "600"
	case 1:
		header["x-envoy-max-retries"] = "1"
	}
	return header
}

// longest bounds the calls that no route bounds.
const longest = 10 * time.Second

// hedgeDelay is shorter than all timeouts.
const hedgeDelay = 100 * time.Millisecond

// withOptions is a context with options of the application, or without.
func (p *explainProperty) withOptions(ctx context.Context) context.Context {
	if p.random.IntN(2) == 0 {
		return ctx
	}
	o := mesh.CallOptions{Timeout: time.Duration(p.random.IntN(3)) * 400 * time.Millisecond}
	if p.random.IntN(2) == 0 {
		o.MaxRetries = new(uint32(p.random.IntN(3)))
	}
	switch p.random.IntN(8) {
	case 0:
		o.Timeout = -1
	case 1:
		o.MinTime = time.Second
	case 2:
		o.MinTime = time.Minute
	}
	if p.random.IntN(3) == 0 {
		o.Locality = balancer.Locality{Region: pickOf(p.random, "eu", "us", "asia"), Zone: pickOf(p.random, "", "a", "b")}
	}
	if p.random.IntN(2) == 0 {
		o.Hedge = &retry.Hedge{Delay: hedgeDelay}
	}
	return mesh.WithCall(ctx, o)
}

func (p *explainProperty) checkHTTP(t *testing.T) {
	r := p.random
	ctx, cancel := context.WithTimeout(t.Context(), longest)
	defer cancel()
	path := pickOf(r, append(slices.Clone(explainPaths), "/", "/other", "/grpc")...)
	req, err := http.NewRequestWithContext(p.withOptions(ctx), pickOf(r, "GET", "POST"), "http://payment.shop"+path+pickOf(r, "", "?v=1", "?v=2"), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range p.randomHeader() {
		req.Header.Set(name, value)
	}
	if r.IntN(5) == 0 {
		req.Host = pickOf(r, "payment", "payment.shop.svc:80", "other", "unknown.example")
	}
	explained, err := p.customer.Explain(req)
	if err != nil {
		t.Fatal(err)
	}
	p.world.ResetCalls()
	start := time.Now()
	resp, err := p.customer.Transport().RoundTrip(req)
	got := happened{err: err, took: time.Since(start)}
	if err == nil {
		got.status, got.location = resp.StatusCode, resp.Header.Get("Location")
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		_ = json.Unmarshal(body, &got.echo)
	}
	p.check(t, explained, &got, req.Header.Get(failHeader) != "", req.Header.Get(slowHeader) != "")
}

func (p *explainProperty) checkGRPC(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), longest)
	defer cancel()
	header := p.randomHeader()
	ctx = p.withOptions(metadata.NewOutgoingContext(ctx, metadata.New(header)))
	method := pickOf(p.random, explainPaths...)
	explained, err := p.customer.ExplainRPC(ctx, "mesh:///payment.shop:9090", method)
	if err != nil {
		t.Fatal(err)
	}
	p.world.ResetCalls()
	var md metadata.MD
	start := time.Now()
	err = p.channel.Invoke(ctx, method, &grpc_testing.Empty{}, &grpc_testing.Empty{}, grpc.Header(&md))
	got := happened{grpc: true, code: status.Code(err), err: err, took: time.Since(start)}
	if values := md.Get("echo-bin"); len(values) == 1 {
		_ = json.Unmarshal([]byte(values[0]), &got.echo)
	}
	p.check(t, explained, &got, header[failHeader] != "", header[slowHeader] != "")
}

// happened is what became of a call.
type happened struct {
	grpc     bool
	status   int
	location string
	code     codes.Code
	err      error
	took     time.Duration
	echo     echoed
}

func (p *explainProperty) check(t *testing.T, e *mesh.Explanation, got *happened, fails, slow bool) {
	calls := p.world.Calls()
	if len(calls) != 1 {
		t.Fatalf("%d calls", len(calls))
	}
	call := calls[0]
	wrong := func(format string, args ...any) {
		t.Helper()
		t.Errorf(format+"\nexplained:\n%v\nhappened: %v, route %q, cluster %q, after %v: %+v\nconfiguration:%s",
			append(args, e, call, call.Route, call.Cluster, got.took, got, p.yaml)...)
	}
	p.verdicts[e.Protocol+" "+string(e.Verdict)]++
	routed := ""
	if e.Route != nil {
		routed = e.Route.Name
	}
	if routed != call.Route {
		wrong("another route")
	}
	aborted := e.Verdict == mesh.VerdictFilter
	if aborted != slices.ContainsFunc(e.Filters, func(f mesh.ExplainedFilter) bool { return f.Enabled }) && e.Route != nil {
		wrong("a filter that aborts always, and another verdict")
	}
	switch {
	case e.Verdict == mesh.VerdictNoRoute:
		if call.Outcome.Kind != outcome.NoRoute {
			wrong("no failure for want of a route")
		}
		return
	case aborted:
		p.verdicts[e.Protocol+" aborted"]++
		if call.Outcome.Kind != outcome.Local || len(call.Attempts) > 0 {
			wrong("no abort")
		}
		if !got.grpc && got.status != e.Answer.Status && got.status != http.StatusOK || got.grpc && got.code.String() != e.Answer.GRPCCode {
			wrong("another answer")
		}
		return
	case e.Answer != nil:
		if call.Outcome.Kind != outcome.Local || !got.grpc && (got.status != e.Answer.Status || got.location != e.Answer.Location) {
			wrong("another answer")
		}
		if got.grpc && got.code.String() != e.Answer.GRPCCode && got.code != codes.Unavailable {
			wrong("another code")
		}
		return
	case e.Verdict == mesh.VerdictNoTime:
		if call.Outcome.Kind != outcome.Timeout || len(call.Attempts) > 0 || !strings.HasPrefix(e.Reason, "not sent: ") {
			wrong("it was sent")
		}
		return
	case e.Verdict != mesh.VerdictForward && e.Verdict != mesh.VerdictNoEndpoint:
		wrong("a verdict that cannot be")
		return
	}
	p.checkForwarded(e, &call, got, fails, slow, wrong)
}

func (p *explainProperty) checkForwarded(e *mesh.Explanation, call *meshtest.Call, got *happened, fails, slow bool, wrong func(string, ...any)) {
	i := slices.IndexFunc(e.Choices, func(c mesh.ExplainedChoice) bool { return c.Cluster == call.Cluster && c.Weight > 0 })
	if i < 0 {
		wrong("a cluster that is no choice")
		return
	}
	var candidates []string
	for _, endpoint := range e.Cluster.Endpoints {
		if endpoint.Candidate {
			candidates = append(candidates, endpoint.Address)
		}
	}
	if !e.Choices[i].Chosen { // another draw
		if e.Draw == nil || e.Draw.By != "random" {
			wrong("another cluster, without a draw")
		}
		return
	}
	if (len(candidates) == 0) != (e.Verdict == mesh.VerdictNoEndpoint) {
		wrong("a verdict that is not that of its endpoints")
	}
	if len(candidates) == 0 {
		p.verdicts[e.Protocol+" without candidates"]++
		if call.Outcome.Kind != outcome.NoEndpoint {
			wrong("no failure for want of an endpoint")
		}
		return
	}
	attempts := slices.Clone(call.Attempts) // as they have ended, of which the order is chance for hedges
	slices.SortStableFunc(attempts, func(a, b meshtest.Attempt) int { return a.Start.Compare(b.Start) })
	for i, a := range attempts {
		if !slices.Contains(candidates, a.Endpoint) && !isElsewhere(e, i, len(candidates), a.Endpoint) {
			wrong("endpoint %q, which is no candidate", a.Endpoint)
		}
	}
	if got.code == codes.Unimplemented { // a rewrite has made it another method
		if slices.Contains(explainPaths, e.Sent.Path) {
			wrong("the method arrived as another one")
		}
		return
	}
	p.checkAttempts(e, call, got, fails, slow, wrong)
	if fails || slow || got.err != nil && !got.grpc {
		return
	}
	if e.Sent.Path != got.echo.Path || e.Sent.Host != got.echo.Host {
		wrong("sent as %q %q", got.echo.Host, got.echo.Path)
	}
	for _, name := range e.Sent.Set {
		if !hasHeader(got.echo.Header, name) {
			wrong("header %q did not arrive", name)
		}
	}
	for _, name := range e.Sent.Removed {
		if hasHeader(got.echo.Header, name) {
			wrong("header %q arrived", name)
		}
	}
}

// isElsewhere reports whether an endpoint is one of those that retries go to when each
// of the preferred locality has been tried.
func isElsewhere(e *mesh.Explanation, before, candidates int, address string) bool {
	return e.Retry != nil && e.Retry.OtherEndpoints && before >= candidates &&
		slices.ContainsFunc(e.Cluster.Endpoints, func(other mesh.ExplainedEndpoint) bool {
			return other.Address == address && strings.HasPrefix(other.Why, "the call prefers the locality ")
		})
}

func hasHeader(h http.Header, name string) bool {
	for key := range h {
		if strings.EqualFold(key, name) {
			return true
		}
	}
	return false
}

// checkAttempts holds retries and timeouts against what they say.
func (p *explainProperty) checkAttempts(e *mesh.Explanation, call *meshtest.Call, got *happened, fails, slow bool, wrong func(string, ...any)) {
	attempts := 1
	if fails && e.Retry != nil && retriedOn(e.Retry.On, got.grpc) {
		attempts += int(e.Retry.Max)
	}
	limit := longest
	if t := time.Duration(e.Timeouts.Call); t > 0 {
		limit = min(limit, t)
	}
	if !slow {
		if len(call.Attempts) != attempts {
			wrong("want %d attempts", attempts)
		}
		return
	}
	hedged := slices.ContainsFunc(call.Attempts, func(a meshtest.Attempt) bool { return a.Start.Sub(call.Start) == hedgeDelay })
	if hedged != (e.Retry != nil && e.Retry.Hedge != "") {
		wrong("hedged: %t", hedged)
	}
	if hedged {
		p.verdicts[e.Protocol+" hedged"]++
	}
	try := time.Duration(e.Timeouts.Try)
	switch {
	case try > 0:
		p.verdicts[e.Protocol+" per try"]++
		first := call.Attempts[0]
		if took := first.End.Sub(first.Start); took != try {
			wrong("an attempt took %v", took)
		}
	case got.took != limit || !timedOut(call.Outcome, got):
		wrong("want a timeout after %v", limit)
	}
}

// timedOut reports whether the time of the call was up. The payment, which was told
// it, may notice at the same moment and be the first to say so.
func timedOut(o outcome.Outcome, got *happened) bool {
	return got.status == http.StatusGatewayTimeout || o.Kind == outcome.Timeout || got.code == codes.DeadlineExceeded || errors.Is(got.err, context.DeadlineExceeded)
}

// retriedOn reports whether the failure of echo is one of the conditions.
func retriedOn(conditions string, grpc bool) bool {
	wanted := "5xx"
	if grpc {
		wanted = "unavailable"
	}
	return slices.Contains(strings.Split(conditions, ","), wanted)
}

// checkExplainCoverage sees to it that the test shows something.
func checkExplainCoverage(t *testing.T, verdicts chan map[string]int) {
	close(verdicts)
	sum := make(map[string]int)
	worlds := 0
	for v := range verdicts {
		worlds++
		for verdict, n := range v {
			sum[verdict] += n
		}
	}
	t.Log(sum)
	if worlds < cap(verdicts) {
		return // it has failed
	}
	if racing.Enabled {
		return // a quarter of the configurations need not meet what is rare
	}
	for _, protocol := range []string{"http ", "grpc "} {
		for _, verdict := range []string{"forward", "direct-response", "redirect", "no-route", "aborted", "without candidates", "no-time", "hedged", "per try"} {
			if sum[protocol+verdict] == 0 {
				t.Errorf("no call had the verdict %s%s", protocol, verdict)
			}
		}
	}
}
