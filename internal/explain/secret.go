package explain

import (
	"strings"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
)

// hidden stands for a value that may be a secret.
const hidden = "(hidden)"

// secretWords are found in the names of what is usually a secret.
var secretWords = []string{
	"auth", "cookie", "token", "secret", "passw", "key", "credential", "session", "signature", "jwt",
}

// secret reports whether the value of a header, a cookie or a parameter with this
// name may be a secret. The authority is none.
func secret(name string) bool {
	name = strings.ToLower(name)
	if name == ":authority" {
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
	if secret(miss.Name) || strings.HasPrefix(miss.Condition, "cookie ") {
		m.Want, m.Got = hidden, hiddenUnlessAbsent(miss)
	}
	return m
}

// hiddenUnlessAbsent lets it be seen that there is no value at all.
func hiddenUnlessAbsent(miss *route.Miss) string {
	if miss.Absent() {
		return miss.Got
	}
	return hidden
}

// describe is a route's match in words, without secrets.
func describe(m *discovery.RouteMatch) string {
	return route.Describe(m, secret)
}
