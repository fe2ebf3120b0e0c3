package route

import (
	"math"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

func TestBU2_TheFirstRouteThatMatchesWins(t *testing.T) {
	t.Parallel()
	prefix := func(value string) discovery.RouteMatch {
		return discovery.RouteMatch{Path: discovery.PathMatch{Value: value}}
	}
	table := matching(to("charge", prefix("/charge")), to("charge card", prefix("/charge/card")), to("any", prefix("/")))
	for path, want := range map[string]string{
		"/charge":      "charge",
		"/charge/card": "charge",
		"/refund":      "any",
		"":             "",
	} {
		if got := chosen(table, get("payment", path)); got != want {
			t.Errorf("%q takes route %q, want %q", path, got, want)
		}
	}
}

func TestBU2_Paths(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		match discovery.PathMatch
		yes   []string
		no    []string
	}{
		{
			name:  "a prefix is any beginning",
			match: discovery.PathMatch{Value: "/charge"},
			yes:   []string{"/charge", "/charge/", "/charges", "/charge/card"},
			no:    []string{"/", "/charg", "/Charge", "/a/charge"},
		},
		{
			name:  "an empty prefix is everything",
			match: discovery.PathMatch{},
			yes:   []string{"/", "", "/charge"},
		},
		{
			name:  "a prefix without regard to case",
			match: discovery.PathMatch{Value: "/Charge", IgnoreCase: true},
			yes:   []string{"/charge", "/CHARGE/card"},
			no:    []string{"/charg"},
		},
		{
			name:  "an exact path",
			match: discovery.PathMatch{Kind: discovery.PathExact, Value: "/charge"},
			yes:   []string{"/charge"},
			no:    []string{"/charge/", "/charges", "/Charge", ""},
		},
		{
			name:  "an exact path without regard to case",
			match: discovery.PathMatch{Kind: discovery.PathExact, Value: "/charge", IgnoreCase: true},
			yes:   []string{"/CHARGE"},
			no:    []string{"/charge/"},
		},
		{
			name:  "a separated prefix ends at a slash or at the end",
			match: discovery.PathMatch{Kind: discovery.PathSeparatedPrefix, Value: "/charge"},
			yes:   []string{"/charge", "/charge/", "/charge/card"},
			no:    []string{"/charges", "/charge-card", "/charg", "/Charge"},
		},
		{
			name:  "a separated prefix without regard to case",
			match: discovery.PathMatch{Kind: discovery.PathSeparatedPrefix, Value: "/charge", IgnoreCase: true},
			yes:   []string{"/CHARGE", "/Charge/card"},
			no:    []string{"/CHARGES"},
		},
		{
			name:  "a regular expression matches the whole path",
			match: discovery.PathMatch{Kind: discovery.PathRegex, Regex: regex(t, "/charge/[0-9]+|/refund")},
			yes:   []string{"/charge/7", "/refund"},
			no:    []string{"/charge/7/", "/charge/", "a/charge/7", "/refunds", "/charge/7\n"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			table := matching(to("it", discovery.RouteMatch{Path: tt.match}))
			for _, path := range tt.yes {
				if chosen(table, get("payment", path)) != "it" {
					t.Errorf("%q does not match", path)
				}
			}
			for _, path := range tt.no {
				if chosen(table, get("payment", path)) != "" {
					t.Errorf("%q matches", path)
				}
			}
		})
	}
}

func TestBU2_TheQueryIsNoPartOfThePath(t *testing.T) {
	t.Parallel()
	table := matching(to("it", discovery.RouteMatch{Path: discovery.PathMatch{Kind: discovery.PathExact, Value: "/charge"}}))
	req := get("payment", "/charge")
	req.Query = "order=7"
	if chosen(table, req) != "it" {
		t.Error("a query keeps a path from matching")
	}
}

func TestBU2_EveryConditionMustHold(t *testing.T) {
	t.Parallel()
	table := matching(to("it", discovery.RouteMatch{
		Path: discovery.PathMatch{Value: "/charge"},
		Headers: []discovery.HeaderMatch{
			{Name: "x-user", String: discovery.StringMatch{Value: "ada"}},
			{Name: "x-tier", String: discovery.StringMatch{Value: "gold"}},
		},
		Query: []discovery.QueryMatch{
			{Name: "order", String: discovery.StringMatch{Value: "7"}},
			{Name: "debug", AnyValue: true},
		},
	}))
	request := func() *Request {
		return &Request{
			Method: "GET", Path: "/charge", Query: "order=7&debug",
			Header: headers{"x-user": {"ada"}, "x-tier": {"gold"}},
		}
	}
	if chosen(table, request()) != "it" {
		t.Fatal("the request that meets every condition does not match")
	}
	for name, spoil := range map[string]func(*Request){
		"path":              func(r *Request) { r.Path = "/refund" },
		"a header's value":  func(r *Request) { r.Header.(headers).Set("x-tier", "silver") },
		"a header":          func(r *Request) { r.Header.(headers).Del("x-user") },
		"all headers":       func(r *Request) { r.Header = nil },
		"a query's value":   func(r *Request) { r.Query = "order=8&debug" },
		"a query parameter": func(r *Request) { r.Query = "order=7" },
		"the whole query":   func(r *Request) { r.Query = "" },
	} {
		req := request()
		spoil(req)
		if chosen(table, req) != "" {
			t.Errorf("the request matches although it does not meet this condition: %s", name)
		}
	}
}

