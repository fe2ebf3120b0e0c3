package meshtest_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// teapot is a Listener whose requests are answered with a body, by the mesh itself.
func teapot(status int, body string) proto.Message {
	l := new(listenerv3.Listener)
	err := protojson.Unmarshal(fmt.Appendf(nil, `{"name": "payment.shop:80", "apiListener": {"apiListener": {
		"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"httpFilters": [{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
		"routeConfig": {"virtualHosts": [{"name": "h", "domains": ["*"], "routes": [
			{"match": {"prefix": "/"}, "directResponse": {"status": %d, "body": {"inlineString": %q}}}]}]}}}}`, status, body), l)
	if err != nil {
		panic(err)
	}
	return l
}

// Resources that no YAML says: here, what another control plane would send.
func ExampleWorld_Push() {
	test := func(t meshtest.TB) { // in your code: func TestTeapot(t *testing.T)
		w := meshtest.New(t)
		client := w.Workload("customer.shop").HTTPClient()
		w.Push(teapot(418, "short and stout")) // a *listenerv3.Listener
		resp, err := client.Get("http://payment.shop/")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Println(resp.StatusCode, string(body))
	}
	run(test)
	// Output: 418 short and stout
}

func TestPushedResourcesTakeThePlaceOfYAML(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		w.Service("payment.shop")
		client := w.Workload("customer.shop").HTTPClient()
		status := func() int {
			t.Helper()
			resp, err := client.Get("http://payment.shop/")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			return resp.StatusCode
		}
		if got := status(); got != http.StatusOK {
			t.Errorf("status %d", got)
		}
		w.Push(teapot(418, ""))
		if got := status(); got != 418 {
			t.Errorf("status %d after a push", got)
		}
		// What is refused changes nothing.
		err := w.TryPush(teapot(418, ""), teapot(418, ""))
		if err == nil || !strings.Contains(err.Error(), `there is another Listener "payment.shop:80"`) {
			t.Errorf("two of one name: %v", err)
		}
		if err := w.TryPush(teapot(99, "")); err == nil || !strings.Contains(err.Error(), "status") {
			t.Errorf("a status that is none: %v", err)
		}
		if got := status(); got != 418 {
			t.Errorf("status %d after pushes that were refused", got)
		}
		if err := w.TryPush(teapot(500, "")); err != nil || status() != 500 {
			t.Errorf("a good push: %v", err)
		}
		w.Apply("")
		if got := status(); got != http.StatusOK {
			t.Errorf("status %d with YAML again", got)
		}
	})
}
