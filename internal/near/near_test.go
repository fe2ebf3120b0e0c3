package near_test

import (
	"slices"
	"testing"

	"github.com/inboardmesh/inboard/internal/near"
)

func TestNamesThatMayHaveBeenMeant(t *testing.T) {
	t.Parallel()
	names := []string{"ledger.bank.svc.cluster.local", "payment.bank.svc.cluster.local", "payment.shop.svc.cluster.local", "payments.shop.svc.cluster.local", "web.shop.svc.cluster.local"}
	for _, c := range []struct {
		name string
		want []string
	}{
		{"paymnet.shop.svc.cluster.local", []string{"payment.shop.svc.cluster.local", "payments.shop.svc.cluster.local"}},
		{"payment.nowhere.svc.cluster.local", []string{"payment.shop.svc.cluster.local", "payment.bank.svc.cluster.local"}},
		{"ledger.shop.svc.cluster.local", []string{"ledger.bank.svc.cluster.local"}},
		{"paymint", []string{"payment.bank.svc.cluster.local", "payment.shop.svc.cluster.local", "payments.shop.svc.cluster.local"}},
		{"wbe.shop.svc.cluster.local", []string{"web.shop.svc.cluster.local"}},
		{"somebody.else.example.com", nil},
		{"", nil},
	} {
		if got := near.Names(c.name, names); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.name, got, c.want)
		}
	}
	fields := []string{"match", "route", "redirect", "rewrite", "retries", "timeout", "mirror", "mirrors"}
	for name, want := range map[string][]string{"retrys": {"retries"}, "mirorr": {"mirror", "mirrors"}, "rout": {"route"}, "x": nil} {
		if got := near.Names(name, fields); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestQuestion(t *testing.T) {
	t.Parallel()
	for want, names := range map[string][]string{
		"": nil, `: did you mean "a"?`: {"a"}, `: did you mean "a" or "b"?`: {"a", "b"},
	} {
		if got := near.Question(names); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
