package orca

import (
	"encoding/base64"
	"math"
	"strings"
	"testing"

	orcav3 "github.com/cncf/xds/go/xds/data/orca/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/balancer"
)

func message(tb testing.TB) []byte {
	tb.Helper()
	b, err := proto.Marshal(&orcav3.OrcaLoadReport{
		CpuUtilization: 0.5, MemUtilization: 0.25, RpsFractional: 100.5, Eps: 2, ApplicationUtilization: 0.75,
		NamedMetrics: map[string]float64{"queue": 7}, Utilization: map[string]float64{"disk": 0.125},
		RequestCost: map[string]float64{"cost": 1},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestBL8_EveryFormOfAReport(t *testing.T) {
	t.Parallel()
	want := balancer.LoadReport{
		CPU: 0.5, Memory: 0.25, QPS: 100.5, EPS: 2, Application: 0.75,
		Named: map[string]float64{"queue": 7}, Utilization: map[string]float64{"disk": 0.125},
	}
	encoded := base64.StdEncoding.EncodeToString(message(t))
	const text = "cpu_utilization=0.5, mem_utilization:0.25,rps_fractional=100.5,eps=2,application_utilization=0.75,named_metrics.queue=7,utilization.disk=0.125,request_cost.cost=1"
	for _, tt := range []struct {
		name, header, value string
		raw                 bool
	}{
		{"text", Header, "TEXT " + text, false},
		{"text without the word", Header, text, false},
		{"JSON", Header, `JSON {"cpu_utilization": 0.5, "mem_utilization": 0.25, "rps_fractional": 100.5, "eps": 2, "application_utilization": 0.75, "named_metrics": {"queue": 7}, "utilization": {"disk": 0.125}, "request_cost": {"cost": 1}}`, false},
		{"binary", Header, "BIN " + encoded, false},
		{"a binary header", HeaderBin, encoded, false},
		{"a binary header without padding", HeaderBin, strings.TrimRight(encoded, "="), false},
		{"gRPC metadata", HeaderBin, string(message(t)), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, found, err := Find(func(name string) string {
				if name == tt.header {
					return tt.value
				}
				return ""
			}, tt.raw)
			if err != nil || !found {
				t.Fatalf("found %v, error %v", found, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestBL8_BadReportsAreNone(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no pair":            "cpu_utilization",
		"no number":          "cpu_utilization=a",
		"not a number":       "cpu_utilization=NaN",
		"infinite":           "rps_fractional=Inf",
		"an unknown name":    "TEXT gpu=1",
		"no JSON":            "JSON {",
		"unknown JSON":       `JSON {"gpu": 1}`,
		"no base64":          "BIN ?",
		"no message":         "BIN /w",
		"too long a report":  "TEXT " + strings.Repeat("eps=1,", 4000),
		"a map of no number": `JSON {"named_metrics": {"a": "b"}}`,
	} {
		if r, err := Parse(text); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		for name, m := range map[string]*orcav3.OrcaLoadReport{
			"a field": {CpuUtilization: v}, "a metric": {NamedMetrics: map[string]float64{"a": v}}, "a utilization": {Utilization: map[string]float64{"a": v}},
		} {
			b, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if r, err := Decode(b); err == nil {
				t.Errorf("%s of %v: %+v", name, v, r)
			}
		}
	}
	if _, found, err := Find(func(string) string { return "" }, false); found || err != nil {
		t.Errorf("without headers: found %v, error %v", found, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(message(f))
	f.Add([]byte{0x09, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Decode(b)
		var want orcav3.OrcaLoadReport
		if proto.Unmarshal(b, &want) != nil || err != nil {
			return // what is refused on one side need not be on the other: strings need not be UTF-8 here
		}
		if got.CPU != want.GetCpuUtilization() || got.EPS != want.GetEps() || got.Application != want.GetApplicationUtilization() {
			t.Errorf("got %+v, want %v", got, &want)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("TEXT cpu_utilization=0.5")
	f.Add(`JSON {"eps": 1}`)
	f.Add("BIN CQAAAAAAAOA/")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = Parse(text) })
}
