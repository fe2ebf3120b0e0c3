// Demo shows a mesh at work, with real processes on loopback: a control plane
// with its certificate authority, three payments, and a customer that calls
// them over HTTP and over gRPC while things change and break.
//
//	go run ./examples/demo
//
// It needs Go and nothing else, takes less than a minute, and leaves nothing
// behind. It exits with 0 if no call failed, and with 1 otherwise.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() { os.Exit(demo(os.Args[1:], os.Stdout, os.Stderr)) }

// demo returns the exit code.
func demo(args []string, stdout, stderr io.Writer) int {
	// The processes must be ended whatever ends this one: also when nobody
	// reads its output any more.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	err := run(ctx, args, stdout)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(stderr, "\ndemo:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	f := flag.NewFlagSet("demo", flag.ContinueOnError)
	keep := f.Bool("keep", false, "leave everything running at the end, until Ctrl-C")
	rate := f.Int("rate", 200, "`NUMBER` of calls a second")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if *rate < 50 || *rate > 5000 {
		return fmt.Errorf("--rate %d: want 50 to 5000", *rate)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w, err := newWorld(ctx, out, cancel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()

	first := rules{V1: 90, V2: 10}
	if err := w.start(ctx, first); err != nil {
		return err
	}
	if err := tell(ctx, w, first, *rate, out); err != nil {
		return err
	}
	if *keep {
		w.keep(ctx)
	}
	return nil
}

// tell tells the story of a world that has started with the first rules.
func tell(ctx context.Context, w *world, first rules, rate int, out io.Writer) error {
	observer, err := w.observe(ctx)
	if err != nil {
		return err
	}
	defer observer.end()
	begin := time.Now()
	fmt.Fprintf(out, "\n%d calls a second to the customer, half of which it makes by HTTP and half by gRPC\n", rate)
	t := startTraffic(ctx, w.customer.ready["http"], customerID, rate)
	s := &story{world: w, traffic: t, observer: observer, rules: first, out: out}
	err = s.run(ctx)
	t.end()
	return s.verdict(time.Since(begin), err)
}
