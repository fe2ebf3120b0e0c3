package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

func TestConfigurationIsAccepted(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]rules{
		"a canary":                       {V1: 90, V2: 10},
		"a version without any weight":   {V1: 0, V2: 100},
		"a user with a route of her own": {V1: 50, V2: 50, AdaTo: "v1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := configDir(t.TempDir())
			endpoints := []endpoint{
				{Name: "v1-a", Version: "v1", HTTPPort: "20001", GRPCPort: "20002"},
				{Name: "v2-a", Version: "v2", HTTPPort: "20003", GRPCPort: "20004"},
			}
			for _, err := range []error{dir.writeServices(endpoints), dir.writeTraffic(r), dir.writeSecurity()} {
				if err != nil {
					t.Fatal(err)
				}
			}
			files, err := istio.ReadDir(os.DirFS(string(dir)))
			if err != nil {
				t.Fatal(err)
			}
			if len(files) != 3 {
				t.Errorf("%d files", len(files))
			}
			config, problems := istio.Parse(files, istio.Options{})
			for _, p := range problems {
				t.Error(p)
			}
			if len(problems) > 0 {
				return
			}
			const cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
			if names := config.Names(istio.Node{Namespace: namespace}, cluster); len(names) != 6 {
				t.Errorf("clusters %q: want one for each port, with and without a subset", names)
			}
		})
	}
}

func TestWriteReplacesTheFileAndLeavesNoOther(t *testing.T) {
	t.Parallel()
	dir := configDir(t.TempDir())
	for _, v1 := range []int{90, 50} {
		if err := dir.writeTraffic(rules{V1: v1, V2: 100 - v1}); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(string(dir), "traffic.yaml"))
	if err != nil || strings.Count(string(text), "weight: 50") != 2 {
		t.Errorf("%v\n%s", err, text)
	}
	entries, err := os.ReadDir(string(dir))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}
