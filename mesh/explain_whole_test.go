package mesh

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/internal/explain"
)

// Every field of an explanation reaches the application: one that is added below
// and forgotten here would be missing without a word.
func TestAnExplanationIsCarriedWhole(t *testing.T) {
	t.Parallel()
	var from explain.Explanation
	number := 0
	fill(reflect.ValueOf(&from).Elem(), &number)
	if number < 80 {
		t.Errorf("only %d values are carried: the test shows nothing", number)
	}
	same(t, "Explanation", reflect.ValueOf(from), reflect.ValueOf(*explanationOf(&from)))
}

// fill gives every value another one than zero.
func fill(v reflect.Value, number *int) {
	*number++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), number)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), number)
		fill(v.Index(1), number)
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(field, number)
		}
	case reflect.String:
		v.SetString(fmt.Sprint("text ", *number))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(float64(*number))
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*number) * int64(time.Millisecond))
	default:
		v.SetUint(uint64(*number))
	}
}

func same(t *testing.T, path string, a, b reflect.Value) {
	t.Helper()
	if a.Kind() != b.Kind() {
		t.Fatalf("%s: %v and %v", path, a.Type(), b.Type())
	}
	switch a.Kind() {
	case reflect.Pointer:
		if b.IsNil() {
			t.Errorf("%s is lost", path)
			return
		}
		same(t, path, a.Elem(), b.Elem())
	case reflect.Slice:
		if a.Len() != b.Len() {
			t.Errorf("%s is lost", path)
			return
		}
		for i := range a.Len() {
			same(t, fmt.Sprintf("%s[%d]", path, i), a.Index(i), b.Index(i))
		}
	case reflect.Struct:
		if a.NumField() != b.NumField() {
			t.Errorf("%s has %d fields and becomes %d", path, a.NumField(), b.NumField())
		}
		for field := range a.Type().Fields() {
			to := b.FieldByName(field.Name)
			if !to.IsValid() {
				t.Errorf("%s.%s is lost", path, field.Name)
				continue
			}
			same(t, path+"."+field.Name, a.FieldByName(field.Name), to)
		}
	default:
		if fmt.Sprint(a.Interface()) != fmt.Sprint(b.Interface()) {
			t.Errorf("%s: %v became %v", path, a, b)
		}
	}
	if named := b.Type().Name(); strings.Contains(b.Type().PkgPath(), "/internal/") {
		t.Errorf("%s has the type %s of an internal package: nobody sees what it has", path, named)
	}
}
