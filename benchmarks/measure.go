package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// listening is what a server says when it is ready.
type listening struct{ Addr string }

// warmedUp is what a client says when it is ready.
type warmedUp struct{ began }

// called is what a client says of a run.
type called struct {
	Calls, Failed int
	Elapsed       time.Duration
	P50, P99      time.Duration
	Used          usage
	FirstFailure  string
}

// heapVariable says how many MiB a process holds.
const heapVariable = "BENCHMARKS_HEAP"

// profileVariable names the file that a process writes its CPU profile to.
const profileVariable = "BENCHMARKS_PROFILE"

// env is the environment of a role of a case.
func (s *settings) env(env []string, c *benchCase, role string) []string {
	env = append(slices.Clip(env), heapVariable+"="+strconv.Itoa(s.heap))
	if s.profiles == "" {
		return env
	}
	name := nameless.ReplaceAllString(c.name, "-") + "." + role + ".pprof"
	return append(env, profileVariable+"="+filepath.Join(s.profiles, name))
}

// nameless is what a file's name is better without.
var nameless = regexp.MustCompile(`[^A-Za-z0-9.]+`)

// measure runs a case once: a fresh server, fresh proxies, a fresh client.
func (w *world) measure(ctx context.Context, c *benchCase, s *settings, callers int) (*measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute+s.warmup+s.time)
	defer cancel()
	var ready listening
	server, err := start(ctx, s.env(w.env("payment"), c, "server"), &ready, "server", string(c.server))
	if err != nil {
		return nil, err
	}
	defer server.stop()
	target := ready.Addr
	var pair *proxies
	switch {
	case c.proxy != "":
		if pair, err = w.startProxies(ctx, c, ready.Addr); err != nil {
			return nil, err
		}
		defer pair.stop()
		target = pair.addr
	case needsControlPlane(c.client):
		if err := w.point(ready.Addr, c); err != nil {
			return nil, err
		}
		target = w.target(c.client)
	}
	var warm warmedUp
	client, err := start(ctx, s.env(w.env("customer"), c, "client"), &warm, "client", string(c.client), target, strconv.Itoa(callers), s.warmup.String())
	if err != nil {
		return nil, err
	}
	defer client.stop()

	var before, after usage
	if err := server.ask("usage", &before); err != nil {
		return nil, err
	}
	proxyBefore, err := pair.cpu()
	if err != nil {
		return nil, err
	}
	var got called
	if err := client.ask("run "+s.time.String(), &got); err != nil {
		return nil, err
	}
	proxyAfter, err := pair.cpu()
	if err != nil {
		return nil, err
	}
	if err := server.ask("usage", &after); err != nil {
		return nil, err
	}
	var clientMemory, serverMemory footprint
	if err := errors.Join(client.ask("memory", &clientMemory), server.ask("memory", &serverMemory)); err != nil {
		return nil, err
	}
	if got.Calls == 0 {
		return nil, fmt.Errorf("no call went well: %s", got.FirstFailure)
	}
	used := after.since(before)
	return &measurement{
		calls: got.Calls, failed: got.Failed, elapsed: got.Elapsed, p50: got.P50, p99: got.P99,
		cpu: got.Used.CPU + used.CPU + proxyAfter - proxyBefore, clientCPU: got.Used.CPU,
		clientAllocs: got.Used.Allocs, serverAllocs: used.Allocs,
		clientBytes: got.Used.Bytes, serverBytes: used.Bytes,
		firstCall: warm.FirstCall, client: clientMemory, server: serverMemory,
	}, nil
}
