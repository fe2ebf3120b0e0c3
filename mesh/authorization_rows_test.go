package mesh_test

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

var authorizationProtocols = []string{"HTTP/1.1", "HTTP/2", "gRPC"}

// decisions applies one policy after the other and checks calls over each
// protocol.
func decisions(t *testing.T, cases map[string][]authorized) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newGuardedWorld(t)
		for spec, calls := range cases {
			w.Apply(authorizationYAML("shop", "", spec))
			for _, protocol := range authorizationProtocols {
				for _, call := range calls {
					w.check(t, protocol, call)
				}
			}
			if t.Failed() {
				t.Fatalf("in %s", spec)
			}
		}
	})
}

// TestBA05_V07_HeaderNamesOfAPolicyAreInAnyCase: and Host is the authority.
func TestBA05_V07_HeaderNamesOfAPolicyAreInAnyCase(t *testing.T) {
	t.Parallel()
	admin, user := authorized{customer, "/public", "admin", false}, authorized{customer, "/public", "user", true}
	decisions(t, map[string][]authorized{
		`{action: DENY, rules: [{when: [{key: "request.headers[X-Role]", values: [admin]}]}]}`:                                            {admin, user},
		`{action: DENY, rules: [{when: [{key: "request.headers[X-ROLE]", values: ["adm*"]}]}]}`:                                           {admin, user},
		`{action: DENY, rules: [{when: [{key: "request.headers[x-rOLE]", notValues: [user]}]}]}`:                                          {admin, user},
		`{action: DENY, rules: [{when: [{key: "request.headers[HOST]", values: ["payment.shop*"]}]}]}`:                                    {{customer, "/public", "", false}},
		`{action: DENY, rules: [{when: [{key: "request.headers[Host]", values: [PAYMENT.SHOP.svc.cluster.local, Payment.shop.svc.*]}]}]}`: {{customer, "/public", "", false}},
	})
}

// TestV09_DotsOfAPolicyAreDots: and what is compared is compared whole.
func TestV09_DotsOfAPolicyAreDots(t *testing.T) {
	t.Parallel()
	denied, allowed := authorized{customer, "/public", "admin", false}, authorized{customer, "/public", "admin", true}
	decisions(t, map[string][]authorized{
		`{rules: [{from: [{source: {principals: ["cluster.local/ns/s.op/sa/customer"]}}]}]}`:                  {denied},
		`{rules: [{from: [{source: {principals: ["cluster.local/ns/shop/sa/custome"]}}]}]}`:                   {denied},
		`{rules: [{from: [{source: {principals: ["cluster-local/ns/shop/sa/customer"]}}]}]}`:                  {denied},
		`{rules: [{from: [{source: {principals: ["cluster.local/ns/shop/sa/customer"]}}]}]}`:                  {allowed},
		`{rules: [{from: [{source: {namespaces: ["s.op"]}}]}]}`:                                               {denied},
		`{rules: [{from: [{source: {namespaces: ["sho"]}}]}]}`:                                                {denied},
		`{rules: [{from: [{source: {namespaces: ["s.*"]}}]}]}`:                                                {denied},
		`{rules: [{from: [{source: {namespaces: ["s*"]}}]}]}`:                                                 {allowed},
		`{rules: [{from: [{source: {trustDomains: ["cluster-local"]}}]}]}`:                                    {denied},
		`{rules: [{from: [{source: {trustDomains: ["cluster.loca"]}}]}]}`:                                     {denied},
		`{rules: [{from: [{source: {serviceAccounts: ["custome."]}}]}]}`:                                      {denied},
		`{rules: [{when: [{key: "request.headers[x-role]", values: ["admi."]}]}]}`:                            {denied},
		`{rules: [{when: [{key: "request.headers[x-role]", values: ["admi"]}]}]}`:                             {denied},
		`{rules: [{to: [{operation: {hosts: ["payment-shop.svc.cluster.local", "payment.shop.svc"]}}]}]}`:     {denied},
		`{action: DENY, rules: [{from: [{source: {notPrincipals: ["cluster.local/ns/s.op/sa/customer"]}}]}]}`: {denied},
	})
}

