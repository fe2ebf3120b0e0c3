package mesh

import (
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/balancer"
)

func TestBalancersMustHaveNames(t *testing.T) {
	t.Parallel()
	picker := func([]*balancer.Host, map[string]any) balancer.Picker { return nil }
	for name, option := range map[string]Option{
		`balancer "": must have`: WithBalancer("", picker), `balancer "inboard.x": must have`: WithBalancer("inboard.x", picker),
		`balancer "a": must have`: WithBalancer("a", nil),
	} {
		if _, err := newSettings([]Option{option}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %s", err, name)
		}
	}
}
