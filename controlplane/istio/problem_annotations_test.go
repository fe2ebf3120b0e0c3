package istio_test

var annotationProblems = []problemCase{
	{name: "a breaker", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: a
  namespace: shop
  annotations:
    inboard.breaker: "{failureRatio: 1.5, minimumRequests: 0, window: soon, openTime: 0s, halfOpenProbes: [], ratio: 1, window: 1s}"
spec: {host: payment}
`, want: []string{
		`x.yaml:7:22: DestinationRule shop/a: metadata.annotations[inboard.breaker]: failureRatio: "1.5" is not greater than 0 and at most 1`,
		`x.yaml:7:22: DestinationRule shop/a: metadata.annotations[inboard.breaker]: minimumRequests: "0" is not a whole number in 1..4294967295`,
		`x.yaml:7:22: DestinationRule shop/a: metadata.annotations[inboard.breaker]: window: "soon" is not a positive duration like 10s`,
		`x.yaml:7:22: DestinationRule shop/a: metadata.annotations[inboard.breaker]: openTime: "0s" is not a positive duration like 10s`,
		`x.yaml:7:22: DestinationRule shop/a: metadata.annotations[inboard.breaker]: halfOpenProbes: "" is not a whole number in 1..4294967295`,
		`x.yaml:7:22: DestinationRule shop/a: metadata.annotations[inboard.breaker]: unknown field "ratio": use failureRatio, halfOpenProbes, minimumRequests, openTime, scope, window`,
		`x.yaml:7:22: DestinationRule shop/a: metadata.annotations[inboard.breaker]: "window" is set twice`,
	}},
	{name: "a throttle", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: a
  namespace: shop
  annotations:
    inboard.retry_throttle: "{maxTokens: 1001, tokenratio: 1}"
    inboard.hedge: "{}"
spec: {host: payment}
`, want: []string{
		`x.yaml:7:29: DestinationRule shop/a: metadata.annotations[inboard.retry_throttle]: maxTokens: "1001" is not greater than 0 and at most 1000`,
		`x.yaml:7:29: DestinationRule shop/a: metadata.annotations[inboard.retry_throttle]: unknown field "tokenratio": use maxTokens, tokenRatio`,
		`x.yaml:7:29: DestinationRule shop/a: metadata.annotations[inboard.retry_throttle]: tokenRatio: is required, as in {maxTokens: 10, tokenRatio: 0.1}`,
		`x.yaml:8:5: DestinationRule shop/a: metadata.annotations[inboard.hedge]: belongs on a VirtualService`,
	}},
	{name: "a ratio of a throttle that counts nothing", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop, annotations: {inboard.retry_throttle: "{maxTokens: 10, tokenRatio: .0001}"}}
spec: {host: payment}
`, want: []string{
		`x.yaml:3:76: DestinationRule shop/a: metadata.annotations[inboard.retry_throttle]: tokenRatio: ".0001" is not a number in 0.001..1000`,
	}},
	{name: "a hedge and a minimum of time", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: a
  namespace: shop
  annotations:
    inboard.hedge: "{maxAttempts: 1, wait: 1s}"
    inboard.deadline: "{minimum: -1s}"
    inboard.retry_throttle: "{}"
spec: {hosts: [payment], http: [{route: [{destination: {host: payment}}]}]}
`, want: []string{
		`x.yaml:7:20: VirtualService shop/a: metadata.annotations[inboard.hedge]: maxAttempts: "1" is not a whole number in 2..4294967295`,
		`x.yaml:7:20: VirtualService shop/a: metadata.annotations[inboard.hedge]: unknown field "wait": use delay, maxAttempts`,
		`x.yaml:7:20: VirtualService shop/a: metadata.annotations[inboard.hedge]: delay: is required, as in {delay: 50ms, maxAttempts: 3}`,
		`x.yaml:8:23: VirtualService shop/a: metadata.annotations[inboard.deadline]: minimum: "-1s" is not a positive duration like 10s`,
		`x.yaml:9:5: VirtualService shop/a: metadata.annotations[inboard.retry_throttle]: belongs on a DestinationRule`,
	}},
	{name: "a breaker that is no object", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop, annotations: {inboard.breaker: "on"}}
spec: {host: payment}
`, want: []string{
		"x.yaml:3:69: DestinationRule shop/a: metadata.annotations[inboard.breaker]: expected an object like {failureRatio: 0.5, minimumRequests: 20, window: 10s, openTime: 5s, halfOpenProbes: 3}",
	}},
	{name: "a breaker that is not YAML", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop, annotations: {inboard.breaker: "{"}}
spec: {host: payment}
`, want: []string{
		"x.yaml:3:69: DestinationRule shop/a: metadata.annotations[inboard.breaker]: not valid YAML: line 1: did not find expected node content",
	}},
}
