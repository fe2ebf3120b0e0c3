package decode

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/inboardmesh/inboard/discovery"
)

// The bounds on a regular expression, which costs memory and time per request
// in proportion to its program. The longest plain text fits.
const (
	maxRegexSource  = 1024
	maxRegexProgram = 2048
)

var matcherFields = []messageFields{
	{message: (*matcherv3.StringMatcher)(nil), read: "exact prefix suffix safe_regex contains ignore_case"},
	{
		message: (*matcherv3.RegexMatcher)(nil),
		read:    "regex",
		// It says RE2, which is the only engine, and bounds the program, for
		// which maxRegexProgram stands in.
		harmless: "google_re2",
	},
}

// regex decodes a RegexMatcher; nil after a problem.
func (d *decoder) regex(at path, m *matcherv3.RegexMatcher) *discovery.Regex {
	r, err := compileRegex(m.GetRegex())
	if err != nil {
		d.refusef(at, "%w", err)
		return nil
	}
	return r
}

// compileRegex compiles an expression that must match a whole string. It takes
// time in proportion to maxRegexProgram at most, whatever the expression.
func compileRegex(source string) (*discovery.Regex, error) {
	if len(source) > maxRegexSource {
		return nil, fmt.Errorf("regular expression of %d bytes: at most %d are allowed", len(source), maxRegexSource)
	}
	parsed, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return nil, withoutText(err)
	}
	if n := programSize(parsed); n > maxRegexProgram {
		return nil, fmt.Errorf("regular expression needs about %d instructions: at most %d are allowed", n, maxRegexProgram)
	}
	text := source
	if strings.Contains(source, `\Q`) {
		// A quotation that nothing ends would swallow the parenthesis. The
		// canonical text has none.
		text = parsed.String()
	}
	program, err := regexp.Compile(`\A(?:` + text + `)\z`)
	if err != nil {
		return nil, err
	}
	return &discovery.Regex{Source: source, Program: program}, nil
}

// withoutText is the error of an expression without the expression, if that is quoted
// whole or from somewhere on: what a header is compared with may be a secret.
func withoutText(err error) error {
	if bad, ok := errors.AsType[*syntax.Error](err); ok {
		switch bad.Code {
		case syntax.ErrMissingParen, syntax.ErrUnexpectedParen, syntax.ErrMissingBracket:
			return errors.New(bad.Code.String())
		}
	}
	return err
}

// programSize estimates the instructions of an expression before its
// repetitions are written out.
func programSize(re *syntax.Regexp) uint64 {
	var n uint64 = 1
	for _, sub := range re.Sub {
		n += programSize(sub)
	}
	switch re.Op {
	case syntax.OpLiteral:
		n = uint64(len(re.Rune))
	case syntax.OpRepeat:
		// The parser keeps Min and Max at 1000 or less.
		n *= uint64(max(re.Min, re.Max, 1))
	case syntax.OpCapture, syntax.OpAlternate:
		n += uint64(len(re.Sub))
	}
	return n
}
