package main

import (
	"context"
	"fmt"

	"github.com/inboardmesh/inboard/controlplane"
	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/discovery/xds"
)

func validate(_ context.Context, call *invocation) error {
	f := call.flags("DIR", `Checks the YAML of Istio and of the Gateway API in a directory as the control plane does. It prints
every problem with file, line and field, and exits with 1 if there is one, or
nothing to check. It also warns of what is allowed and hardly what was meant; with
--strict that is a problem too. Each warning ends with its code; docs/lint.md
explains them. It says of each HTTPRoute and GRPCRoute what became of it.`)
	strict := f.Bool("strict", false, "exit with 1 if there is a warning")
	rootNamespace := f.String("root-namespace", "istio-system", "the `NAMESPACE` of mesh-wide policies")
	output := f.output()
	if err := f.parse(); err != nil {
		return err
	}
	if !isNamespace(*rootNamespace) {
		return usagef("--root-namespace %q is not a namespace: use lower case letters, digits and '-', at most 63", *rootNamespace)
	}
	dir := f.Arg(0)
	files, err := controlplane.ReadDir(dir)
	if err != nil {
		return err
	}
	review := istio.Read(files, istio.Options{RootNamespace: *rootNamespace, Check: xds.Check})
	if *output == outputJSON {
		found := findings{Valid: len(review.Problems) == 0, Problems: findingsOf(review.Problems), Warnings: findingsOf(review.Warnings)}
		if err := writeJSON(call.stdout, found); err != nil {
			return err
		}
		return verdict(dir, files, review, *strict)
	}
	for _, problem := range review.Problems {
		fmt.Fprintln(call.stderr, problem)
	}
	for _, warning := range review.Warnings {
		fmt.Fprintf(call.stderr, "%v [%s]\n", warning, warning.Code)
	}
	if err := verdict(dir, files, review, *strict); err != nil {
		return err
	}
	for _, status := range review.Config.Routes() {
		fmt.Fprintln(call.stdout, status)
	}
	counted := func(kind, message string) string {
		names := review.Config.Names(istio.Node{}, "type.googleapis.com/envoy.config."+message)
		return count(len(names), kind)
	}
	noted := ""
	if len(review.Warnings) > 0 {
		noted = ", " + count(len(review.Warnings), "warning")
	}
	fmt.Fprintf(call.stdout, "%s: ok: %s, %s, %s, %s%s\n", dir, count(len(files), "file"),
		counted("listener", "listener.v3.Listener"),
		counted("route table", "route.v3.RouteConfiguration"),
		counted("cluster", "cluster.v3.Cluster"), noted)
	return nil
}

// verdict is an error for what is not valid.
func verdict(dir string, files []istio.File, review *istio.Review, strict bool) error {
	problems, warnings := len(review.Problems), len(review.Warnings)
	switch {
	case len(files) == 0:
		return fmt.Errorf("%s: nothing was found: no file is called *.yaml, *.yml or *.json", dir)
	case problems > 0 && warnings > 0:
		return fmt.Errorf("%s: %s, %s", dir, count(problems, "problem"), count(warnings, "warning"))
	case problems > 0:
		return fmt.Errorf("%s: %s", dir, count(problems, "problem"))
	case review.Objects == 0:
		return fmt.Errorf("%s: nothing was found: no document of a mesh is in the %s", dir, count(len(files), "file"))
	case strict && warnings > 0:
		return fmt.Errorf("%s: %s, with --strict", dir, count(warnings, "warning"))
	}
	return nil
}

func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// findings is what validate found, for programs.
type findings struct {
	// Valid is whether the control plane would serve the files.
	Valid    bool      `json:"valid"`
	Problems []finding `json:"problems"`
	Warnings []finding `json:"warnings"`
}

type finding struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Object  string `json:"object,omitempty"`
	Field   string `json:"field,omitempty"`
	Code    string `json:"code,omitempty"`
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

func findingsOf(problems []istio.Problem) []finding {
	found := make([]finding, 0, len(problems))
	for _, p := range problems {
		one := finding{
			File: p.File, Line: p.Line, Column: p.Column, Object: p.Object, Field: p.Field,
			Code: p.Code, Message: p.Message,
		}
		for _, lint := range istio.Lints() {
			if lint.Code == p.Code {
				one.Remedy = lint.Remedy
			}
		}
		found = append(found, one)
	}
	return found
}
