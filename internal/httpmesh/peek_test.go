package httpmesh

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestABodyThatFiltersHaveReadIsWhole(t *testing.T) {
	t.Parallel()
	const text = "0123456789"
	for _, tt := range []struct {
		limits []int
		want   string
		whole  bool
	}{
		{[]int{4}, "0123", false}, {[]int{10}, text, true}, {[]int{100}, text, true}, {[]int{0}, "", false}, {[]int{2, 8, 3}, "012", false},
	} {
		s := &serving{request: httptest.NewRequest(http.MethodPost, "/", strings.NewReader(text))}
		s.recorder.ResponseWriter = httptest.NewRecorder()
		var data []byte
		var whole bool
		for _, limit := range tt.limits {
			var err error
			if data, whole, err = s.peek(t.Context(), limit); err != nil {
				t.Fatal(err)
			}
		}
		if string(data) != tt.want || whole != tt.whole {
			t.Errorf("%v: %q, whole %v", tt.limits, data, whole)
		}
		rest, err := io.ReadAll(s.body)
		if err != nil || string(rest) != text {
			t.Errorf("%v: the application reads %q, %v", tt.limits, rest, err)
		}
	}
}
