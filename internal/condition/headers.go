package condition

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// headers are those of the request. As in Envoy they cannot be iterated over, nor
// counted: an expression that tries has no value.
type headers struct{ e *evaluation }

var (
	_ traits.Indexer     = headers{}
	_ traits.Container   = headers{}
	_ traits.FieldTester = headers{}
)

var headersType = types.NewObjectType("envoy.headers", traits.ContainerType, traits.IndexerType, traits.FieldTesterType)

// find returns the readings of the header with a name.
func (h headers) find(name ref.Val) (key string, readings []string, err ref.Val) {
	text, ok := name.(types.String)
	if !ok {
		return "", nil, types.MaybeNoSuchOverloadErr(name)
	}
	key = strings.ToLower(string(text))
	if unseen(key) {
		return "", nil, types.NewErr("header %q cannot be matched", key)
	}
	readings, _ = h.e.header(key)
	switch key {
	case ":authority":
		key = "host"
	case ":path":
		key = "path"
	}
	return key, readings, nil
}

// Get returns a header; an error if it is missing.
func (h headers) Get(name ref.Val) ref.Val {
	key, readings, err := h.find(name)
	switch {
	case err != nil:
		return err
	case len(readings) == 0:
		return types.NewErr("no such key: %q", key)
	}
	return types.String(h.e.read(key, readings))
}

// Contains reports whether there is a header.
func (h headers) Contains(name ref.Val) ref.Val {
	_, readings, err := h.find(name)
	if err != nil {
		return err
	}
	return types.Bool(len(readings) > 0)
}

// IsSet reports whether there is a header.
func (h headers) IsSet(name ref.Val) ref.Val { return h.Contains(name) }

// ConvertToNative fails.
func (headers) ConvertToNative(to reflect.Type) (any, error) {
	return nil, fmt.Errorf("headers are not of type %s", to)
}

// ConvertToType fails.
func (headers) ConvertToType(ref.Type) ref.Val {
	return types.WrapErr(errors.New("headers cannot be converted"))
}

// Equal fails.
func (headers) Equal(ref.Val) ref.Val { return types.WrapErr(errors.New("headers cannot be compared")) }

// Type is a type that can be asked for a key, and nothing else.
func (headers) Type() ref.Type { return headersType }

// Value returns the headers.
func (h headers) Value() any { return h }
