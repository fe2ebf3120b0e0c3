package meshtest_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// BenchmarkStart is what a test pays for its mesh: a control plane, three
// services, a configuration, a workload and its first call, and taking it all
// down. The baseline is three servers of httptest and a call.
func BenchmarkStart(b *testing.B) {
	names := []string{"order.shop", "payment.shop", "ledger.bank"}
	b.Run("meshtest", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s := new(scope)
			w := meshtest.New(s)
			for _, name := range names {
				w.Service(name)
			}
			w.Apply(retryYAML)
			call(b, w.Workload("customer.shop").HTTPClient(), "http://payment.shop/")
			s.end()
			if len(s.failures) > 0 {
				b.Fatal(s.failures)
			}
		}
	})
	b.Run("httptest", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var last *httptest.Server
			servers := make([]*httptest.Server, 0, len(names))
			for range names {
				last = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
				servers = append(servers, last)
			}
			call(b, last.Client(), last.URL)
			for _, server := range servers {
				server.Close()
			}
		}
	})
}

func call(b *testing.B, client *http.Client, url string) {
	b.Helper()
	resp, err := client.Get(url)
	if err != nil {
		b.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b.Fatalf("status %d", resp.StatusCode)
	}
}
