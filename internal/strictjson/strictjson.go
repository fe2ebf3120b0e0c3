// Package strictjson decodes a JSON object and names the field in every error.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
)

// Decode decodes the single JSON object in data into a pointer to a struct. A
// field that the struct does not have is an error.
func Decode(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return explain(err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("byte %d: text after the end of the object", decoder.InputOffset())
	}
	return nil
}

func explain(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("empty: want an object")
	}
	if mistyped, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if mistyped.Field == "" {
			return fmt.Errorf("want an object, got %s", mistyped.Value)
		}
		return fmt.Errorf("%s: want %s, got %s", mistyped.Field, kind(mistyped.Type), mistyped.Value)
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("byte %d: %w", syntax.Offset, err)
	}
	// encoding/json has no type for this error.
	if quoted, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		if name, unquoteErr := strconv.Unquote(quoted); unquoteErr == nil {
			return fmt.Errorf("%s: unknown field", name)
		}
	}
	return err
}

func kind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	}
	return "a number"
}
