package main

import (
	"context"
	"fmt"

	"github.com/inboardmesh/inboard/controlplane"
	"github.com/inboardmesh/inboard/controlplane/istio"
)

func validate(_ context.Context, call *invocation) error {
	f := call.flags("DIR", `Checks the Istio YAML in a directory as the control plane does. It prints
every problem with file, line and field, and exits with 1 if there is one. It
also warns of what is allowed and hardly what was meant; with --strict that is
a problem too.`)
	strict := f.Bool("strict", false, "exit with 1 if there is a warning")
	rootNamespace := f.String("root-namespace", "istio-system", "the `NAMESPACE` of mesh-wide policies")
	if err := f.parse(); err != nil {
		return err
	}
	dir := f.Arg(0)
	files, err := controlplane.ReadDir(dir)
	if err != nil {
		return err
	}
	config, problems := istio.Parse(files, istio.Options{RootNamespace: *rootNamespace})
	for _, problem := range problems {
		fmt.Fprintln(call.stderr, problem)
	}
	if len(problems) > 0 {
		return fmt.Errorf("%s: %s", dir, count(len(problems), "problem"))
	}
	warnings := config.Warnings()
	for _, warning := range warnings {
		fmt.Fprintln(call.stderr, warning)
	}
	if *strict && len(warnings) > 0 {
		return fmt.Errorf("%s: %s, with --strict", dir, count(len(warnings), "warning"))
	}
	counted := func(kind, message string) string {
		names := config.Names(istio.Node{}, "type.googleapis.com/envoy.config."+message)
		return count(len(names), kind)
	}
	noted := ""
	if len(warnings) > 0 {
		noted = ", " + count(len(warnings), "warning")
	}
	fmt.Fprintf(call.stdout, "%s: ok: %s, %s, %s, %s%s\n", dir, count(len(files), "file"),
		counted("listener", "listener.v3.Listener"),
		counted("route table", "route.v3.RouteConfiguration"),
		counted("cluster", "cluster.v3.Cluster"), noted)
	return nil
}

func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
