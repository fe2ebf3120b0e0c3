package istio_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// FuzzParse feeds Parse with a file beside the sample's services. It must not
// panic, its problems must say where they are, twice the same, and every
// configuration that it accepts must give only valid resources.
func FuzzParse(f *testing.F) {
	sources, err := filepath.Glob(filepath.Join("testdata", "*", "*.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	// Valid documents.
	for _, source := range sources {
		data, err := os.ReadFile(source)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	// Documents with problems.
	for _, table := range [][]problemCase{
		documentProblems, serviceEntryProblems, mutualTLSProblems, destinationRuleProblems, annotationProblems,
		virtualServiceProblems, routeProblems, peerAuthenticationProblems, authorizationProblems, gatewayProblems, meshProblems,
		unenforcedProblems,
	} {
		for _, c := range table {
			f.Add([]byte(c.yaml))
		}
	}
	// What kubectl exports, and what tells of its health.
	for _, c := range skippedKinds {
		f.Add([]byte(other(c.apiVersion, c.kind, c.rest)))
	}
	for _, c := range routeConflicts {
		f.Add([]byte(c.yaml))
	}
	f.Add([]byte(forGatewaysToo))
	f.Add([]byte(forGatewaysOnly))
	f.Add([]byte(exported))
	f.Add([]byte(healthEntries))
	// Streams of documents.
	for _, s := range []string{"", "---\n", "# nothing\n---\n...\n---\n", "\xff", "{}", "[]", "? {}\n", "&a [*a]", "<<: {kind: List}\nitems: ~\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		files := []istio.File{{Name: "shop.yaml", Data: []byte(shop)}, {Name: "fuzz.yaml", Data: data}}
		config, problems := istio.Parse(files, istio.Options{})
		_, again := istio.Parse(files, istio.Options{})
		if !slices.Equal(problems, again) {
			t.Errorf("problems differ:\n%v\n%v", problems, again)
		}
		if (config == nil) == (len(problems) == 0) {
			t.Fatalf("config is nil: %v, problems: %v", config == nil, problems)
		}
		for _, p := range problems {
			if p.File == "" || p.Line < 1 || p.Message == "" {
				t.Errorf("incomplete problem: %#v", p)
			}
		}
		if config != nil {
			checkResources(t, config)
		}
	})
}
