package main

import (
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	table := &table{out: &b, indent: "  ", columns: []column{
		{title: "step", width: 6, left: true}, {title: "calls", width: 3}, {title: "end", left: true},
	}}
	rows := [][]string{{"ab", "7", ""}, {"größer", "123456", "x"}}
	table.header()
	for _, row := range rows {
		table.row(row...)
	}
	want := `
  step    calls  end
  ------  -----  ---
  ab          7
  größer  123456  x
`
	if "\n"+b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
}

func TestResult(t *testing.T) {
	t.Parallel()
	r := result{
		title: "7 break", retries: 3, breakers: "opened, closed",
		all:   summary{calls: 3000, failed: 1, refused: 1, p50: 1500 * time.Microsecond, p99: 20 * time.Millisecond, callers: []string{customerID}},
		after: summary{share: map[string]float64{"v1": 90, "v2": 10}, ada: map[string]float64{"v1": 100}},
	}
	want := "7 break|3000|1|1|99.9%|90%|10%|v1|1.5ms|20ms|3|opened, closed|shop/customer"
	if got := strings.Join(r.cells(), "|"); got != want {
		t.Errorf("cells %s\nwant  %s", got, want)
	}
	if len(r.cells()) != len(resultColumns()) {
		t.Error("cells and columns differ in number")
	}
	want = "3000 calls, 1 failed, 1 refused as expected; v1 90%, v2 10%, ada v1; p50 1.5ms, p99 20ms; 3 retries"
	if got := r.sentence(); got != want {
		t.Errorf("sentence %q\nwant     %q", got, want)
	}
}

func TestOKIsRoundedDown(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]summary{
		"-": {}, "100.0%": {calls: 3}, "99.9%": {calls: 100000, failed: 1}, "66.6%": {calls: 3, refused: 1},
	} {
		if got := ok(s); got != want {
			t.Errorf("%+v: %s, want %s", s, got, want)
		}
	}
}

func TestBreakers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		states map[string]string
		want   string
	}{
		{nil, "closed"},
		{map[string]string{"a": "closed", "b": "half-open"}, "half-open"},
		{map[string]string{"a": "half-open", "b": "open"}, "open"},
	} {
		if got := breakers(tt.states); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.states, got, tt.want)
		}
	}
}

func TestSpread(t *testing.T) {
	t.Parallel()
	for want, share := range map[string]map[string]float64{"-": nil, "v2": {"v2": 100}, "both": {"v1": 1, "v2": 99}} {
		if got := spread(share); got != want {
			t.Errorf("%v: %s, want %s", share, got, want)
		}
	}
}
