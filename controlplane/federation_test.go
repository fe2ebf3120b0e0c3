package controlplane

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// The control plane has no names with an authority: a client whose bootstrap sends it some
// is told so, in whatever form it asks, and gets the rest.
func TestX95_NamesWithAnAuthorityDoNotExist(t *testing.T) {
	names := []string{
		"xdstp://far/envoy.config.cluster.v3.Cluster/" + cluster("payment"),
		"xdstp://far/envoy.config.cluster.v3.Cluster/*",
		"xdstp:///envoy.config.cluster.v3.Cluster/a?b=2&a=1",
		"xdstp://far/%zz",
		"xdstp://" + strings.Repeat("a/", 1000) + "*",
	}
	slices.Sort(names)
	bubble(t, func(t *testing.T, s *Server, dialled func() *deltaClient) {
		c := dialled()
		c.subscribe(cds, append(slices.Clone(names), cluster("payment"))...)
		c.want(cds, []string{cluster("payment")}, names)
		c.quiet()
		mustUpdate(t, s, service("payment", "10.0.0.1"), service("ledger", "10.0.1.1"))
		c.quiet() // a collection of it is none of this control plane
		c.subscribe(cds, cluster("ledger"))
		c.want(cds, []string{cluster("ledger")}, nil)
	}, service("payment", "10.0.0.1"))
}

func TestX95_NamesWithAnAuthorityAreNoMatterOfTheOthersInTheStateOfTheWorld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t, Config{Files: []istio.File{service("payment", "10.0.0.1")}})
		conn := dial(t, serveMemory(t, s), "plaintext:1")
		c := newSotw(t, conn, node("shop", "customer"))
		asked := []string{cluster("payment"), "xdstp://far/envoy.config.cluster.v3.Cluster/a", "xdstp://far/envoy.config.cluster.v3.Cluster/*"}
		c.subscribe(cds, asked...)
		c.want(cds, []string{cluster("payment")}, asked...)
		c.quiet()
	})
}
