package offline_test

import (
	"fmt"
	"testing"

	"github.com/inboardmesh/inboard/controlplane"
	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/discovery/xds"
)

// BenchmarkUpdate is one endpoint that changes among 1,000 services, each with routes:
// what a control plane does before it serves. The baseline does not ask the clients'
// decoder.
func BenchmarkUpdate(b *testing.B) {
	files := make([]istio.File, 1000)
	service := func(i, address int) istio.File {
		return istio.File{Name: fmt.Sprint(i, ".yaml"), Data: fmt.Appendf(nil, `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: s%[1]d, namespace: shop}
spec:
  hosts: [s%[1]d.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
  endpoints: [{address: 10.0.0.%[2]d, serviceAccount: s%[1]d}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s%[1]d, namespace: shop}
spec:
  hosts: [s%[1]d]
  http:
  - match: [{uri: {prefix: /a}}]
    route: [{destination: {host: s%[1]d}}]
  - route: [{destination: {host: s%[1]d}}]
`, i, address)}
	}
	for i := range files {
		files[i] = service(i, 1)
	}
	for _, c := range []struct {
		name  string
		check func(string, []byte) error
	}{{"checked", xds.Check}, {"unchecked", nil}} {
		b.Run(c.name, func(b *testing.B) {
			server, err := controlplane.New(controlplane.Config{Files: files, Check: c.check})
			if err != nil {
				b.Fatal(err)
			}
			defer server.Close()
			b.ReportAllocs()
			for n := 2; b.Loop(); n = 3 + n%250 {
				files[0] = service(0, n)
				if problems := server.Update(files); len(problems) > 0 {
					b.Fatal(problems)
				}
			}
		})
	}
}
