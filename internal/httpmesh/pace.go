package httpmesh

import (
	"io"
	"net/http"
	"sync"

	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/pipeline"
)

// pacedBody is the body of a response that passes no faster than its pace.
type pacedBody struct {
	io.ReadCloser
	call   *pipeline.Call
	pace   *filter.Pace
	once   sync.Once
	closed chan struct{}
}

func newPacedBody(body io.ReadCloser, call *pipeline.Call, pace *filter.Pace) *pacedBody {
	return &pacedBody{ReadCloser: body, call: call, pace: pace, closed: make(chan struct{})}
}

// Read gives what was read when that may have passed. The wait ends with the call, or
// when the body is closed.
func (b *pacedBody) Read(p []byte) (int, error) {
	if most := b.pace.Piece(); len(p) > most {
		p = p[:most]
	}
	n, err := b.ReadCloser.Read(p)
	if ended := b.pace.Wait(b.call.Context(), n, b.closed); ended != nil {
		return 0, ended
	}
	return n, err
}

func (b *pacedBody) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.ReadCloser.Close()
}

// pacedWriter writes a response no faster than its pace.
type pacedWriter struct {
	http.ResponseWriter
	pace    *filter.Pace
	request *http.Request
}

// Write waits before each piece of p. The wait ends with the request's context.
func (w *pacedWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		piece := p[:min(len(p), w.pace.Piece())]
		if err := w.pace.Wait(w.request.Context(), len(piece), nil); err != nil {
			return n, err
		}
		m, err := w.ResponseWriter.Write(piece)
		n += m
		if err != nil {
			return n, err
		}
		p = p[m:]
	}
	return n, nil
}
