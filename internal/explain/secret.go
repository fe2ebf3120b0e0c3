package explain

import (
	"strings"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
)

// Hidden stands for a value that may be a secret.
const Hidden = "(hidden)"

// secretWords are found in the names of what is usually a secret.
var secretWords = []string{
	"auth", "cookie", "token", "secret", "passw", "key", "credential", "session", "signature", "jwt",
}

// Secret reports whether the value of a header, a cookie or a parameter with this
// name may be a secret. The authority is none, nor is what browsers are told of origins.
func Secret(name string) bool {
	name = strings.ToLower(name)
	if name == ":authority" || strings.HasPrefix(name, "access-control-") {
		return false
	}
	for _, word := range secretWords {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

func mismatch(index int, r *discovery.Route, miss *route.Miss) Mismatch {
	m := Mismatch{Index: index, Name: r.Name, Condition: miss.Condition, Want: miss.Want, Got: miss.Got}
	if Secret(miss.Name) || strings.HasPrefix(miss.Condition, "cookie ") {
		m.Want, m.Got = Hidden, hiddenUnlessAbsent(miss)
	}
	return m
}

// hiddenUnlessAbsent lets it be seen that there is no value at all.
func hiddenUnlessAbsent(miss *route.Miss) string {
	if miss.Absent() {
		return miss.Got
	}
	return Hidden
}

// describe is a route's match in words, without secrets.
func describe(m *discovery.RouteMatch) string {
	return route.Describe(m, Secret)
}
