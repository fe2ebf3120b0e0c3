package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// rejectedRules are parts of a rule that were translated and that every client of
// the mesh then refused.
var rejectedRules = []struct{ name, rule, want string }{
	{
		"a group that the pattern has not", `rewrite: {uriRegexRewrite: {match: "/a", rewrite: "\\3"}}`,
		`spec.http[0].rewrite.uriRegexRewrite.rewrite: has "\3", but the last group of the expression is "\0"`,
	},
	{
		"a backslash at the end", `rewrite: {uriRegexRewrite: {match: "/a", rewrite: "/b\\"}}`,
		`spec.http[0].rewrite.uriRegexRewrite.rewrite: ends with a backslash: write two for one`,
	},
	{
		"an expression that is too large", `match: [{uri: {regex: "/(a{1,900})b{1,900}c{1,900}"}}]`,
		`spec.http[0].match[0]: clients refuse the translation: match.safe_regex: regular expression needs about`,
	},
	{
		"an authority that is none", `rewrite: {authority: "a b"}`,
		`spec.http[0].rewrite.authority: "a b" is not a host name`,
	},
}

func rejectedYAML(rule string) string {
	return "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: payment, namespace: shop}\nspec:\n" +
		"  hosts: [payment]\n  http:\n  - " + rule + "\n    route: [{destination: {host: payment}}]\n"
}

func TestWhatClientsRejectIsNotValid(t *testing.T) {
	t.Parallel()
	requests := filepath.Join(t.TempDir(), "requests.jsonl")
	write(t, requests, `{"url":"http://payment.shop/"}`)
	good := canaryDir(t, canaryYAML)
	for _, c := range rejectedRules {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := canaryDir(t, rejectedYAML(c.rule))
			want := filepath.Join(dir, "routes.yaml") + ":7:"
			for _, args := range [][]string{
				{"validate", dir},
				{"validate", dir, "-o", "json"},
				{"explain", "--config", dir, "GET", "http://payment.shop/"},
				{"diff", good, dir, "--requests", requests},
				{"diff", dir, good, "--requests", requests},
			} {
				code, stdout, stderr := call(t, args...)
				said := stderr
				if args[len(args)-1] == "json" {
					said, want := stdout, `"line": 7`
					if code != exitFailed || !strings.Contains(said, want) {
						t.Errorf("%v: code %d, no %s in\n%s", args, code, want, said)
					}
					continue
				}
				if code == exitOK || !strings.Contains(said, want) || !strings.Contains(said, c.want) || stdout != "" {
					t.Errorf("%v: code %d, no %s ... %s in\n%s%s", args, code, want, c.want, said, stdout)
				}
			}
		})
	}
}

func TestTheControlPlaneDoesNotServeWhatClientsReject(t *testing.T) {
	t.Parallel()
	dir := canaryDir(t, rejectedYAML(rejectedRules[2].rule))
	code, stdout, stderr := call(t, "control-plane", "--config", dir, "--listen", "", "--plaintext-listen", "127.0.0.1:0", "--status", "")
	if code != exitFailed || stdout != "" || !strings.Contains(stderr, "clients refuse the translation: match.safe_regex") {
		t.Errorf("code %d, %q, %q", code, stdout, stderr)
	}
}
