package bootstrap_test

import (
	"os"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
)

// TestThePageSaysHowADestinationOfAnAuthorityIsNamed reads the bootstrap of the page, and
// holds what it says of names against it.
func TestThePageSaysHowADestinationOfAnAuthorityIsNamed(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "### Several control planes\n")
	_, block, found := strings.Cut(section, "```json\n")
	block, prose, _ := strings.Cut(block, "```")
	if !ok || !found {
		t.Fatal("the page has no such section, or no bootstrap in it")
	}
	config, err := bootstrap.Parse([]byte(block))
	if err != nil {
		t.Fatal(err)
	}
	if err := config.Validate(); err != nil {
		t.Fatal(err)
	}
	const target = "//partner.example.com/payment.shop:9090"
	listener, err := config.ListenerName(target)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"`mesh:" + target + "`", "`" + listener + "`"} {
		if !strings.Contains(prose, name) {
			t.Errorf("the page does not say %s", name)
		}
	}
}
