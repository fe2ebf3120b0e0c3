// Benchmarks puts Inboard beside what a user would pick instead: net/http and
// grpc-go with mutual TLS and nothing else, grpc-go's own xDS, OpenTelemetry's
// instrumentation, a hand-made stack of instrumentation, retrier and breaker, and
// pairs of proxies.
//
//	cd benchmarks && go run . [flags]
//
// Client and server are processes of their own on loopback, the server answers
// with one kilobyte. In each round every case runs once, in an order of its own,
// so that what else the machine does hits all alike; the table has the medians of
// the rounds with their ranges, and ratios that are paired within each round.
// With -layers it measures what each layer of the mesh adds to the one below it, and
// with -starts first calls.
//
// Proxies are used if haproxy and nginx are installed (apt-get install haproxy
// nginx); the table says which cases were left out.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if len(os.Args) > 1 && os.Args[1] == roleFlag {
		err = runRole(ctx, os.Args[2:])
	} else {
		err = run(ctx, os.Args[1:])
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

// settings are what the command line says.
type settings struct {
	rounds       int
	warmup, time time.Duration
	callers      []int
	cases        *regexp.Regexp
	profiles     string
	heap         int
	starts       int
	layers       bool
}

func parse(args []string) (*settings, error) {
	s := &settings{}
	f := flag.NewFlagSet("benchmarks", flag.ContinueOnError)
	f.IntVar(&s.rounds, "rounds", 5, "how often each case runs")
	f.DurationVar(&s.warmup, "warmup", 500*time.Millisecond, "how long each run warms up")
	f.DurationVar(&s.time, "time", 2*time.Second, "how long each run is measured")
	f.StringVar(&s.profiles, "profile", "", "write the CPU profile of each process into `DIRECTORY`, which must exist (go tool pprof -top FILE)")
	f.IntVar(&s.heap, "heap", 0, "`MiB` that each client and server holds beside what the case needs, as an application does")
	f.IntVar(&s.starts, "starts", 0, "measure nothing but first calls, so many of each case, in processes of their own")
	f.BoolVar(&s.layers, "layers", false, "measure what each layer of the mesh adds to the one below it")
	callers := f.String("callers", "1,16,64", "how many callers call at the same time, separated by commas")
	cases := f.String("cases", "", "a `REGEXP` of the cases to run; the baselines always do")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	for n := range strings.SplitSeq(*callers, ",") {
		c, err := strconv.Atoi(strings.TrimSpace(n))
		if err != nil || c < 1 {
			return nil, fmt.Errorf("-callers: %q is no number of callers", n)
		}
		s.callers = append(s.callers, c)
	}
	if s.heap < 0 {
		return nil, fmt.Errorf("-heap: %d: there is no such heap", s.heap)
	}
	if s.starts > 0 && s.layers {
		return nil, errors.New("-layers and -starts are measured one at a time")
	}
	if s.starts < 0 {
		return nil, fmt.Errorf("-starts: %d: nothing can be started so often", s.starts)
	}
	if s.rounds < 1 {
		return nil, fmt.Errorf("-rounds: %d: there must be one at least", s.rounds)
	}
	var err error
	if s.cases, err = regexp.Compile(*cases); err != nil {
		return nil, fmt.Errorf("-cases: %w", err)
	}
	return s, nil
}

func run(ctx context.Context, args []string) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	w, err := newWorld(ctx)
	if err != nil {
		return err
	}
	defer w.close()
	if s.starts > 0 {
		return printStarts(ctx, w, s, os.Stdout)
	}
	results := newTable(s)
	for _, callers := range s.callers {
		for round := range s.rounds {
			for _, c := range shuffled(chosen(s)) {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if why := c.missing(); why != "" {
					results.leaveOut(c, why)
					continue
				}
				fmt.Fprintf(os.Stderr, "%d callers, round %d of %d: %s\n", callers, round+1, s.rounds, c.name)
				m, err := w.measure(ctx, c, s, callers)
				if err != nil {
					return fmt.Errorf("%s, %d callers: %w", c.name, callers, err)
				}
				results.add(c, callers, round, m)
			}
		}
	}
	if s.layers {
		results.printLayers(os.Stdout)
		return nil
	}
	results.print(os.Stdout)
	return nil
}
