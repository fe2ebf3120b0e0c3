package istio_test

var balancerAnnotationProblems = []problemCase{
	{name: "annotations that say nothing of load balancing", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: a
  namespace: shop
  annotations:
    inboard.balancer: "{name: x, config: 7}"
    inboard.subsetting: "{size: 1.5, peers: 2}"
spec: {host: a}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: b
  namespace: shop
  annotations:
    inboard.balancer: "on"
    inboard.subsetting: "{"
spec: {host: b}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: c
  namespace: shop
  annotations:
    inboard.balancer: "{policy: inboard.peak_emwa}"
spec: {host: c}
`, want: []string{
		"x.yaml:7:23: DestinationRule shop/a: metadata.annotations[inboard.balancer]: config: must be an object",
		`x.yaml:7:23: DestinationRule shop/a: metadata.annotations[inboard.balancer]: unknown field "name": use policy, config`,
		"x.yaml:7:23: DestinationRule shop/a: metadata.annotations[inboard.balancer]: policy: must be the name of a policy",
		`x.yaml:8:25: DestinationRule shop/a: metadata.annotations[inboard.subsetting]: unknown field "peers": use size`,
		"x.yaml:8:25: DestinationRule shop/a: metadata.annotations[inboard.subsetting]: size: must be a whole number in 1..1048576",
		`x.yaml:9:14: DestinationRule shop/a: spec.host: no Service or ServiceEntry has the host "a.shop.svc.cluster.local"`,
		"x.yaml:17:23: DestinationRule shop/b: metadata.annotations[inboard.balancer]: expected an object like {policy: inboard.peak_ewma}",
		"x.yaml:18:25: DestinationRule shop/b: metadata.annotations[inboard.subsetting]: not valid YAML: line 1: did not find expected node content",
		`x.yaml:19:14: DestinationRule shop/b: spec.host: no Service or ServiceEntry has the host "b.shop.svc.cluster.local"`,
		`x.yaml:27:23: DestinationRule shop/c: metadata.annotations[inboard.balancer]: policy: "inboard.peak_emwa": of the names that begin with "inboard." there is inboard.peak_ewma only`,
		`x.yaml:28:14: DestinationRule shop/c: spec.host: no Service or ServiceEntry has the host "c.shop.svc.cluster.local"`,
	}},
}
