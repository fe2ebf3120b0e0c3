package httpmesh

import (
	"bytes"
	"io"
	"reflect"
	"strings"
)

// inMemory reports whether a Read of a body never waits: it is one of those for which
// [http.NewRequest] knows the length. A GetBody does not say so: what an application
// can open anew, such as a file, may be slow.
func inMemory(body io.Reader) bool {
	switch t := reflect.TypeOf(body); t {
	case reflect.TypeOf(io.NopCloser(nil)), reflect.TypeOf(io.NopCloser((*bytes.Reader)(nil))):
		// What http.NewRequest wraps a reader in has no other way to it (net/http looks
		// there in the same way).
		body, _ = reflect.TypeAssert[io.Reader](reflect.ValueOf(body).Field(0))
	}
	switch body.(type) {
	case *bytes.Reader, *bytes.Buffer, *strings.Reader:
		return true
	}
	return false
}
