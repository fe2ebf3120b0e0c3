package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestVerdict(t *testing.T) {
	t.Parallel()
	bad := sample{user: "bob", took: time.Second, reply: reply{Via: "grpc", Error: &failure{Kind: "reset", Message: "gone"}}}
	refused := bad
	refused.expected = true
	many := make([]sample, maxListed+2)
	for i := range many {
		many[i] = bad
	}
	for _, tt := range []struct {
		name      string
		samples   []sample
		brokenOff error
		want      []string
		err       string
	}{
		{"nothing failed", []sample{answer("bob", "v1", 0)}, nil, []string{"\n1 calls in 40s, 0 failed\n"}, ""},
		{"refusals were expected", []sample{refused}, nil, []string{"1 calls in 40s, 0 failed; 1 to the broken v2 were refused, as expected"}, ""},
		{"a failure is listed", []sample{answer("bob", "v1", 0), bad}, nil, []string{
			"2 calls in 40s, 1 failed\n", "  afterwards: 00:00:00.000 of bob by grpc after 1000ms: reset: gone\n",
		}, "1 calls failed"},
		{"not all of many", many, nil, []string{fmt.Sprintf("\n  and %d more\n", len(many)-maxListed)}, "22 calls failed"},
		{"broken off", nil, errors.New("interrupted"), []string{"\nbroken off: 0 calls in 40s, 0 failed\n"}, "interrupted"},
		{"broken off after a failure", []sample{bad}, errors.New("interrupted"), []string{"broken off: 1 calls"}, "interrupted\n1 calls failed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			s := &story{traffic: &traffic{samples: tt.samples}, out: &out}
			err := s.verdict(40*time.Second, tt.brokenOff)
			if err == nil && tt.err != "" || err != nil && err.Error() != tt.err {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("lacks %q:\n%s", want, out.String())
				}
			}
		})
	}
}

func TestWrongFlags(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"--rate 7: want 50 to 5000": {"--rate", "7"},
		`unexpected argument "x"`:   {"x"},
	} {
		var out, errs strings.Builder
		if code := demo(args, &out, &errs); code != 1 || !strings.Contains(errs.String(), want) {
			t.Errorf("%q: code %d, %q", args, code, errs.String())
		}
	}
}
