package httpmesh

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// gone is the response of a caller that has gone.
type gone struct{ *httptest.ResponseRecorder }

var errGone = errors.New("the caller has gone")

func (gone) FlushError() error { return errGone }

// An application that streams hears of it.
func TestFlushThatFailsSaysSo(t *testing.T) {
	t.Parallel()
	rec := &recorder{ResponseWriter: gone{httptest.NewRecorder()}}
	if err := http.NewResponseController(rec.wrapped()).Flush(); !errors.Is(err, errGone) {
		t.Errorf("got %v", err)
	}
	if rec.status != http.StatusOK {
		t.Errorf("status %d", rec.status)
	}
}

func TestAStringThatIsWrittenBeginsTheResponse(t *testing.T) {
	t.Parallel()
	inner := httptest.NewRecorder()
	rec := &recorder{ResponseWriter: inner}
	writer, ok := rec.wrapped().(io.StringWriter)
	if !ok {
		t.Fatalf("%T writes no strings", rec.wrapped())
	}
	if _, err := writer.WriteString("paid"); err != nil {
		t.Fatal(err)
	}
	if rec.status != http.StatusOK || inner.Body.String() != "paid" {
		t.Errorf("status %d, body %q", rec.status, inner.Body)
	}
}
