package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// measurement is one run of a case.
type measurement struct {
	calls, failed int
	elapsed       time.Duration
	p50, p99      time.Duration
	// cpu is that of all processes, clientCPU of the client's alone.
	cpu, clientCPU time.Duration
	// clientAllocs and serverAllocs are those of the whole run.
	clientAllocs, serverAllocs uint64
	clientBytes, serverBytes   uint64
	firstCall                  time.Duration
	client, server             footprint
}

func (m *measurement) rate() float64       { return float64(m.calls) / m.elapsed.Seconds() }
func (m *measurement) cpuPerCall() float64 { return m.perCall(float64(m.cpu) / 1e3) }

func (m *measurement) clientCPUPerCall() float64 { return m.perCall(float64(m.clientCPU) / 1e3) }

func (m *measurement) perCall(total float64) float64 { return total / float64(max(m.calls, 1)) }

type key struct {
	name           string
	callers, round int
}

// table collects runs.
type table struct {
	settings *settings
	runs     map[key]*measurement
	left     map[string]string // by case, why it was left out
}

func newTable(s *settings) *table {
	return &table{settings: s, runs: make(map[key]*measurement), left: make(map[string]string)}
}

func (t *table) add(c *benchCase, callers, round int, m *measurement) {
	t.runs[key{c.name, callers, round}] = m
}

func (t *table) leaveOut(c *benchCase, why string) { t.left[c.name] = why }

// print writes a table in Markdown for each number of callers.
func (t *table) print(w io.Writer) {
	for _, callers := range t.settings.callers {
		fmt.Fprintf(w, "\n### %d callers\n\n", callers)
		fmt.Fprintln(w, "| | calls/s | p50 us | p99 us | CPU us a call | allocations client + server | CPU, ratio | throughput, ratio | p99, ratio | failed |")
		fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|")
		for _, c := range chosen(t.settings) {
			if t.left[c.name] == "" {
				t.row(w, c, callers)
			}
		}
	}
	t.printMemory(w)
	for i := range cases {
		if why := t.left[cases[i].name]; why != "" {
			fmt.Fprintf(w, "\nLeft out: %s: %s.\n", cases[i].name, why)
		}
	}
}

func (t *table) row(w io.Writer, c *benchCase, callers int) {
	column := func(format string, value func(*measurement) float64) string {
		return t.median(c, callers, format, func(m, _ *measurement) float64 { return value(m) })
	}
	ratio := func(value func(*measurement) float64) string {
		if c.baseline == "" {
			return "1"
		}
		return t.median(c, callers, "%.2f", func(m, base *measurement) float64 { return value(m) / value(base) })
	}
	fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s + %s | %s | %s | %s | %d |\n", c.name,
		column("%.0f", (*measurement).rate),
		column("%.0f", func(m *measurement) float64 { return float64(m.p50) / 1e3 }),
		column("%.0f", func(m *measurement) float64 { return float64(m.p99) / 1e3 }),
		column("%.1f", (*measurement).cpuPerCall),
		column("%.0f", func(m *measurement) float64 { return m.perCall(float64(m.clientAllocs)) }),
		column("%.0f", func(m *measurement) float64 { return m.perCall(float64(m.serverAllocs)) }),
		ratio((*measurement).cpuPerCall), ratio((*measurement).rate),
		ratio(func(m *measurement) float64 { return float64(m.p99) }), t.failed(c, callers))
}

// failed is how many calls of a case failed, in all rounds.
func (t *table) failed(c *benchCase, callers int) (n int) {
	for round := range t.settings.rounds {
		n += t.runs[key{c.name, callers, round}].failed
	}
	return n
}

// printMemory writes what the processes of the cases hold, and how long they take to
// begin.
func (t *table) printMemory(w io.Writer) {
	callers := t.settings.callers[len(t.settings.callers)-1]
	fmt.Fprintf(w, "\n### Memory and start, %d callers\n\n", callers)
	fmt.Fprintln(w, "| | first call ms | live heap MiB, client + server | resident MiB, client + server | more than the baseline | allocated bytes a call, client + server |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|")
	const mib = 1 << 20
	for _, c := range chosen(t.settings) {
		if t.left[c.name] != "" {
			continue
		}
		column := func(format string, value func(*measurement) float64) string {
			return t.median(c, callers, format, func(m, _ *measurement) float64 { return value(m) })
		}
		more := func(of func(*measurement) footprint) string {
			return t.median(c, callers, "%.1f", func(m, base *measurement) float64 {
				return (float64(of(m).Resident) - float64(of(base).Resident)) / mib
			})
		}
		clients, servers := func(m *measurement) footprint { return m.client }, func(m *measurement) footprint { return m.server }
		fmt.Fprintf(w, "| %s | %s | %s + %s | %s + %s | %s + %s | %s + %s |\n", c.name,
			column("%.1f", func(m *measurement) float64 { return float64(m.firstCall) / float64(time.Millisecond) }),
			column("%.1f", func(m *measurement) float64 { return float64(m.client.Live) / mib }),
			column("%.1f", func(m *measurement) float64 { return float64(m.server.Live) / mib }),
			column("%.1f", func(m *measurement) float64 { return float64(m.client.Resident) / mib }),
			column("%.1f", func(m *measurement) float64 { return float64(m.server.Resident) / mib }),
			more(clients), more(servers),
			column("%.0f", func(m *measurement) float64 { return m.perCall(float64(m.clientBytes)) }),
			column("%.0f", func(m *measurement) float64 { return m.perCall(float64(m.serverBytes)) }))
	}
}

// median is the middle of the rounds, with the range behind it. base is the run
// of the baseline in the same round.
func (t *table) median(c *benchCase, callers int, format string, value func(m, base *measurement) float64) string {
	return t.paired(c, c.baseline, callers, format, value)
}

// paired is median for another case than the baseline, "" for none.
func (t *table) paired(c *benchCase, other string, callers int, format string, value func(m, other *measurement) float64) string {
	var values []float64
	for round := range t.settings.rounds {
		m := t.runs[key{c.name, callers, round}]
		beside := m
		if other != "" {
			beside = t.runs[key{other, callers, round}]
		}
		values = append(values, value(m, beside))
	}
	slices.Sort(values)
	middle := fmt.Sprintf(format, values[len(values)/2])
	low, high := fmt.Sprintf(format, values[0]), fmt.Sprintf(format, values[len(values)-1])
	if low == high {
		return middle
	}
	if strings.HasPrefix(format, "%+") {
		return fmt.Sprintf("%s [%s to %s]", middle, low, high)
	}
	return fmt.Sprintf("%s [%s-%s]", middle, low, high)
}
