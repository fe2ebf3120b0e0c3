package istio_test

// dnsProblems are those of services whose names clients resolve.
var dnsProblems = []problemCase{
	{name: "names of endpoints", yaml: `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a.example.com]
  resolution: DNS
  ports: [{name: http, number: 80, protocol: HTTP}]
  endpoints: [{address: one.example.com}, {address: "*.example.com"}, {address: unix:///a}, {address: one.example.com}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: b}
spec:
  hosts: [b.example.com]
  resolution: DNS_ROUND_ROBIN
  ports: [{name: http, number: 80, protocol: HTTP}]
  endpoints: [{address: one.example.com}, {address: two.example.com}]
`, want: []string{
		`x.yaml:8:53: ServiceEntry default/a: spec.endpoints[1].address: "*.example.com" is neither an IP address nor a host name: write names in lower case`,
		`x.yaml:8:81: ServiceEntry default/a: spec.endpoints[2].address: "unix:///a" is neither an IP address nor a host name: write names in lower case`,
		"x.yaml:8:103: ServiceEntry default/a: spec.endpoints[3].address: one.example.com:80 is already an endpoint: ServiceEntry default/a (x.yaml:1)",
		"x.yaml:17:14: ServiceEntry default/b: spec.endpoints: 2 endpoints: resolution DNS_ROUND_ROBIN can have one, or none for the host itself",
	}},
}
