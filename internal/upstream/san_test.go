package upstream

import (
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

func TestRefusedPeersErrorNamesTheAllowedSANs(t *testing.T) {
	t.Parallel()
	ledger := discovery.StringMatch{Value: "spiffe://cluster.local/ns/shop/sa/ledger"}
	tests := []struct {
		name string
		sans []discovery.StringMatch
		want string
	}{
		{"one", []discovery.StringMatch{ledger}, `"spiffe://cluster.local/ns/shop/sa/ledger"`},
		{"another kind", []discovery.StringMatch{
			ledger, {Kind: discovery.MatchPrefix, Value: "spiffe://cluster.local/ns/bank/"},
		}, `"spiffe://cluster.local/ns/shop/sa/ledger" or the prefix "spiffe://cluster.local/ns/bank/"`},
		{"more than fit", []discovery.StringMatch{
			{Kind: discovery.MatchSuffix, Value: "a"}, {Kind: discovery.MatchContains, Value: "b"},
			{Kind: discovery.MatchRegex, Value: "c"}, ledger, ledger,
		}, `the suffix "a" or the part "b" or the pattern "c" or one of 2 more`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := sanList(tt.sans); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
