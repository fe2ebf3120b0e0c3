package decode

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	templatematchv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	templaterewritev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/rewrite/uri_template/v3"

	"github.com/inboardmesh/inboard/discovery"
)

var pathTemplateFields = []messageFields{
	{message: (*templatematchv3.UriTemplateMatchConfig)(nil), read: "path_template"},
	{message: (*templaterewritev3.UriTemplateRewriteConfig)(nil), read: "path_template_rewrite"},
}

// The bounds of Envoy's templates.
const (
	maxTemplateVariables    = 5
	maxTemplateVariableName = 16
)

// What the operators match, and what text may stand beside them: the characters
// of a path segment (RFC 3986, pchar) without "*". Envoy took "=" for one of them
// later than the others.
const (
	segmentChars = `[a-zA-Z0-9\-._~%!$&'()+,;:@=]`
	oneSegment   = segmentChars + `+`
	anySegments  = `[a-zA-Z0-9\-._~%!$&'()+,;:@=/]*`
)

// templateMatch decodes path_match_policy: UriTemplateMatchConfig is the only
// one there is.
func (d *decoder) templateMatch(at path, m *corev3.TypedExtensionConfig) discovery.PathMatch {
	config := &templatematchv3.UriTemplateMatchConfig{}
	in := at.field("typed_config")
	if !d.unpack(in, m.GetTypedConfig(), config) {
		return discovery.PathMatch{}
	}
	expression, err := parseTemplate(config.GetPathTemplate())
	if err != nil {
		d.refusef(in.field("path_template"), "%q: %w", config.GetPathTemplate(), err)
		return discovery.PathMatch{}
	}
	program, err := regexp.Compile(`\A` + expression + `\z`)
	if err != nil {
		d.refusef(in.field("path_template"), "%q: %w", config.GetPathTemplate(), err)
		return discovery.PathMatch{}
	}
	return discovery.PathMatch{
		Kind: discovery.PathTemplate, Value: config.GetPathTemplate(),
		Regex: &discovery.Regex{Source: expression, Program: program},
	}
}

// templateRewrite decodes path_rewrite_policy, of which UriTemplateRewriteConfig
// is the only one. It puts the variables of the route's template together anew.
func (d *decoder) templateRewrite(at path, m *corev3.TypedExtensionConfig, match *discovery.PathMatch) *discovery.Substitution {
	config := &templaterewritev3.UriTemplateRewriteConfig{}
	in := at.field("typed_config")
	if !d.unpack(in, m.GetTypedConfig(), config) {
		return nil
	}
	if match.Kind != discovery.PathTemplate {
		d.refusef(at, "needs a match by path_match_policy, whose variables it uses")
		return nil
	}
	template := config.GetPathTemplateRewrite()
	replacement, err := parseTemplateRewrite(template, match.Regex.Program)
	if err != nil {
		d.refusef(in.field("path_template_rewrite"), "%q: %w", template, err)
		return nil
	}
	return &discovery.Substitution{
		Source: match.Value, Template: template, Program: match.Regex.Program, Replacement: replacement,
	}
}

// parseTemplate returns the expression of a template. Its segments are text, one
// operator ("*", "**"), or a variable ("{name}", "{name=*}", "{name=a/*}",
// "{name=**}") that may have text before and after; an operator may have text
// after it at the end of the template. Nothing but text follows "**".
func parseTemplate(template string) (string, error) {
	rest, ok := strings.CutPrefix(template, "/")
	if !ok {
		return "", errors.New(`must begin with "/"`)
	}
	p := templateParser{variables: make(map[string]struct{})}
	p.out.WriteString("/")
	for rest != "" {
		var err error
		if rest, err = p.piece(rest); err != nil {
			return "", err
		}
	}
	return p.out.String(), nil
}

type templateParser struct {
	out       strings.Builder
	variables map[string]struct{}
	// operator is whether the segment has an operator or a variable already, bare
	// whether that is an operator, after which only the last segment has text.
	operator, bare bool
	// many is whether there was a "**".
	many bool
}

