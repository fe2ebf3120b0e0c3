package route

import (
	"math/bits"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/inboardmesh/inboard/discovery"
)

// Each policy that finds something adds its hash to the one before, rotated by a bit;
// one that finds nothing changes nothing; a terminal one ends the list once there is a
// hash.
func TestBL3_TheHashOfARequest(t *testing.T) {
	t.Parallel()
	combined := func(values ...string) (sum uint64) {
		for _, v := range values {
			sum = bits.RotateLeft64(sum, 1) ^ xxhash.Sum64String(v)
		}
		return sum
	}
	user, missing := discovery.HashPolicy{Header: "x-user"}, discovery.HashPolicy{Header: "x-missing"}
	cookie, query := discovery.HashPolicy{Cookie: "session"}, discovery.HashPolicy{Query: "q"}
	source, channel := discovery.HashPolicy{Source: true}, discovery.HashPolicy{Channel: true}
	terminal := func(p discovery.HashPolicy) discovery.HashPolicy {
		p.Terminal = true
		return p
	}
	for _, tt := range []struct {
		name     string
		policies []discovery.HashPolicy
		want     []string // nil is no hash
	}{
		{"a header", []discovery.HashPolicy{user}, []string{"ann"}},
		{"all in their order", []discovery.HashPolicy{user, cookie, query, source, channel}, []string{"ann", "s1", "v", "10.0.0.7", "42"}},
		{"a cookie that is empty is none", []discovery.HashPolicy{{Cookie: "empty"}, {Cookie: "quoted"}, user}, []string{"ann"}},
		{"another order is another hash", []discovery.HashPolicy{cookie, user}, []string{"s1", "ann"}},
		{"the same twice does not cancel itself", []discovery.HashPolicy{user, user}, []string{"ann", "ann"}},
		{"what is missing does not rotate", []discovery.HashPolicy{missing, user, missing, query}, []string{"ann", "v"}},
		{"a terminal one that finds something ends the list", []discovery.HashPolicy{terminal(user), query}, []string{"ann"}},
		{"one that finds nothing does not", []discovery.HashPolicy{terminal(missing), query}, []string{"v"}},
		{"unless there is a hash already", []discovery.HashPolicy{query, terminal(missing), user}, []string{"v"}},
		{"nothing at all", []discovery.HashPolicy{missing, terminal(missing)}, nil},
		{"no policy", nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			req := get("payment", "/")
			req.Header, req.Query, req.Source, req.Channel = headers{"x-user": {"ann"}, "cookie": {`a=b; session=s1; empty=; quoted=""`}}, "p=1&q=v", "10.0.0.7", 42
			sum, ok, cookies := Hash(tt.policies, req)
			if sum != combined(tt.want...) || ok != (tt.want != nil) || len(cookies) > 0 {
				t.Errorf("hash %#x, %v, cookies %q, want %#x", sum, ok, cookies, combined(tt.want...))
			}
			if again, found := hash(tt.policies, req); again != sum || found != ok {
				t.Errorf("the hash that chooses a cluster is %#x, %v, want %#x, %v", again, found, sum, ok)
			}
		})
	}
}
