package ads

import (
	"strings"
	"testing"
)

func TestNamesHaveOneCanonicalForm(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, given, want, glob string }{
		{"a plain name is left alone", "payment:8080?b=1&a=2#x", "payment:8080?b=1&a=2#x", ""},
		{"context parameters are sorted", "xdstp://a/t/id?b=2&a=1", "xdstp://a/t/id?a=1&b=2", "xdstp://a/t/*?a=1&b=2"},
		{"the last of several counts", "xdstp://a/t/id?a=1&a=2", "xdstp://a/t/id?a=2", "xdstp://a/t/*?a=2"},
		{"no context, no question mark", "xdstp://a/t/id?", "xdstp://a/t/id", "xdstp://a/t/*"},
		{"needless escapes go", "xdstp://a/t/%61%3A8080", "xdstp://a/t/a:8080", "xdstp://a/t/*"},
		{"needful escapes stay", "xdstp://a/t/a%2fb%20c", "xdstp://a/t/a%2Fb%20c", "xdstp://a/t/*"},
		{"a path is part of the collection", "xdstp://a/t/x/y/z", "xdstp://a/t/x/y/z", "xdstp://a/t/x/y/*"},
		{"a collection is part of none", "xdstp://a/t/x/*", "xdstp://a/t/x/*", ""},
		{"a collection may be escaped", "xdstp://a/t/x/%2A", "xdstp://a/t/x/*", ""},
		{"no authority", "xdstp:///t/x", "xdstp:///t/x", "xdstp:///t/*"},
		{"a space in a parameter", "xdstp://a/t/x?k=a+b", "xdstp://a/t/x?k=a%20b", "xdstp://a/t/*?k=a%20b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseName(tt.given)
			if err != nil || got.canonical != tt.want || got.glob != tt.glob {
				t.Errorf("%+v, %v; want %q in %q", got, err, tt.want, tt.glob)
			}
			if again := Canonical(got.canonical); again != got.canonical {
				t.Errorf("Canonical(%q) = %q", got.canonical, again)
			}
		})
	}
}

func FuzzNames(f *testing.F) {
	for _, seed := range []string{
		"payment:8080", "xdstp://a/t/id?b=2&a=1", "xdstp://a/t/*", "xdstp:///t/%2f", "xdstp://[::1]:80/t/x?%20=1", "xdstp://a/t/x#e", "xdstp:a",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		n, err := parseName(name)
		if err != nil {
			return
		}
		again, err := parseName(n.canonical)
		if err != nil || again != n {
			t.Fatalf("%q is %+v, and that is %+v, %v", name, n, again, err)
		}
		if n.federated && !strings.HasPrefix(n.canonical, scheme) {
			t.Fatalf("%q is %q", name, n.canonical)
		}
	})
}
