package httpmesh

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// opened is a source of which GetBody gives another reader: it can be had again, but
// is not in memory.
func opened(t *testing.T, source io.Reader) *http.Request {
	t.Helper()
	req := newRequest(t.Context(), t, http.MethodPost, paymentURL, source)
	req.ContentLength = 2
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("42")), nil }
	return req
}

// deaf is a body of which Close ends no Read.
type deaf struct{ io.Reader }

func (deaf) Close() error { return nil }

// stuck is a body whose Read waits for so long, whoever closes it.
func stuck(d time.Duration) io.Reader {
	r, w := io.Pipe()
	time.AfterFunc(d, func() { _ = w.Close() })
	return deaf{r}
}

func TestAnEarlyAnswerDoesNotWaitForABodyThatCanBeHadAgain(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		w := newWorld(t, newTarget(protocol), func(rw http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(rw).EnableFullDuplex()
			rw.WriteHeader(http.StatusUnauthorized)
		})
		begin := time.Now()
		resp := w.do(opened(t, stuck(time.Minute)))
		_ = resp.Body.Close()
		if took := time.Since(begin); resp.StatusCode != http.StatusUnauthorized || took > time.Second {
			t.Errorf("status %d after %v", resp.StatusCode, took)
		}
		time.Sleep(time.Minute) // the body's reader comes back
		w.idle()
	})
}

// BT1, BT2: the time of a call, and of an attempt, is over although its body is being
// read, and it is the call's own time that was over, not the body that failed.
func TestBT1_ABodyThatCanBeHadAgainIsBoundedByTheCallsTime(t *testing.T) {
	t.Parallel()
	for _, policy := range []retry.Policy{{}, {MaxRetries: 1, On: retry.On5xx, PerTryTimeout: 400 * time.Millisecond}} {
		onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
			w := newWorld(t, newTarget(protocol, limited(time.Second), retrying(policy)), func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if policy.MaxRetries > 0 {
					time.Sleep(time.Minute) // with the second body, which is there at once, the time is over as well
				}
			})
			begin := time.Now()
			resp, err := w.transport.RoundTrip(opened(t, stuck(time.Minute)))
			want, kind := time.Second, outcome.Timeout
			if policy.MaxRetries > 0 {
				want, kind = 0, outcome.PerTryTimeout // two attempts and a back-off below 25 ms
			}
			failed(t, resp, err, kind)
			if took := time.Since(begin); want > 0 && took != want || took > time.Second {
				t.Errorf("it took %v: %v", took, err)
			}
			time.Sleep(2 * time.Minute)
			w.idle()
		})
	}
}

func TestWhichBodiesAreInMemory(t *testing.T) {
	t.Parallel()
	type own struct{ *bytes.Reader }
	for name, tt := range map[string]struct {
		body io.Reader
		want bool
	}{
		"a reader of bytes":              {bytes.NewReader([]byte("42")), true},
		"a buffer":                       {bytes.NewBufferString("42"), true},
		"a reader of a string":           {strings.NewReader("42"), true},
		"a pipe":                         {deaf{}, false},
		"a reader that is limited":       {io.LimitReader(strings.NewReader("42"), 1), false},
		"an application's own reader":    {own{bytes.NewReader([]byte("42"))}, false},
		"a reader of bytes, limited too": {http.MaxBytesReader(nil, io.NopCloser(strings.NewReader("42")), 1), false},
	} {
		if got := inMemory(tt.body); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
		if got := inMemory(newRequest(t.Context(), t, http.MethodPost, paymentURL, tt.body).Body); got != tt.want {
			t.Errorf("%s, in a request: %t", name, got)
		}
	}
}
