package filter_test

import (
	"net/url"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/inboardmesh/inboard/internal/filter"
)

func TestD7_APathHasOneReadingOrNone(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ target, want string }{ // "" is refused
		{"/", "/"},
		{"/admin", "/admin"},
		{"/admin/", "/admin/"},
		{"/%61dmin", "/admin"},
		{"/%61%64%6D%69%6e", "/admin"},
		{"/a.b/.c/d..e/...", "/a.b/.c/d..e/..."},
		{"/caf%c3%a9", "/caf%C3%A9"},
		{"/a%20b+c", "/a%20b+c"},
		{"/a:b@c!$&'()*,=~", "/a:b@c!$&'()*,=~"},
		{"/a%3Db", "/a%3Db"},
		{"//admin", ""},
		{"/admin//", ""},
		{"/a//b", ""},
		{"/./admin", ""},
		{"/admin/.", ""},
		{"/x/../admin", ""},
		{"/..", ""},
		{"/%2e%2e/admin", ""},
		{"/pub/..%2fadmin", ""},
		{"/admin%2fx", ""},
		{"/admin%2Fx", ""},
		{"/a%2eb", ""},
		{"/a%5cb", ""},
		{`/a\b`, ""},
		{"/admin;a=b", ""},
		{"/..;/admin", ""},
		{"/admin%3ba", ""},
		{"/admin%00", ""},
		{"/admin%0a", ""},
		{"/admin%7f", ""},
		{"/admin#x", ""},
		{"/admin%23x", ""},
		{"/admin%3fx", ""},
		{"/%252e%252e/admin", ""},
		{"/a%25", ""},
		{"/%c0%ae%c0%ae/admin", ""},
		{"/%ff", ""},
		{"*", ""},
		{"", ""},
	} {
		u := &url.URL{Path: tt.target, RawPath: tt.target}
		if decoded, err := url.PathUnescape(tt.target); err == nil {
			u.Path = decoded
		}
		got, ok := filter.CanonicalPath(u.EscapedPath(), u.Path)
		if ok != (tt.want != "") || got != tt.want {
			t.Errorf("%s: got %q, %t, want %q", tt.target, got, ok, tt.want)
		}
	}
}

// FuzzCanonicalPath: a path that is accepted is clean, says the same in every
// spelling, and is its own canonical form.
func FuzzCanonicalPath(f *testing.F) {
	for _, seed := range []string{
		"/admin", "/%61dmin", "//a", "/a/./b", "/a/../b", "/a%2fb", "/a%2e%2e/b", "/a;b", "/..;/a", `/a\b`, "/a%5cb",
		"/a%00", "/a#b", "/a%23b", "/a%3fb", "/%252e", "/%c0%af", "/caf%C3%A9", "/%ff", "/a/", "/a/..", "*", "a", "/%", "/%zz",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Opaque != "" {
			return
		}
		canonical, ok := filter.CanonicalPath(u.EscapedPath(), u.Path)
		if !ok {
			return
		}
		decoded, err := url.PathUnescape(canonical)
		if err != nil || decoded != u.Path {
			t.Errorf("%q: %q says %q, the application reads %q", target, canonical, decoded, u.Path)
		}
		if again, ok := filter.CanonicalPath(canonical, decoded); !ok || again != canonical {
			t.Errorf("%q: %q is not its own canonical form, but %q", target, canonical, again)
		}
		for _, reading := range []string{u.Path, canonical} {
			if clean := path.Clean(reading); clean != reading && clean+"/" != reading {
				t.Errorf("%q: %q would be cleaned to %q", target, reading, clean)
			}
			if strings.ContainsAny(reading, "\\;#?\x00") || !utf8.ValidString(reading) {
				t.Errorf("%q: %q can be cut", target, reading)
			}
		}
		if twice, err := url.PathUnescape(decoded); err == nil && twice != decoded {
			t.Errorf("%q: decoded twice it is %q", target, twice)
		}
	})
}
