package strictjson

import "testing"

type example struct {
	Name  string         `json:"name"`
	On    bool           `json:"on"`
	Count int            `json:"count"`
	List  []string       `json:"list"`
	Inner map[string]int `json:"inner"`
}

func TestDecode(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, data, want string
	}{
		{"an object is decoded", `{"name": "x", "on": true, "count": 1, "list": ["a"], "inner": {"b": 2}}` + "\n", ""},
		{"an unknown field is named", `{"name": "x", "colour": 1}`, `colour: unknown field`},
		{"a number for a string", `{"name": 1}`, `name: want a string, got number`},
		{"a string for a flag", `{"on": "yes"}`, `on: want true or false, got string`},
		{"a string for a number", `{"count": "1"}`, `count: want a number, got string`},
		{"a string for a list", `{"list": "a"}`, `list: want a list, got string`},
		{"a string for an object", `{"inner": "a"}`, `inner: want an object, got string`},
		{"a list at the top", `[]`, `want an object, got array`},
		{"a syntax error has its place", `{"name" "x"}`, `byte 9: invalid character '"' after object key`},
		{"nothing", ``, `empty: want an object`},
		{"two objects", `{} {}`, `byte 4: text after the end of the object`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var into example
			got := ""
			if err := Decode([]byte(test.data), &into); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
