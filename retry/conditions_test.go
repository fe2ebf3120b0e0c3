package retry

import (
	"strings"
	"testing"
)

func TestParseConditions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want Conditions
		text string
	}{
		{"", 0, ""},
		{" , ,", 0, ""},
		{"5xx", On5xx, "5xx"},
		{"connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
			OnConnectFailure | OnRefusedStream | OnGRPCUnavailable | OnGRPCCancelled | OnRetriableStatusCodes,
			"connect-failure,refused-stream,retriable-status-codes,cancelled,unavailable"},
		{" gateway-error ,\treset , gateway-error", OnGatewayError | OnReset, "gateway-error,reset"},
		{"http3-post-connect-failure", OnHTTP3PostConnectFailure, "http3-post-connect-failure"},
	}
	for _, tt := range tests {
		got, err := ParseConditions(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("ParseConditions(%q) = %v, %v, want %v", tt.in, got, err, tt.want)
		}
		if got.String() != tt.text {
			t.Errorf("ParseConditions(%q).String() = %q, want %q", tt.in, got, tt.text)
		}
	}
}

func TestParseConditionsRefusesUnknownNames(t *testing.T) {
	t.Parallel()
	for in, name := range map[string]string{
		"5xx,gateway-errors": `"gateway-errors"`,
		"5XX":                `"5XX"`,
		"503":                `"503"`,
		"5xx;reset":          `"5xx;reset"`,
		"reset\x00":          `"reset\x00"`,
	} {
		got, err := ParseConditions(in)
		if err == nil || got != 0 {
			t.Errorf("ParseConditions(%q) = %v, %v, want an error", in, got, err)
			continue
		}
		want := "retry condition " + name + " is unknown: use one of 5xx, gateway-error, reset, "
		if !strings.HasPrefix(err.Error(), want) {
			t.Errorf("ParseConditions(%q): %q, want it to begin with %q", in, err, want)
		}
	}
}

// Fails if a condition has no name, or a name no condition.
func TestEveryConditionHasAName(t *testing.T) {
	t.Parallel()
	if last := Conditions(1) << (len(conditionNames) - 1); last != OnHTTP3PostConnectFailure {
		t.Fatalf("the last name is that of %#x, want %#x", uint32(last), uint32(OnHTTP3PostConnectFailure))
	}
	for i, name := range conditionNames {
		c, err := ParseConditions(name)
		if err != nil || c != 1<<i || c.String() != name {
			t.Errorf("name %q is condition %v, error %v", name, c, err)
		}
	}
}

func FuzzParseConditions(f *testing.F) {
	for _, name := range conditionNames {
		f.Add(name)
		f.Add(" " + name + ",,reset")
	}
	f.Add("5xx,unknown")
	f.Fuzz(func(t *testing.T, in string) {
		c, err := ParseConditions(in)
		if err != nil {
			if c != 0 {
				t.Fatalf("%q: conditions %v beside an error", in, c)
			}
			return
		}
		again, err := ParseConditions(c.String())
		if err != nil || again != c {
			t.Fatalf("%q is %v, which reads as %v, %v", in, c, again, err)
		}
	})
}