// piece reads the next piece of a template and returns the rest.
func (p *templateParser) piece(rest string) (string, error) {
	switch rest[0] {
	case '/':
		if strings.HasPrefix(rest, "//") {
			return "", errors.New("has an empty segment")
		}
		p.out.WriteString("/")
		p.operator, p.bare = false, false
		return rest[1:], nil
	case '*', '{':
		if p.operator {
			return "", errors.New("has two operators in one segment")
		}
		p.operator = true
		if rest[0] == '{' {
			return p.variable(rest[1:])
		}
		if !strings.HasSuffix(p.out.String(), "/") {
			return "", errors.New(`has text before an operator: use a variable, "{name}"`)
		}
		p.bare = true
		return p.operatorOf(rest)
	}
	end := strings.IndexAny(rest, "/*{")
	if end < 0 {
		end = len(rest)
	} else if p.bare && rest[end] == '/' {
		return "", errors.New(`has text after an operator that is not at the end: use a variable, "{name}"`)
	}
	text := rest[:end]
	if err := checkSegment(text); err != nil {
		return "", err
	}
	p.out.WriteString(regexp.QuoteMeta(text))
	return rest[end:], nil
}

// operatorOf reads "*" or "**".
func (p *templateParser) operatorOf(rest string) (string, error) {
	if p.many {
		return "", errors.New(`has an operator after "**", which must be the last`)
	}
	if after, ok := strings.CutPrefix(rest, "**"); ok {
		p.many = true
		p.out.WriteString(anySegments)
		return after, nil
	}
	p.out.WriteString(oneSegment)
	return rest[1:], nil
}

// variable reads what follows the "{" of a variable.
func (p *templateParser) variable(rest string) (string, error) {
	inside, rest, ok := strings.Cut(rest, "}")
	if !ok {
		return "", errors.New(`has a "{" without "}"`)
	}
	name, pattern, hasPattern := strings.Cut(inside, "=")
	if err := checkVariable(name); err != nil {
		return "", err
	}
	if _, ok := p.variables[name]; ok {
		return "", fmt.Errorf("variable %q is there twice", name)
	}
	if len(p.variables) == maxTemplateVariables {
		return "", fmt.Errorf("has more than %d variables", maxTemplateVariables)
	}
	p.variables[name] = struct{}{}
	if !hasPattern {
		pattern = "*"
	}
	p.out.WriteString("(?P<" + name + ">")
	for i, segment := range strings.Split(pattern, "/") {
		if i > 0 {
			p.out.WriteString("/")
		}
		if segment == "*" || segment == "**" {
			if _, err := p.operatorOf(segment); err != nil {
				return "", err
			}
			continue
		}
		if err := checkSegment(segment); err != nil {
			return "", fmt.Errorf("variable %q: %w", name, err)
		}
		p.out.WriteString(regexp.QuoteMeta(segment))
	}
	p.out.WriteString(")")
	return rest, nil
}

func checkVariable(name string) error {
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return fmt.Errorf("variable %q: a name has letters, digits and \"_\", and begins with a letter", name)
		}
	}
	if name == "" || len(name) > maxTemplateVariableName {
		return fmt.Errorf("variable %q: a name has 1..%d characters", name, maxTemplateVariableName)
	}
	return nil
}

func checkSegment(text string) error {
	if text == "" {
		return errors.New("has an empty segment")
	}
	for _, c := range text {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && !strings.ContainsRune("-._~%!$&'()+,;:@=", c) {
			return fmt.Errorf("has %q, which a path segment does not have unescaped", c)
		}
	}
	return nil
}

// parseTemplateRewrite returns the replacement that a rewrite template is, for a
// match of program.
func parseTemplateRewrite(template string, program *regexp.Regexp) (string, error) {
	switch {
	case !strings.HasPrefix(template, "/"):
		return "", errors.New(`must begin with "/"`)
	case strings.Contains(template, "//"):
		return "", errors.New("has an empty segment")
	}
	var out strings.Builder
	for rest := template; rest != ""; {
		text, after, found := strings.Cut(rest, "{")
		if plain := strings.ReplaceAll(text, "/", ""); plain != "" {
			if err := checkSegment(plain); err != nil {
				return "", err
			}
		}
		out.WriteString(strings.ReplaceAll(text, "$", "$$"))
		if !found {
			break
		}
		name, after, ok := strings.Cut(after, "}")
		if !ok {
			return "", errors.New(`has a "{" without "}"`)
		}
		if name == "" || program.SubexpIndex(name) < 0 {
			return "", fmt.Errorf("the match has no variable %q", name)
		}
		out.WriteString("${" + name + "}")
		rest = after
	}
	return out.String(), nil
}
