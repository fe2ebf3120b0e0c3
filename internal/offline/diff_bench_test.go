package offline_test

import (
	"fmt"
	"testing"

	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/internal/ask"
	"github.com/inboardmesh/inboard/internal/offline"
)

// BenchmarkDiff compares 1,000 requests that are all different, as those of an access log.
func BenchmarkDiff(b *testing.B) {
	open := func() *offline.Mesh {
		m, err := offline.New([]istio.File{{Name: "x.yaml", Data: []byte(services + `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [payment]
  http:
  - match: [{headers: {x-user: {exact: ann}}}]
    route: [{destination: {host: payment}}]
  - route: [{destination: {host: payment, subset: v1}, weight: 90}, {destination: {host: payment, subset: v2}, weight: 10}]
`)}}, offline.Node{Namespace: "shop"})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := m.Close(); err != nil {
				b.Error(err)
			}
		})
		return m
	}
	before, after := open(), open()
	requests := make([]ask.Recorded, 1000)
	for i := range requests {
		requests[i] = ask.Recorded{Line: i + 1, Count: 1, Request: ask.Request{Method: "GET", URL: fmt.Sprint("http://payment.shop/a/", i)}}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := offline.Diff(b.Context(), before, after, requests); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(requests)), "us/request")
}
