package slim

import (
	"maps"
	"runtime"
	"testing"
)

func TestFit(t *testing.T) {
	t.Parallel()
	filled := func(n int) map[int]int {
		m := make(map[int]int)
		for i := range n {
			m[i] = i
		}
		return m
	}
	for _, tt := range []struct {
		name       string
		held, left int
		copied     bool
	}{
		{"a small map stays", 1000, 0, false},
		{"a map that is half full stays", 4000, 2000, false},
		{"a map that was four times as large is copied", 4000, 1000, true},
		{"a map that is empty is copied", 4000, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, most := filled(tt.held), 0
			m = Fit(m, &most)
			maps.DeleteFunc(m, func(key, _ int) bool { return key >= tt.left })
			got := Fit(m, &most)
			if !maps.Equal(got, filled(tt.left)) {
				t.Errorf("%d entries are left, want the first %d", len(got), tt.left)
			}
			got[-1] = 1
			if _, same := m[-1]; same == tt.copied {
				t.Errorf("copied is %v, want %v", !same, tt.copied)
			}
			if want := tt.held; tt.copied {
				if most != tt.left {
					t.Errorf("after the copy %d are the most, want %d", most, tt.left)
				}
			} else if most != want {
				t.Errorf("%d are the most, want %d", most, want)
			}
		})
	}
}

func TestAnEntryDeletedAfterTheOtherCostsLittle(t *testing.T) {
	t.Parallel()
	m, most, copies := make(map[int]int), 0, 0
	const n = 1 << 16
	for i := range n {
		m[i] = i
	}
	for i := range n {
		delete(m, i)
		before := most
		if m = Fit(m, &most); most < before {
			copies++
		}
	}
	if len(m) > 0 || copies == 0 || copies > 4 {
		t.Errorf("%d entries are left, after %d copies", len(m), copies)
	}
}

// The memory of a map that was large is there again: the reason for all this.
func TestMemoryIsGivenBack(t *testing.T) {
	m, most := make(map[int][16]int), 0
	for i := range 1 << 16 {
		m[i] = [16]int{}
	}
	full := heap()
	for i := range 1 << 16 {
		delete(m, i)
		m = Fit(m, &most)
	}
	if after := heap(); full-after < 8<<20 {
		t.Errorf("%d bytes with the entries, %d without", full, after)
	}
	runtime.KeepAlive(m)
}

func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
