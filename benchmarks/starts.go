package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// began is what a client process had spent when it had its first answer.
type began struct {
	// FirstCall is the time from nothing to the answer to the first call: of the
	// mesh, a control plane's answers and a certificate are in it.
	FirstCall time.Duration
	// Used is what the process spent on it, Before what it had spent before:
	// packages that set themselves up.
	Used, Before usage
}

// measureStart starts a fresh server and a fresh client and lets it call once.
func (w *world) measureStart(ctx context.Context, c *benchCase, s *settings) (*began, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var ready listening
	server, err := start(ctx, s.env(w.env("payment"), c, "server"), &ready, "server", string(c.server))
	if err != nil {
		return nil, err
	}
	defer server.stop()
	target := ready.Addr
	if needsControlPlane(c.client) {
		if err := w.point(ready.Addr, c); err != nil {
			return nil, err
		}
		target = w.target(c.client)
	}
	env := w.env("customer")
	if strings.HasSuffix(string(c.client), fromFiles) {
		env = append(env, "GRPC_XDS_BOOTSTRAP_CONFIG="+w.bootstrap("customer", true))
	}
	var warm warmedUp
	client, err := start(ctx, s.env(env, c, "client"), &warm, "client", string(c.client), target, "0", "0s")
	if err != nil {
		return nil, err
	}
	client.stop()
	return &warm.began, nil
}

// printStarts measures first calls and writes a table of them.
func printStarts(ctx context.Context, w *world, s *settings, out io.Writer) error {
	of := make(map[string][]*began)
	for round := range s.starts {
		fmt.Fprintf(os.Stderr, "starts, round %d of %d\n", round+1, s.starts)
		for _, c := range shuffled(chosen(s)) {
			b, err := w.measureStart(ctx, c, s)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			of[c.name] = append(of[c.name], b)
		}
	}
	fmt.Fprintln(out, "| | first call ms | CPU ms of the client for it | allocations | KiB | CPU ms before it |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|")
	for _, c := range chosen(s) {
		column := func(format string, value func(*began) float64) string {
			values := make([]float64, 0, s.starts)
			for _, b := range of[c.name] {
				values = append(values, value(b))
			}
			slices.Sort(values)
			return fmt.Sprintf(format+" ["+format+"-"+format+"]", values[len(values)/2], values[0], values[len(values)-1])
		}
		const ms = float64(time.Millisecond)
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s |\n", c.name,
			column("%.1f", func(b *began) float64 { return float64(b.FirstCall) / ms }),
			column("%.1f", func(b *began) float64 { return float64(b.Used.CPU) / ms }),
			column("%.0f", func(b *began) float64 { return float64(b.Used.Allocs) }),
			column("%.0f", func(b *began) float64 { return float64(b.Used.Bytes) / 1024 }),
			column("%.1f", func(b *began) float64 { return float64(b.Before.CPU) / ms }))
	}
	return nil
}
