// Package cputime reads how much processor time this process has used, for
// benchmarks on machines that do other things too: unlike the time on the wall
// it counts only one's own work, that of the garbage collector included.
package cputime

import "testing"

// Loop runs f as often as the benchmark wants and reports, beside the time and
// the allocations, the processor time of the whole process for each run as
// "cpu-ns/op". Systems that do not tell report none.
func Loop(b *testing.B, f func()) {
	b.Helper()
	b.ReportAllocs()
	start, ok := used()
	for b.Loop() {
		f()
	}
	end, _ := used()
	if ok {
		b.ReportMetric(float64(end-start)/float64(b.N), "cpu-ns/op")
	}
}
