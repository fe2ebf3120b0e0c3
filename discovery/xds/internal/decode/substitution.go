package decode

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/inboardmesh/inboard/discovery"
)

// maxSubstitution bounds the text that is put in for each match.
const maxSubstitution = 1024

var substitutionFields = []messageFields{
	{message: (*matcherv3.RegexMatchAndSubstitute)(nil), read: "pattern substitution"},
}

// substitution decodes a RegexMatchAndSubstitute; nil without one, and after a
// problem.
func (d *decoder) substitution(at path, m *matcherv3.RegexMatchAndSubstitute) *discovery.Substitution {
	if m == nil {
		return nil
	}
	source := m.GetPattern().GetRegex()
	program, err := compileSearch(source)
	if err != nil {
		d.refusef(at.field("pattern"), "%w", err)
		return nil
	}
	replacement, err := parseReplacement(m.GetSubstitution(), program.NumSubexp())
	if err != nil {
		d.refusef(at.field("substitution"), "%q: %w", m.GetSubstitution(), err)
		return nil
	}
	return &discovery.Substitution{
		Source: source, Template: m.GetSubstitution(), Program: program, Replacement: replacement,
	}
}

// compileSearch compiles an expression that matches parts of a string, within
// the same bounds as one that matches all of it.
func compileSearch(source string) (*regexp.Regexp, error) {
	if _, err := compileRegex(source); err != nil {
		return nil, err
	}
	return regexp.Compile(source)
}

// parseReplacement translates the replacement of RE2, where "\1" is the first
// group and "\\" a backslash, into that of package regexp.
func parseReplacement(text string, groups int) (string, error) {
	if len(text) > maxSubstitution {
		return "", fmt.Errorf("has %d bytes: at most %d are allowed", len(text), maxSubstitution)
	}
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '$':
			out.WriteString("$$")
		case c < ' ' || c == 0x7f:
			return "", errors.New("has a control character")
		case c != '\\':
			out.WriteByte(c)
		case i+1 == len(text):
			return "", errors.New(`has a "\" at the end: write "\\"`)
		default:
			i++
			next := text[i]
			switch {
			case next == '\\':
				out.WriteByte('\\')
			case next < '0' || next > '9':
				return "", fmt.Errorf(`has "\%c": only "\0" to "\9" and "\\" have a meaning`, next)
			case int(next-'0') > groups:
				return "", fmt.Errorf(`has "\%c", but the pattern has %d groups`, next, groups)
			default:
				out.WriteString("${" + string(next) + "}")
			}
		}
	}
	return out.String(), nil
}
