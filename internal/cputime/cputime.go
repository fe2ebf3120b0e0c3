// Package cputime reads how much processor time this process has used, for
// benchmarks on machines that do other things too: unlike the time on the wall
// it counts only one's own work, that of the garbage collector included.
package cputime

// Benchmark is a *testing.B. Only tests may import the package testing.
type Benchmark interface {
	Helper()
	ReportAllocs()
	Loop() bool
	ReportMetric(n float64, unit string)
}

// Loop runs f as often as the benchmark wants and reports, beside the time and
// the allocations, the processor time of the whole process for each run as
// "cpu-ns/op". Systems that do not tell report none.
func Loop(b Benchmark, f func()) {
	b.Helper()
	b.ReportAllocs()
	start, ok := Used()
	n := 0
	for b.Loop() {
		f()
		n++
	}
	end, _ := Used()
	if ok {
		b.ReportMetric(float64(end-start)/float64(n), "cpu-ns/op")
	}
}