func TestBU2_QueryParameters(t *testing.T) {
	t.Parallel()
	value := func(v string) discovery.QueryMatch {
		return discovery.QueryMatch{Name: "q", String: discovery.StringMatch{Value: v}}
	}
	present := discovery.QueryMatch{Name: "q", AnyValue: true}
	tests := []struct {
		name  string
		match discovery.QueryMatch
		query string
		want  bool
	}{
		{name: "the value", match: value("7"), query: "q=7", want: true},
		{name: "among others", match: value("7"), query: "a=1&q=7&b=2", want: true},
		{name: "another value", match: value("7"), query: "q=8"},
		{name: "the first of several values counts", match: value("7"), query: "q=7&q=8", want: true},
		{name: "the second does not", match: value("8"), query: "q=7&q=8"},
		{name: "a name is case-sensitive", match: value("7"), query: "Q=7"},
		{name: "a longer name is another", match: value("7"), query: "qq=7"},
		{name: "escapes are decoded", match: value("a b&c"), query: "q=a+b%26c", want: true},
		{name: "in names too", match: value("7"), query: "%71=7", want: true},
		{name: "a broken escape is compared as it is", match: value("%zz"), query: "q=%zz", want: true},
		{name: "a missing parameter does not match an empty value", match: value(""), query: "a=1"},
		{name: "a parameter without a value is empty", match: value(""), query: "q", want: true},
		{name: "any value", match: present, query: "q=1", want: true},
		{name: "no value is any value", match: present, query: "a=1&q", want: true},
		{name: "a missing parameter is not any value", match: present, query: "a=1"},
		{name: "a broken query does no harm", match: value("7"), query: "&&=&;q=7&q=7", want: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			table := matching(to("it", discovery.RouteMatch{Query: []discovery.QueryMatch{tt.match}}))
			req := get("payment", "/")
			req.Query = tt.query
			if got := chosen(table, req) == "it"; got != tt.want {
				t.Errorf("%q matches: %t, want %t", tt.query, got, tt.want)
			}
		})
	}
}