// TestV10_ATemplateKeepsToItsSegments.
func TestV10_ATemplateKeepsToItsSegments(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newGuardedWorld(t)
		for spec, want := range map[string]bool{
			`{rules: [{to: [{operation: {paths: ["/admin/{*}/x"]}}]}]}`:   false,
			`{rules: [{to: [{operation: {paths: ["/admin/{*}"]}}]}]}`:     false,
			`{rules: [{to: [{operation: {paths: ["/{*}"]}}]}]}`:           false,
			`{rules: [{to: [{operation: {paths: ["/admin/{**}"]}}]}]}`:    true,
			`{rules: [{to: [{operation: {paths: ["/{*}/{*}/{*}/x"]}}]}]}`: true,
		} {
			w.Apply(authorizationYAML("shop", "", spec))
			for _, protocol := range []string{"HTTP/1.1", "HTTP/2"} {
				w.check(t, protocol, authorized{customer, "/admin/a/b/x", "", want})
			}
		}
		w.Apply(authorizationYAML("shop", "", `{rules: [{to: [{operation: {paths: ["/{*}", "/{*}/EmptyCall/{*}"]}}]}]}`))
		w.check(t, "gRPC", authorized{customer, "/public", "", false})
		w.Apply(authorizationYAML("shop", "", `{rules: [{to: [{operation: {paths: ["/{*}/EmptyCall"]}}]}]}`))
		w.check(t, "gRPC", authorized{customer, "/public", "", true})
	})
}

// TestS36_APolicyChangesUnderLoad: calls go on while a policy comes and goes.
// Each gets what one of the two says, and what follows a change the new one.
func TestS36_APolicyChangesUnderLoad(t *testing.T) {
	t.Parallel()
	for _, protocol := range authorizationProtocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newGuardedWorld(t)
				const denies = `{action: DENY, rules: [{when: [{key: "request.headers[x-role]", values: [admin]}]}]}`
				w.Apply(authorizationYAML("shop", ""))
				client := grpc_testing.NewTestServiceClient(w.grpc[customer])
				done := make(chan struct{})
				var wg sync.WaitGroup
				var allowed, denied atomic.Int64
				for range 8 {
					wg.Go(func() { // until done
						for {
							select {
							case <-done:
								return
							case <-time.After(time.Millisecond):
							}
							if w.allows(t, protocol, client) {
								allowed.Add(1)
							} else {
								denied.Add(1)
							}
						}
					})
				}
				for range 5 {
					w.Apply(authorizationYAML("shop", "", denies))
					before := allowed.Load()
					time.Sleep(100 * time.Millisecond)
					if got := allowed.Load() - before; got > 8 { // those that were on their way
						t.Errorf("%d calls got through a policy that denies", got)
					}
					w.Apply(authorizationYAML("shop", ""))
					before = denied.Load()
					time.Sleep(100 * time.Millisecond)
					if got := denied.Load() - before; got > 8 {
						t.Errorf("%d calls were denied without a policy", got)
					}
				}
				close(done)
				wg.Wait()
				if allowed.Load() == 0 || denied.Load() == 0 || w.served.Load() != allowed.Load() {
					t.Errorf("allowed %d, denied %d, served %d", allowed.Load(), denied.Load(), w.served.Load())
				}
			})
		})
	}
}

// allows calls as an admin, and fails the test for any other outcome than yes and
// no.
func (w *guardedWorld) allows(t *testing.T, protocol string, client grpc_testing.TestServiceClient) bool {
	if protocol == "gRPC" {
		_, err := client.EmptyCall(metadata.AppendToOutgoingContext(t.Context(), "x-role", "admin"), &grpc_testing.Empty{})
		if code := status.Code(err); code != codes.OK && code != codes.PermissionDenied {
			t.Errorf("got %v", err)
		}
		return err == nil
	}
	resp := send(t, w.meshes[customer].Transport(), func(r *http.Request) {
		r.URL.Host = "payment.shop.svc.cluster.local:" + map[string]string{"HTTP/1.1": "80", "HTTP/2": "81"}[protocol]
		r.Host = r.URL.Host
		r.Header.Set("X-Role", "admin")
	})
	readAll(t, resp)
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusForbidden {
		t.Errorf("status %d", resp.StatusCode)
	}
	return resp.StatusCode == http.StatusOK
}
