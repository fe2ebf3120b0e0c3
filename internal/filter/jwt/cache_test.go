package jwt

import (
	"strconv"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/internal/token"
)

// TestTheCacheIsBounded in tokens and in the bytes of one, and forgets the one that
// was not asked for the longest.
func TestTheCacheIsBounded(t *testing.T) {
	t.Parallel()
	c, one := newCache(100), new(token.Token)
	for i := range 1000 {
		c.put(strconv.Itoa(i), one, 1)
		if t1, generation := c.get("0"); t1 != one || generation != 1 {
			t.Fatalf("the token that is asked for is forgotten after %d", i)
		}
	}
	if len(c.entries) != 100 || c.order.Len() != 100 {
		t.Errorf("%d tokens are remembered, in order %d, want 100", len(c.entries), c.order.Len())
	}
	for raw, want := range map[string]bool{"0": true, "1": false, "900": false, "901": true, "999": true} {
		if got, _ := c.get(raw); (got != nil) != want {
			t.Errorf("%s: remembered %t, want %t", raw, got != nil, want)
		}
	}
	for size, want := range map[int]bool{4096: true, 4097: false} {
		raw := strings.Repeat("a", size)
		c.put(raw, one, 1)
		if got, _ := c.get(raw); (got != nil) != want {
			t.Errorf("a token of %d bytes: remembered %t, want %t", size, got != nil, want)
		}
	}
	c.put("999", one, 2)
	if _, generation := c.get("999"); generation != 2 || c.order.Len() != 100 {
		t.Errorf("verified anew: generation %d of %d tokens", generation, c.order.Len())
	}
	none := newCache(0)
	none.put("a", one, 1)
	if got, _ := none.get("a"); got != nil {
		t.Error("a cache of no size remembers")
	}
}
