package meshtest_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// net/http closes such a connection half a second after it has answered.
func TestAnAnswerBeforeTheBodyWasReadLeavesNothing(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	stream := func() io.Reader { return io.LimitReader(zeros{}, size) }
	broken := errors.New("the file is gone")
	tests := []struct {
		name    string
		options []meshtest.Option
		fail    int
		body    func() io.Reader
		want    string // the error; "" is none
	}{
		{name: "a handler that reads no body", body: func() io.Reader { return strings.NewReader(strings.Repeat("x", size)) }},
		{name: "a stream to a handler that reads no body", body: stream},
		{name: "a stream, of which the first attempt fails", fail: 1, body: stream},
		{
			name: "a body that fails", want: broken.Error(),
			options: []meshtest.Option{meshtest.HTTP(80, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
			}))},
			body: func() io.Reader { return io.MultiReader(strings.NewReader("abc"), failing{broken}) },
		},
	}
	for _, tt := range tests {
		for _, after := range []string{"", ", killed", ", killed and restarted"} {
			t.Run(tt.name+after, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := meshtest.New(t)
					payment := w.Service("payment.shop", tt.options...)
					client := w.Workload("customer.shop").HTTPClient()
					payment.FailNext(tt.fail)
					req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://payment.shop/", tt.body())
					if err != nil {
						t.Fatal(err)
					}
					resp, err := client.Do(req)
					switch {
					case err == nil:
						_ = resp.Body.Close()
						fallthrough
					case tt.want != "":
						if err == nil && tt.want != "" || err != nil && !strings.Contains(err.Error(), tt.want) {
							t.Errorf("got %v, want %q", err, tt.want)
						}
					default:
						t.Error(err)
					}
					if after != "" {
						payment.Kill()
					}
					if after == ", killed and restarted" {
						payment.Restart()
					}
				})
			})
		}
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
