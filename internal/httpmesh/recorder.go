package httpmesh

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// recorder remembers the status of a response and applies the configuration's
// header operations before it is sent.
type recorder struct {
	http.ResponseWriter
	serving *serving // nil in tests
	status  int
	// paced writes the body if that must not pass as fast as it can; nil mostly.
	paced *pacedWriter
	// patience bounds the request's time; nil does not.
	patience *patience
}

// Unwrap is for [http.ResponseController].
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) WriteHeader(status int) {
	if r.gaveUp() {
		return
	}
	r.started(status)
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.gaveUp() {
		return 0, r.patience.Cause()
	}
	r.started(http.StatusOK)
	if r.paced != nil {
		return r.paced.Write(p)
	}
	return r.ResponseWriter.Write(p)
}

// WriteString spares the copy that Write would need of a string.
func (r *recorder) WriteString(s string) (int, error) {
	if r.gaveUp() {
		return 0, r.patience.Cause()
	}
	r.started(http.StatusOK)
	if r.paced != nil {
		return r.paced.Write([]byte(s))
	}
	return io.WriteString(r.ResponseWriter, s)
}

// started takes note of the final status; an informational one is not final.
func (r *recorder) started(status int) {
	if r.status != 0 || status < http.StatusOK && status != http.StatusSwitchingProtocols {
		return
	}
	r.status = status
	if r.serving == nil {
		return
	}
	if status != http.StatusSwitchingProtocols {
		r.serving.part(r.Header())
	}
	if r.serving.mutates {
		r.serving.mutateResponse(r.Header(), status)
	}
}

// wrapped returns the recorder with those optional interfaces that the
// underlying writer has: applications ask for them by type.
func (r *recorder) wrapped() http.ResponseWriter {
	_, flushes := r.ResponseWriter.(http.Flusher)
	_, hijacks := r.ResponseWriter.(http.Hijacker)
	_, reads := r.ResponseWriter.(io.ReaderFrom)
	switch {
	case flushes && hijacks && reads: // HTTP/1.1
		return http1Recorder{flushRecorder{r}}
	case flushes: // HTTP/2
		return flushRecorder{r}
	}
	return r
}

type flushRecorder struct{ *recorder }

func (r flushRecorder) Flush() {
	if r.gaveUp() {
		return
	}
	r.started(http.StatusOK)
	r.ResponseWriter.(http.Flusher).Flush()
}

// FlushError is for [http.ResponseController]: an application learns from it that
// its caller has gone.
func (r flushRecorder) FlushError() error {
	if r.gaveUp() {
		return r.patience.Cause()
	}
	r.started(http.StatusOK)
	return http.NewResponseController(r.ResponseWriter).Flush()
}

type http1Recorder struct{ flushRecorder }

func (r http1Recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if r.patience != nil {
		// The connection is the application's now, with its time.
		if err := r.patience.Release(); err != nil {
			return nil, nil, err
		}
		r.patience = nil
	}
	conn, buffered, err := r.ResponseWriter.(http.Hijacker).Hijack()
	if err == nil {
		r.serving.listener.Upgraded(conn, r.serving.connection())
		if r.status == 0 {
			r.status = http.StatusSwitchingProtocols
		}
	}
	return conn, buffered, err
}

func (r http1Recorder) ReadFrom(src io.Reader) (int64, error) {
	if r.patience != nil {
		return io.Copy(struct{ io.Writer }{r.recorder}, src) // piece by piece: each is a sign of life
	}
	r.started(http.StatusOK)
	if r.paced != nil {
		return io.Copy(r.paced, src)
	}
	return r.ResponseWriter.(io.ReaderFrom).ReadFrom(src)
}
