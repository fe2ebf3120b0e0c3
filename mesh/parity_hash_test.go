package mesh_test

import (
	"strings"
	"testing"
)

// pair are two payments that balancing chooses between.
var pair = []parityEndpoint{{instance: "v1-a"}, {instance: "v1-b"}}

// hashed is a row in which calls with one key must stay with one payment, and
// calls with others must not all go there.
func hashed(name, setting string, with func(key string) parityCall) parityRow {
	return parityRow{
		name: "loadBalancer.consistentHash." + name, routes: noRetries + "\n  route: [{destination: {host: HOST}}]", endpoints: pair,
		rule: "trafficPolicy: {loadBalancer: {consistentHash: {" + setting + "}}}",
		run: func(t *testing.T, p *parityProbe) {
			instances := make(map[string]bool)
			for i := range 24 {
				key := strings.Repeat("k", i+1)
				first := p.call(t, with(key))
				by("*").check(t, p.parityProtocol, first)
				if again := p.call(t, with(key)); again.Instance != first.Instance {
					t.Errorf("key %q went to %s and then to %s", key, first.Instance, again.Instance)
				}
				instances[first.Instance] = true
			}
			// That 24 keys all hash to one of two payments happens once in 8 million
			// choices of keys, and these are always the same ones.
			if len(instances) != 2 {
				t.Errorf("all keys went to %v", instances)
			}
		},
	}
}

func parityHashRows() []parityRow {
	header := func(name string) func(string) parityCall {
		return func(key string) parityCall { return parityCall{header: map[string]string{name: key}} }
	}
	query := hashed("httpQueryParameterName", "httpQueryParameterName: user", func(key string) parityCall { return parityCall{query: "user=" + key} })
	ofHTTP := query.run
	query.run = func(t *testing.T, p *parityProbe) {
		if !p.grpc {
			ofHTTP(t, p)
		}
	}
	query.why = "gRPC calls have no query"
	source := parityRow{
		name: "loadBalancer.consistentHash.useSourceIp", routes: noRetries + "\n  route: [{destination: {host: HOST}}]", endpoints: pair,
		rule: "trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}",
		run: func(t *testing.T, p *parityProbe) {
			first := p.call(t, parityCall{})
			by("*").check(t, p.parityProtocol, first)
			for range 12 {
				if r := p.call(t, parityCall{}); r.Instance != first.Instance {
					t.Errorf("calls of one process went to %s and %s", first.Instance, r.Instance)
				}
			}
		},
	}
	cookie := parityRow{
		name:   "loadBalancer.consistentHash.httpCookie that is made",
		routes: noRetries + "\n  route: [{destination: {host: HOST}}]", endpoints: pair,
		rule: "trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: user, path: /p, ttl: 60s, attributes: [{name: SameSite, value: Lax}]}}}}",
		run: func(t *testing.T, p *parityProbe) {
			first := p.call(t, parityCall{})
			by("*").check(t, p.parityProtocol, first)
			set := strings.Join(first.header("Set-Cookie"), "\n")
			value, attributes, _ := strings.Cut(set, ";")
			if want := " Max-Age=60; Path=/p; SameSite=Lax; HttpOnly"; attributes != want || !strings.HasPrefix(value, `user="`) {
				t.Fatalf("Set-Cookie is %q, want a cookie user with the attributes%s", set, want)
			}
			for range 6 {
				r := p.call(t, parityCall{header: map[string]string{"cookie": "a=b; " + value}})
				if r.Instance != first.Instance || r.header("Set-Cookie") != nil {
					t.Errorf("with the cookie: %s and %q, want %s and no other cookie", r.Instance, r.header("Set-Cookie"), first.Instance)
				}
			}
		},
	}
	port := hashed("httpHeaderName of a port", "", header("x-user"))
	port.rule = "trafficPolicy: {loadBalancer: {simple: RANDOM}, portLevelSettings: ["
	for i, p := range parityProtocols {
		if i > 0 {
			port.rule += ", "
		}
		port.rule += "{port: {number: " + p.port + "}, loadBalancer: {consistentHash: {httpHeaderName: x-user}}}"
	}
	port.rule += "]}"
	subset := hashed("httpHeaderName of a subset", "", header("x-user"))
	subset.routes = noRetries + "\n  route: [{destination: {host: HOST, subset: v1}}]"
	subset.rule = "trafficPolicy: {loadBalancer: {simple: RANDOM}}\nsubsets: [{name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}]"
	return []parityRow{
		hashed("httpHeaderName", "httpHeaderName: X-User", header("x-user")),
		hashed("httpHeaderName, ringHash", "httpHeaderName: X-User, ringHash: {minimumRingSize: 64}", header("x-user")),
		hashed("httpHeaderName, minimumRingSize", "httpHeaderName: X-User, minimumRingSize: 64", header("x-user")),
		hashed("httpHeaderName, maglev", "httpHeaderName: X-User, maglev: {tableSize: 101}", header("x-user")),
		hashed("httpCookie", "httpCookie: {name: user}", func(key string) parityCall {
			return parityCall{header: map[string]string{"cookie": "user=" + key}}
		}),
		query, source, cookie, subset,
		warmed("warmup", "warmup: {duration: 3600s, minimumPercent: 1, aggression: 1}"),
		warmed("warmupDurationSecs", "warmupDurationSecs: 3600s"),
		port,
	}
}

// warmed is a row about slow start. Both payments are new at once, so that both
// have their usual shares: how they would differ is shown in fake time.
func warmed(name, setting string) parityRow {
	return parityRow{
		name: "loadBalancer." + name, routes: noRetries + "\n  route: [{destination: {host: HOST}}]", endpoints: pair,
		rule: "trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, " + setting + "}}",
		run: func(t *testing.T, p *parityProbe) {
			got := make(map[string]int)
			for range 40 {
				r := p.call(t, parityCall{})
				by("*").check(t, p.parityProtocol, r)
				got[r.Instance]++
			}
			if len(got) != 2 {
				t.Errorf("calls went to %v, want both payments", got)
			}
		},
	}
}
