package grpcmesh_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/calltest"
)

// roleCorpus are ways to say that somebody is an admin, as fields of HTTP/2.
var roleCorpus = [][][2]string{
	{{"x-role", "admin"}}, {{"X-Role", "admin"}},
	{{"x-role", "user"}, {"x-role", "admin"}}, {{"x-role", "admin"}, {"x-role", "user"}}, {{"x-role", "user"}, {"x-other", "a"}, {"x-role", "admin"}},
	{{"x-role", "user,admin"}}, {{"x-role", "admin,user"}}, {{"x-role", "user, admin"}}, {{"x-role", "user"}, {"x-role", "user,admin"}},
	{{"x-role", ""}, {"x-role", "admin"}}, {{"x-role", "admin"}, {"x-role", ""}}, {{"x-role", ",admin"}}, {{"x-role", "admin,"}},
	{{"x-role", " admin"}}, {{"x-role", "admin "}}, {{"x-role", "\tadmin\t"}}, {{"x-role", "user,\tadmin"}},
	{{"x-role", "admin\x00"}}, {{"x-role", "user\x00,admin"}}, {{"x-role", "\xe9,admin"}}, {{"x-role", "\xc3\xa9, admin"}}, {{"x-role", "user\n,admin"}},
	{{"x-role ", "admin"}}, {{"x-role\x00", "admin"}},
	append(slices.Repeat([][2]string{{"x-role", "user"}}, 100), [2]string{"x-role", "admin"}),
	append([][2]string{{"x-role", "admin"}}, slices.Repeat([][2]string{{"x-role", "user"}}, 100)...),
}

// TestV06_V08_D6_HeaderCorpusOfCalls: every way to write metadata that is denied,
// in frames made by hand. No application sees an admin.
func TestV06_V08_D6_HeaderCorpusOfCalls(t *testing.T) {
	t.Parallel()
	role := func(value string, invert bool) discovery.RBACRule {
		return discovery.RBACRule{Kind: discovery.RBACHeader, Header: discovery.HeaderMatch{Name: "x-role", String: discovery.StringMatch{Value: value}, Invert: invert}}
	}
	anything := discovery.RBACRule{Kind: discovery.RBACAny}
	for name, tt := range map[string]struct {
		action     discovery.RBACAction
		permission discovery.RBACRule
		admins     bool
		condition  string // "" is none
	}{
		"without a policy":           {discovery.RBACLog, role("admin", false), true, ""},
		"DENY of a value":            {discovery.RBACDeny, role("admin", false), false, ""},
		"DENY of all other values":   {discovery.RBACDeny, role("user", true), false, ""},
		"ALLOW of another value":     {discovery.RBACAllow, role("user", false), false, ""},
		"ALLOW of what it is not":    {discovery.RBACAllow, discovery.RBACRule{Kind: discovery.RBACNot, Rules: []discovery.RBACRule{role("admin", false)}}, false, ""},
		"ALLOW of a value, inverted": {discovery.RBACAllow, role("admin", true), false, ""},
		"DENY by an expression":      {discovery.RBACDeny, anything, false, `"x-role" in request.headers && request.headers["x-role"] == "admin"`},
		"ALLOW by an expression":     {discovery.RBACAllow, anything, false, `request.headers["x-role"] == "user" && request.method == "POST"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				var admins atomic.Int64
				b := &backend{before: func(ctx context.Context, _ int64) error {
					md, _ := metadata.FromIncomingContext(ctx)
					for part := range strings.SplitSeq(strings.Join(md.Get("x-role"), ","), ",") {
						if strings.TrimSpace(part) == "admin" {
							admins.Add(1)
							break
						}
					}
					return nil
				}}
				policy := discovery.RBACPolicy{Permissions: []discovery.RBACRule{tt.permission}, Principals: []discovery.RBACRule{anything}}
				if tt.condition != "" {
					policy.Condition = calltest.Condition(t, tt.condition)
				}
				in := plaintext(endpoint)
				in.Chains[0].Filters = []discovery.HTTPFilter{{Name: "rbac", Config: &discovery.RBAC{Rules: &discovery.RBACRules{
					Action: tt.action, Policies: []discovery.RBACPolicy{policy},
				}}}}
				f.serveAs(in, b)
				seen := 0
				for _, fields := range roleCorpus {
					status := f.rawCall(emptyCall, fields...)
					if admins.Swap(0) == 0 {
						continue
					}
					if seen++; !tt.admins {
						t.Errorf("%q got through: %s", fields, status)
					}
				}
				if tt.admins && seen < 12 {
					t.Errorf("only %d of %d ways show an admin", seen, len(roleCorpus))
				}
				if status := f.rawCall(emptyCall, [2]string{"x-role", "user"}); status != "0" {
					t.Errorf("what is allowed got %s", status)
				}
			})
		})
	}
}
