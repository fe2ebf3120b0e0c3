package decode

import (
	"strings"
	"testing"
	"time"
)

func TestExpressionsMatchTheWholeString(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		source, in string
		want       bool
	}{
		{"a|ab", "ab", true},
		{"a|ab", "abc", false},
		{"b", "abc", false},
		{"^b$", "b", true},
		{"(?m)^a$", "a\nb", false},
		{"a.c", "a\nc", false},
		{"(?i)abc", "ABC", true},
		{`\Qa.b`, "a.b", true},
		{`\Qa.b`, "axb", false},
		{`\Qa)|(`, "a)|(", true},
		{`\Qa)|(`, "", false},
		{`[\d\-]+`, "1-2", true},
		{"", "", true},
		{"", "a", false},
		{"caf\u00e9+", "caf\u00e9\u00e9", true},
	} {
		if got := mustRegex(t, tt.source).MatchString(tt.in); got != tt.want {
			t.Errorf("%q matches %q: %v, want %v", tt.source, tt.in, got, tt.want)
		}
	}
}

func TestBU10_V46_ExpressionsAreBounded(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("x", maxRegexSource)
	if _, err := compileRegex(longest); err != nil {
		t.Errorf("plain text of the greatest length: %v", err)
	}
	for _, tt := range []struct{ name, source, want string }{
		{"too long", longest + "x", "regular expression of 1025 bytes: at most 1024 are allowed"},
		{"nested repetitions", "((a{100}){100}){100}", "error parsing regexp: invalid repeat count: `{100}`"},
		{"a long repetition of a long word", "(abcdefghij){1000}", `regular expression needs about 13000 instructions: at most 2048 are allowed`},
		{"many long repetitions", strings.Repeat("a{1000}", 100), "needs about 200001 instructions: at most 2048 are allowed"},
		{"deep nesting", strings.Repeat("(", 512) + strings.Repeat(")*", 256), "missing closing )"},
		{"a lookahead", "(?=a)", "error parsing regexp: invalid or unsupported Perl syntax: `(?=`"},
	} {
		start := time.Now()
		_, err := compileRegex(tt.source)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
		if spent := time.Since(start); spent > time.Second {
			t.Errorf("%s: took %v", tt.name, spent)
		}
	}
}
