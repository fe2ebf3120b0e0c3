package mesh_test

import (
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// The rule of docs/connections.md is accepted without a warning, and upgrades.
func TestThePageOfConnectionsIsTrue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		protocols := make(chan string, 2)
		w.Service("payment.shop", meshtest.HTTP(80, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { protocols <- r.Proto })))
		customer := w.Workload("customer.shop")
		call := func() string {
			resp, err := customer.Transport().RoundTrip(request(t, http.MethodGet, "http://payment.shop/"))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			return <-protocols
		}
		before := call()
		rules := 0
		for _, block := range pageBlocks(t, "../docs/connections.md") {
			if block.language == "yaml" {
				w.Apply(block.text)
				rules++
			}
		}
		if warnings := w.Warnings(); len(warnings) > 0 || rules != 1 {
			t.Errorf("%d rules, warnings %q", rules, warnings)
		}
		if after := call(); before != "HTTP/1.1" || after != "HTTP/2.0" {
			t.Errorf("%s without the rule and %s with it", before, after)
		}
	})
}
