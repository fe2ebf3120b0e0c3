package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/inboardmesh/inboard/internal/ask"
	"github.com/inboardmesh/inboard/internal/offline"
)

// diffs is the result of diff, for programs.
type diffs struct {
	// Requests is how many different requests there are, Different how many of
	// them would be routed or answered otherwise, Outside how many go round the mesh
	// in both directories, and OutsideLines where they are.
	Requests     int   `json:"requests"`
	Different    int   `json:"different"`
	Outside      int   `json:"outside"`
	OutsideLines []int `json:"outsideLines,omitempty"`
	// SkippedLines are those of connections, which have no request.
	SkippedLines []int                `json:"skippedLines,omitempty"`
	Differences  []offline.Difference `json:"differences"`
}

func diff(ctx context.Context, call *invocation) error {
	f := call.flags("OLD NEW", `Says which recorded requests would be routed or answered otherwise by the YAML in
the directory NEW than by that in OLD, and how. FILE has a request on each line, as
JSON: {"method": "GET", "host": "payment.shop:8080", "path": "/pay?x=1", "headers":
{"x-user": "ann"}}. Lines of an access log that have these fields will do, see
docs/explain.md; those without a request, as of a connection, are skipped and
counted. What may be a secret is not printed. It exits with 0 if no request makes a difference, and with 1 if one
does, if one of the directories cannot be served, or if all requests go round the mesh:
then there is nothing to compare.`)
	requests := f.String("requests", "", "`FILE` of requests, one a line (required)")
	node := f.node()
	output := f.output()
	if err := f.parse(); err != nil {
		return err
	}
	if err := f.required("requests"); err != nil {
		return err
	}
	found, err := compare(ctx, f.Arg(0), f.Arg(1), *requests, node)
	if err != nil {
		return err
	}
	if *output == outputJSON {
		err = writeJSON(call.stdout, found)
	} else {
		printDiffs(call, *requests, found)
	}
	switch {
	case err != nil:
		return err
	case found.Outside == found.Requests:
		return fmt.Errorf("nothing was compared: by %s and by %s all requests of %s go round the mesh (the names that only a namespace knows need --namespace)", f.Arg(0), f.Arg(1), *requests)
	case found.Different > 0:
		return errFound
	}
	return nil
}

func compare(ctx context.Context, before, after, file string, node *nodeFlags) (_ *diffs, err error) {
	requests, skipped, err := readRequests(file)
	if err != nil {
		return nil, err
	}
	old, err := node.open(before)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, old.Close()) }()
	now, err := node.open(after)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, now.Close()) }()
	differences, outside, err := offline.Diff(ctx, old, now, requests)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &diffs{
		Requests: len(requests), Different: len(differences), Outside: len(outside), OutsideLines: outside,
		SkippedLines: skipped, Differences: differences,
	}, nil
}

func readRequests(name string) (requests []ask.Recorded, skipped []int, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, fmt.Errorf("--requests: %w", err)
	}
	defer file.Close()
	requests, skipped, err = ask.Read(file)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(requests) == 0 && len(skipped) > 0 {
		return nil, nil, fmt.Errorf("%s has no requests: the method, the authority or the path of %s is null", name, linesOf(skipped))
	}
	if len(requests) == 0 {
		return nil, nil, fmt.Errorf("%s has no requests: write one on each line, as JSON", name)
	}
	return requests, skipped, nil
}

func printDiffs(call *invocation, file string, found *diffs) {
	for _, d := range found.Differences {
		fmt.Fprintf(call.stdout, "%s:%d: %v", file, d.Line, &d.Request)
		if d.Count > 1 {
			fmt.Fprintf(call.stdout, ", %d times", d.Count)
		}
		fmt.Fprintln(call.stdout)
		for _, c := range d.Changes {
			fmt.Fprintf(call.stdout, "  %s\n  - %s\n  + %s\n", c.What, c.Old, c.New)
		}
	}
	fmt.Fprintf(call.stdout, "%s, %d different", count(found.Requests, "request"), found.Different)
	if found.Outside > 0 {
		fmt.Fprintf(call.stdout, ", %d round the mesh (%s)", found.Outside, linesOf(found.OutsideLines))
	}
	fmt.Fprintln(call.stdout)
	if n := len(found.SkippedLines); n > 0 {
		fmt.Fprintf(call.stdout, "%s without a request, not compared (%s)\n", count(n, "line"), linesOf(found.SkippedLines))
	}
}

// printedLines bounds how many lines of a kind are named.
const printedLines = 10

// linesOf names the first of some lines.
func linesOf(numbers []int) string {
	var out strings.Builder
	for i, n := range numbers {
		switch {
		case i == printedLines:
			fmt.Fprintf(&out, " and %d more", len(numbers)-i)
			return out.String()
		case i == 0 && len(numbers) == 1:
			out.WriteString("line ")
		case i == 0:
			out.WriteString("lines ")
		default:
			out.WriteString(", ")
		}
		out.WriteString(strconv.Itoa(n))
	}
	return out.String()
}
