package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestMain makes the test's program one of the processes of a case, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == roleFlag {
		if err := runRole(context.Background(), os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestEveryCaseCanBeMeasured(t *testing.T) {
	w, err := newWorld(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	s := &settings{rounds: 1, warmup: time.Millisecond, time: 50 * time.Millisecond, callers: []int{2}, cases: regexp.MustCompile("")}
	results := newTable(s)
	for i := range cases {
		c := &cases[i]
		if why := c.missing(); why != "" {
			t.Logf("%s: left out: %s", c.name, why)
			results.leaveOut(c, why)
			continue
		}
		if c.startOnly {
			continue
		}
		m, err := w.measure(t.Context(), c, s, 2)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if m.failed > 0 || m.cpu <= 0 || m.clientAllocs == 0 || m.p99 < m.p50 || m.firstCall <= 0 || m.client.Resident < m.client.Live || m.server.Live == 0 {
			t.Errorf("%s: %+v", c.name, m)
		}
		results.add(c, 2, 0, m)
	}
	var out strings.Builder
	results.print(io.MultiWriter(&out, testOutput{t}))
	for i := range cases {
		if !cases[i].startOnly && !strings.Contains(out.String(), cases[i].name) {
			t.Errorf("%q is not in the table", cases[i].name)
		}
	}
}

func TestEveryLayerCanBeMeasured(t *testing.T) {
	w, err := newWorld(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	s := &settings{rounds: 1, layers: true, warmup: time.Millisecond, time: 50 * time.Millisecond, callers: []int{2}, cases: regexp.MustCompile("")}
	results := newTable(s)
	for _, c := range chosen(s) {
		m, err := w.measure(t.Context(), c, s, 2)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if m.failed > 0 || m.clientCPU <= 0 || m.clientCPU > m.cpu {
			t.Errorf("%s: %+v", c.name, m)
		}
		results.add(c, 2, 0, m)
	}
	var out strings.Builder
	results.printLayers(io.MultiWriter(&out, testOutput{t}))
	for _, c := range chosen(s) {
		if !strings.Contains(out.String(), "| "+c.name+" |") {
			t.Errorf("%q is not in the table", c.name)
		}
	}
}

func TestFirstCallsCanBeMeasured(t *testing.T) {
	w, err := newWorld(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	s := &settings{starts: 1, cases: regexp.MustCompile("files|own xDS|grpc-go's xDS")}
	var out strings.Builder
	if err := printStarts(t.Context(), w, s, io.MultiWriter(&out, testOutput{t})); err != nil {
		t.Fatal(err)
	}
	for _, c := range chosen(s) {
		if !strings.Contains(out.String(), "| "+c.name+" |") {
			t.Errorf("%q is not in the table", c.name)
		}
	}
}

type testOutput struct{ t *testing.T }

func (o testOutput) Write(p []byte) (int, error) {
	o.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func TestBadFlagsAreRefused(t *testing.T) {
	for _, args := range [][]string{{"-callers", "many"}, {"-callers", "0"}, {"-rounds", "0"}, {"-starts", "-1"}, {"-starts", "1", "-layers"}, {"-cases", "("}, {"more"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