func TestBU3_Headers(t *testing.T) {
	t.Parallel()
	text := func(kind discovery.StringMatchKind, value string) discovery.HeaderMatch {
		return discovery.HeaderMatch{Name: "x-user", String: discovery.StringMatch{Kind: kind, Value: value}}
	}
	inverted := func(m discovery.HeaderMatch) discovery.HeaderMatch {
		m.Invert = true
		return m
	}
	orEmpty := func(m discovery.HeaderMatch) discovery.HeaderMatch {
		m.TreatMissingAsEmpty = true
		return m
	}
	fold := func(m discovery.HeaderMatch) discovery.HeaderMatch {
		m.String.IgnoreCase = true
		return m
	}
	named := func(name, value string) discovery.HeaderMatch {
		return discovery.HeaderMatch{Name: name, String: discovery.StringMatch{Value: value}}
	}
	digits := discovery.HeaderMatch{Name: "x-user", String: discovery.StringMatch{Kind: discovery.MatchRegex, Regex: regex(t, "[0-9]+")}}
	within := discovery.HeaderMatch{Name: "x-user", Kind: discovery.HeaderRange, Start: -10, End: 10}
	present := discovery.HeaderMatch{Name: "x-user", Kind: discovery.HeaderPresent, Present: true}
	absent := discovery.HeaderMatch{Name: "x-user", Kind: discovery.HeaderPresent}
	user := func(values ...string) headers { return headers{"x-user": values} }

	tests := []struct {
		name   string
		match  discovery.HeaderMatch
		header headers
		want   bool
	}{
		{name: "exact", match: text(discovery.MatchExact, "ada"), header: user("ada"), want: true},
		{name: "exact, longer", match: text(discovery.MatchExact, "ada"), header: user("adam")},
		{name: "exact, other case", match: text(discovery.MatchExact, "ada"), header: user("Ada")},
		{name: "exact, case ignored", match: fold(text(discovery.MatchExact, "ada")), header: user("ADA"), want: true},
		{name: "prefix", match: text(discovery.MatchPrefix, "ad"), header: user("ada"), want: true},
		{name: "prefix, elsewhere", match: text(discovery.MatchPrefix, "da"), header: user("ada")},
		{name: "prefix, case ignored", match: fold(text(discovery.MatchPrefix, "AD")), header: user("ada"), want: true},
		{name: "suffix", match: text(discovery.MatchSuffix, "da"), header: user("ada"), want: true},
		{name: "suffix, elsewhere", match: text(discovery.MatchSuffix, "ad"), header: user("ada")},
		{name: "suffix, longer than the value", match: text(discovery.MatchSuffix, "xada"), header: user("ada")},
		{name: "suffix, case ignored", match: fold(text(discovery.MatchSuffix, "DA")), header: user("ada"), want: true},
		{name: "contains", match: text(discovery.MatchContains, "d"), header: user("ada"), want: true},
		{name: "contains, not", match: text(discovery.MatchContains, "x"), header: user("ada")},
		{name: "contains, case ignored", match: fold(text(discovery.MatchContains, "DA")), header: user("aDa"), want: true},
		{name: "regular expression", match: digits, header: user("42"), want: true},
		{name: "regular expression, whole value", match: digits, header: user("42a")},
		{name: "range, start is in", match: within, header: user("-10"), want: true},
		{name: "range, end is out", match: within, header: user("10")},
		{name: "range, within", match: within, header: user("9"), want: true},
		{name: "range, no number", match: within, header: user("nine")},
		{name: "range, inverted, no number", match: inverted(within), header: user("nine"), want: true},
		{name: "range, too large for a number", match: within, header: user("99999999999999999999")},
		{name: "present", match: present, header: user("ada"), want: true},
		{name: "present, empty value", match: present, header: user(""), want: true},
		{name: "present, missing", match: present, header: headers{}},
		{name: "present, inverted, missing", match: inverted(present), header: headers{}, want: true},
		{name: "present, inverted, there", match: inverted(present), header: user("ada")},
		{name: "absent, missing", match: absent, header: headers{}, want: true},
		{name: "absent, there", match: absent, header: user("ada")},
		{name: "absent, inverted, there", match: inverted(absent), header: user("ada"), want: true},
		{name: "inverted", match: inverted(text(discovery.MatchExact, "ada")), header: user("bob"), want: true},
		{name: "inverted, equal", match: inverted(text(discovery.MatchExact, "ada")), header: user("ada")},
		{name: "inverted, missing: a missing header matches nothing", match: inverted(text(discovery.MatchExact, "ada")), header: headers{}},
		{name: "missing as empty", match: orEmpty(text(discovery.MatchExact, "")), header: headers{}, want: true},
		{name: "missing as empty, not equal", match: orEmpty(text(discovery.MatchExact, "ada")), header: headers{}},
		{name: "missing as empty, inverted", match: orEmpty(inverted(text(discovery.MatchExact, "ada"))), header: headers{}, want: true},
		{name: "missing as empty is no number", match: orEmpty(within), header: headers{}},
		{name: "an empty value is there", match: text(discovery.MatchExact, ""), header: user(""), want: true},
		{name: "several values are joined by commas", match: text(discovery.MatchExact, "ada,bob"), header: user("ada", "bob"), want: true},
		{name: "one of several is not the value", match: text(discovery.MatchExact, "ada"), header: user("ada", "bob")},
		{name: "a binary header is never there", match: named("x-user-bin", "ada"), header: headers{"x-user-bin": {"ada"}}},
		{
			name:   "a binary header is never present",
			match:  discovery.HeaderMatch{Name: "x-user-bin", Kind: discovery.HeaderPresent, Present: true},
			header: headers{"x-user-bin": {"ada"}},
		},
		{name: ":method", match: named(":method", "PUT"), want: true},
		{name: ":scheme", match: named(":scheme", "http"), want: true},
		{name: ":authority", match: named(":authority", "payment:80"), want: true},
		{name: "host is :authority", match: named("host", "payment:80"), header: headers{"host": {"other"}}, want: true},
		{name: ":path has the query", match: named(":path", "/charge?order=7"), want: true},
		{name: "no headers at all", match: absent, header: nil, want: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			req := &Request{Method: "PUT", Scheme: "http", Host: "payment:80", Path: "/charge", Query: "order=7"}
			if tt.header != nil {
				req.Header = tt.header
			}
			if got := MatchHeader(&tt.match, req); got != tt.want {
				t.Errorf("MatchHeader(%+v, %v) = %t, want %t", tt.match, tt.header, got, tt.want)
			}
			table := matching(to("it", discovery.RouteMatch{Headers: []discovery.HeaderMatch{tt.match}}))
			if got := chosen(table, req) == "it"; got != tt.want {
				t.Errorf("the route matches: %t, want %t", got, tt.want)
			}
		})
	}
}

