package istio_test

import (
	"fmt"
	"os"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

func ExampleParse() {
	config, problems := istio.Parse([]istio.File{{Name: "payment.yaml", Data: []byte(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{name: http, number: 8080, protocol: HTTP}]
  endpoints: [{address: 10.0.0.1, serviceAccount: payment}]
`)}}, istio.Options{})
	if len(problems) > 0 {
		fmt.Println(problems)
		return
	}
	customer := istio.Node{Namespace: "shop"}
	for _, name := range config.Names(customer, resource.ClusterType) {
		m, _ := config.Resource(customer, resource.ClusterType, name)
		fmt.Println(name, m.(*clusterv3.Cluster).GetLbPolicy())
	}
	_, found := config.Resource(customer, resource.ListenerType, "payment:8080")
	fmt.Println("payment:8080", found)
	// Output:
	// outbound|8080||payment.shop.svc.cluster.local LEAST_REQUEST
	// payment:8080 true
}

func ExampleParse_problems() {
	_, problems := istio.Parse([]istio.File{{Name: "reviews.yaml", Data: []byte(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - fault: {abort: {http2Error: REFUSED_STREAM}}
    route:
    - destination: {host: reviews}
`)}}, istio.Options{})
	for _, p := range problems {
		fmt.Println(p)
	}
	// Output:
	// reviews.yaml:6:11: VirtualService shop/reviews: spec.hosts[0]: no Service or ServiceEntry has the host "reviews.shop.svc.cluster.local"
	// reviews.yaml:8:21: VirtualService shop/reviews: spec.http[0].fault.abort.http2Error: is not supported: remove it
	// reviews.yaml:10:27: VirtualService shop/reviews: spec.http[0].route[0].destination.host: no Service or ServiceEntry has the host "reviews.shop.svc.cluster.local"
}

func ExampleReadDir() {
	files, err := istio.ReadDir(os.DirFS("testdata/shop"))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range files {
		fmt.Println(f.Name)
	}
	// Output:
	// services.yaml
	// traffic.yaml
}

func ExampleProblem_String() {
	fmt.Println(istio.Problem{
		File: "payment.yaml", Line: 7, Column: 3,
		Object: "VirtualService shop/payment", Field: "spec.http[0].mirror", Message: "is not supported: remove it",
	})
	// Output:
	// payment.yaml:7:3: VirtualService shop/payment: spec.http[0].mirror: is not supported: remove it
}

func ExampleConfig_Names() {
	config, _ := istio.Parse([]istio.File{{Name: "shop.yaml", Data: []byte(shop)}}, istio.Options{})
	for _, name := range config.Names(istio.Node{}, resource.ListenerType) {
		fmt.Println(name)
	}
	// Output:
	// ledger.bank.svc.cluster.local:7070
	// payment.shop.svc.cluster.local:8080
	// payment.shop.svc.cluster.local:9090
}
