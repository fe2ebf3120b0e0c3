package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// runRole is what a process of a case does.
func runRole(ctx context.Context, args []string) (err error) {
	if name := os.Getenv(profileVariable); name != "" {
		runtime.MemProfileRate = 4096
		stop, failure := profile(name)
		if failure != nil {
			return failure
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	mib, err := strconv.Atoi(os.Getenv(heapVariable))
	if err != nil {
		return fmt.Errorf("%s: %w", heapVariable, err)
	}
	// Garbage is collected the more often the less is alive: without this, a case
	// that holds little pays for many collections, and one that holds much for few.
	held := make([]byte, mib<<20)
	defer runtime.KeepAlive(held)
	switch {
	case len(args) == 2 && args[0] == "server":
		return runServer(ctx, kind(args[1]))
	case len(args) == 5 && args[0] == "client":
		return runClient(ctx, kind(args[1]), args[2], args[3], args[4])
	}
	return fmt.Errorf("unknown role %q", args)
}

// profile writes the CPU profile of the process to a file until it is stopped.
func profile(name string) (stop func() error, err error) {
	file, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return errors.Join(file.Close(), heapProfile(strings.TrimSuffix(name, ".pprof")+".heap.pprof"))
	}, nil
}

// heapProfile writes what was allocated since the process began, and what of it is
// still in use.
func heapProfile(name string) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	runtime.GC() // the profile is that of the last collection
	return errors.Join(pprof.WriteHeapProfile(file), file.Close())
}

func needsControlPlane(k kind) bool { return strings.Contains(string(k), "-mesh") || k == grpcXDS }

// runServer serves until its input ends.
func runServer(ctx context.Context, k kind) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	serve := serveHTTP
	if k.isGRPC() {
		serve = serveGRPC
	}
	if err := serve(ctx, k, ln); err != nil {
		return err
	}
	if err := reply(listening{Addr: ln.Addr().String()}); err != nil {
		return err
	}
	return commands(func(command string) (any, error) {
		switch command {
		case "usage":
			return ownUsage()
		case "memory":
			return ownFootprint()
		}
		return nil, fmt.Errorf("unknown command %q", command)
	})
}

// commands answers each line of the input.
func commands(do func(command string) (any, error)) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		answer, err := do(lines.Text())
		if err != nil {
			return err
		}
		if err := reply(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

func runClient(ctx context.Context, k kind, target, callers, warmup string) error {
	n, err := strconv.Atoi(callers)
	if err != nil {
		return err
	}
	warm, err := time.ParseDuration(warmup)
	if err != nil {
		return err
	}
	dial := dialHTTP
	if k.isGRPC() {
		dial = dialGRPC
	}
	before, err := ownUsage()
	if err != nil {
		return err
	}
	start := time.Now()
	call, err := dial(ctx, k, target)
	if err != nil {
		return err
	}
	if err := firstCall(call); err != nil {
		return err
	}
	first := time.Since(start)
	after, err := ownUsage()
	if err != nil {
		return err
	}
	ready := warmedUp{began{FirstCall: first, Used: after.since(before), Before: before}}
	load(call, n, warm)
	if err := reply(ready); err != nil {
		return err
	}
	return commands(func(command string) (any, error) {
		if command == "memory" {
			return ownFootprint()
		}
		length, err := time.ParseDuration(strings.TrimPrefix(command, "run "))
		if err != nil {
			return nil, err
		}
		before, err := ownUsage()
		if err != nil {
			return nil, err
		}
		got := load(call, n, length)
		after, err := ownUsage()
		got.Used = after.since(before)
		return got, err
	})
}

// firstCall waits until the server can be reached: configuration may be on its
// way.
func firstCall(call func() error) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := call()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// load calls from n goroutines, each one call after the other.
func load(call func() error, n int, length time.Duration) *called {
	var failed atomic.Int64
	var mu sync.Mutex
	var first error
	latencies := make([][]time.Duration, n)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			mine := make([]time.Duration, 0, 1<<14)
			for now := time.Now(); now.Sub(start) < length; {
				err := call()
				end := time.Now()
				if err != nil {
					failed.Add(1)
					mu.Lock()
					first = errors.Join(first, err)
					mu.Unlock()
					return
				}
				mine = append(mine, end.Sub(now))
				now = end
			}
			latencies[i] = mine
		})
	}
	wg.Wait()
	got := &called{Elapsed: time.Since(start), Failed: int(failed.Load())}
	if first != nil {
		got.FirstFailure = first.Error()
	}
	all := slices.Concat(latencies...)
	slices.Sort(all)
	if got.Calls = len(all); got.Calls > 0 {
		got.P50, got.P99 = all[len(all)/2], all[len(all)*99/100]
	}
	return got
}