func TestBU2_PathWithoutAQueryHasNoQuestionMark(t *testing.T) {
	t.Parallel()
	m := discovery.HeaderMatch{Name: ":path", String: discovery.StringMatch{Value: "/charge"}}
	if !MatchHeader(&m, get("payment", "/charge")) {
		t.Error(":path does not match")
	}
}

func TestBU2_RuntimeFraction(t *testing.T) {
	t.Parallel()
	const draws = 10_000
	share := func(perMillion uint32) float64 {
		table := matching(to("some", discovery.RouteMatch{PerMillion: &perMillion}), to("rest", discovery.RouteMatch{}))
		hits := 0
		for range draws {
			if chosen(table, get("payment", "/")) == "some" {
				hits++
			}
		}
		return float64(hits) / draws
	}
	for perMillion, want := range map[uint32]float64{0: 0, 1_000_000: 1, 2_000_000: 1} {
		if got := share(perMillion); got != want {
			t.Errorf("%d per million: share %v, want exactly %v", perMillion, got, want)
		}
	}
	const p = 0.2
	// Five standard deviations: one failure in 1.7 million runs.
	if got, tolerance := share(200_000), 5*math.Sqrt(p*(1-p)/draws); math.Abs(got-p) > tolerance {
		t.Errorf("200000 per million: share %v, want %v ± %v", got, p, tolerance)
	}
}

func TestBU2_Cookies(t *testing.T) {
	t.Parallel()
	is := discovery.CookieMatch{Name: "canary", String: discovery.StringMatch{Value: "yes"}}
	not := is
	not.Invert = true
	for line, want := range map[string]bool{
		"canary=yes":               true,
		"a=b; canary=yes":          true,
		`a=b;canary="yes"`:         true,
		"canary=no":                false,
		"canary=no; canary=yes":    false, // the first counts
		"Canary=yes":               false,
		"xcanary=yes":              false,
		"canary":                   false,
		"a=b=c; canary=yes; other": true,
		"":                         false,
	} {
		req := get("payment", "/")
		if line != "" {
			req.Header = headers{"cookie": {line}}
		}
		for _, m := range []discovery.CookieMatch{is, not} {
			table := matching(to("it", discovery.RouteMatch{Cookies: []discovery.CookieMatch{m}}))
			if got := chosen(table, req) == "it"; got != (want != m.Invert) {
				t.Errorf("%q, inverted %t: match is %t", line, m.Invert, got)
			}
		}
	}
}

func TestBU2_Metadata(t *testing.T) {
	t.Parallel()
	cook := discovery.MetadataMatch{
		Filter: "jwt", Path: []string{"payload", "role"},
		Value: discovery.ValueMatch{Kind: discovery.ValueString, String: discovery.StringMatch{Value: "cook"}},
	}
	other := cook
	other.Invert = true
	for _, tt := range []struct {
		name     string
		metadata Metadata
		want     bool
	}{
		{"that", Metadata{"jwt": {"payload": map[string]any{"role": "cook"}}}, true},
		{"another", Metadata{"jwt": {"payload": map[string]any{"role": "guest"}}}, false},
		{"of another filter", Metadata{"rbac": {"payload": map[string]any{"role": "cook"}}}, false},
		{"none", nil, false},
	} {
		req := get("payment", "/")
		req.Metadata = tt.metadata
		for _, m := range []discovery.MetadataMatch{cook, other} {
			table := matching(to("it", discovery.RouteMatch{Metadata: []discovery.MetadataMatch{m}}), to("rest", discovery.RouteMatch{}))
			if got := chosen(table, req) == "it"; got != (tt.want != m.Invert) {
				t.Errorf("%s, inverted %t: match is %t", tt.name, m.Invert, got)
			}
		}
	}
}

func TestBU2_OnlyGRPC(t *testing.T) {
	t.Parallel()
	table := matching(to("it", discovery.RouteMatch{GRPC: true}))
	for contentType, want := range map[string]bool{
		"application/grpc":               true,
		"application/grpc+proto":         true,
		"application/grpc;charset=utf-8": true,
		"application/grpc-web":           false,
		"application/json":               false,
		"":                               false,
	} {
		req := get("payment", "/")
		if contentType != "" {
			req.Header = headers{"content-type": {contentType}}
		}
		if got := chosen(table, req) == "it"; got != want {
			t.Errorf("%q: match is %t", contentType, got)
		}
	}
}
