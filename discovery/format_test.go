package discovery_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/discovery"
)

func TestParseFormat(t *testing.T) {
	t.Parallel()
	text := func(s string) discovery.FormatPart { return discovery.FormatPart{Text: s} }
	for source, want := range map[string][]discovery.FormatPart{
		"":               {text("")},
		"plain":          {text("plain")},
		"100%%":          {text("100%")},
		"%%%HOSTNAME%%%": {text("%"), {Command: discovery.CommandHostname}, text("%")},
		"a%PROTOCOL%b":   {text("a"), {Command: discovery.CommandProtocol}, text("b")},
		"%REQ(X-A?X-B):12%": {
			{Command: discovery.CommandRequestHeader, Name: "x-a", Alternative: "x-b", MaxLength: 12},
		},
		"%QUERY_PARAM(A b)%":        {{Command: discovery.CommandQueryParameter, Name: "A b"}},
		"%START_TIME%":              {{Command: discovery.CommandStartTime, Text: "%Y-%m-%dT%H:%M:%E3SZ"}},
		"%START_TIME(%H:%M:%S.%f)%": {{Command: discovery.CommandStartTime, Text: "%H:%M:%S.%f"}},
	} {
		f, err := discovery.ParseFormat(source, discovery.OfRequest)
		if err != nil {
			t.Errorf("%q: %v", source, err)
			continue
		}
		if diff := cmp.Diff(&discovery.Format{Source: source, Parts: want}, f); diff != "" {
			t.Errorf("%q (-want +got):\n%s", source, diff)
		}
		literal, ok := f.Literal()
		if isText := len(want) == 1 && want[0].Command == discovery.CommandText; ok != isText || ok && literal != want[0].Text {
			t.Errorf("%q: literal %q, %t", source, literal, ok)
		}
	}
}

func TestParseFormatErrors(t *testing.T) {
	t.Parallel()
	const none = `"%" begins no command: write "%%" for a percent sign`
	for source, want := range map[string]string{
		"%":                   none,
		"100% sure":           none,
		"%HOSTNAME":           none,
		"%HOSTNAME ":          none,
		"%hostname%":          none,
		"%REQ(a":              `command REQ has no ")"`,
		"%REQ(a):x%":          `command REQ: length "x" is not a positive number`,
		"%REQ(a):0%":          `command REQ: length "0" is not a positive number`,
		"%REQ%":               `command REQ: "" is not the name of a header`,
		"%REQ()%":             `command REQ: "" is not the name of a header`,
		"%REQ(a b)%":          `command REQ: "a b" is not the name of a header`,
		"%REQ(a?b c)%":        `command REQ: "b c" is not the name of a header`,
		"%QUERY_PARAM%":       `command QUERY_PARAM needs the name of a parameter`,
		"%HOSTNAME(x)%":       `command HOSTNAME takes no arguments`,
		"%START_TIME(%Q)%":    `time layout: "%Q" is not supported`,
		"%START_TIME(%)%":     `time layout: "%" at the end: write "%%" for a percent sign`,
		"%START_TIME(%0f)%":   `time layout: "%0" is not supported`,
		"%RESP(x)%":           "command RESP is for responses only",
		"%RESPONSE_CODE%":     "command RESPONSE_CODE is for responses only",
		"%ENVIRONMENT(HOME)%": "command ENVIRONMENT is not supported: use one of ",
	} {
		_, err := discovery.ParseFormat(source, discovery.OfRequest)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %s", source, err, want)
		}
	}
}

func TestFormatTime(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 15, 6, 7, 8_009_010, time.UTC)
	for layout, want := range map[string]string{
		"":                     "",
		"%Y %y %m %d %e %j":    "2026 26 03 04  4 063",
		"%H:%I:%M:%S %p":       "15:03:06:07 PM",
		"%a %A %b %h %B":       "Wed Wednesday Mar Mar March",
		"%F %T %D %R %z %Z %%": "2026-03-04 15:06:07 03/04/26 15:06 +0000 UTC %",
		"%s":                   "1772636767",
		"%f %1f %3f %9f":       "008009010 0 008 008009010",
		"%E3S %E9S":            "07.008 07.008009010",
		"2006-01-02":           "2006-01-02",
	} {
		if err := discovery.CheckTimeLayout(layout); err != nil {
			t.Errorf("%q: %v", layout, err)
		}
		if got := discovery.FormatTime(at, layout); got != want {
			t.Errorf("%q gave %q, want %q", layout, got, want)
		}
	}
	if got := discovery.FormatTime(at, "%Q"); got != "" {
		t.Errorf("a layout that is wrong gave %q", got)
	}
}

func FuzzParseFormat(f *testing.F) {
	for _, source := range []string{"", "a%%b", "%REQ(a?b):3%", "%START_TIME(%E3S%s)%", "%HOSTNAME", "%RESP(x)%", "%%%"} {
		f.Add(source)
	}
	f.Fuzz(func(t *testing.T, source string) {
		format, err := discovery.ParseFormat(source, discovery.OfResponse)
		if err != nil {
			return
		}
		if len(format.Parts) == 0 {
			t.Fatal("no parts")
		}
		for _, part := range format.Parts {
			if part.Command == discovery.CommandStartTime && discovery.CheckTimeLayout(part.Text) != nil {
				t.Errorf("a bad layout was taken: %q", part.Text)
			}
		}
		if text, ok := format.Literal(); ok && strings.ReplaceAll(source, "%%", "%") != text {
			t.Errorf("%q is the literal %q", source, text)
		}
	})
}
