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
every problem with file, line and field, and exits with 1 if there is one. It
also warns of what is allowed and hardly what was meant; with --strict that is
a problem too. Each warning ends with its code; docs/lint.md explains them. It
says of each HTTPRoute and GRPCRoute what became of it.`)
	strict := f.Bool("strict", false, "exit with 1 if there is a warning")
	rootNamespace := f.String("root-namespace", "istio-system", "the `NAMESPACE` of mesh-wide policies")
	output := f.output()
	if err := f.parse(); err != nil {
		return err
	}
	dir := f.Arg(0)
	files, err := controlplane.ReadDir(dir)
	if err != nil {
		return err
	}
	config, problems := istio.Parse(files, istio.Options{RootNamespace: *rootNamespace, Check: xds.Check})
	if *output == outputJSON {
		return reportJSON(call, dir, config, problems, *strict)
	}
	for _, problem := range problems {
		fmt.Fprintln(call.stderr, problem)
	}
	if len(problems) > 0 {
		return fmt.Errorf("%s: %s", dir, count(len(problems), "problem"))
	}
	warnings := config.Warnings()
	for _, warning := range warnings {
		fmt.Fprintf(call.stderr, "%v [%s]\n", warning, warning.Code)
	}
	if *strict && len(warnings) > 0 {
		return fmt.Errorf("%s: %s, with --strict", dir, count(len(warnings), "warning"))
	}
	counted := func(kind, message string) string {
		names := config.Names(istio.Node{}, "type.googleapis.com/envoy.config."+message)
		return count(len(names), kind)
	}
	for _, status := range config.Routes() {
		fmt.Fprintln(call.stdout, status)
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

func reportJSON(call *invocation, dir string, config *istio.Config, problems []istio.Problem, strict bool) error {
	found := findings{Valid: len(problems) == 0, Problems: findingsOf(problems), Warnings: []finding{}}
	if config != nil {
		found.Warnings = findingsOf(config.Warnings())
	}
	if err := writeJSON(call.stdout, found); err != nil {
		return err
	}
	switch {
	case len(problems) > 0:
		return fmt.Errorf("%s: %s", dir, count(len(problems), "problem"))
	case strict && len(found.Warnings) > 0:
		return fmt.Errorf("%s: %s, with --strict", dir, count(len(found.Warnings), "warning"))
	}
	return nil
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
