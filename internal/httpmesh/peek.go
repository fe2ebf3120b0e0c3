package httpmesh

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// emptyBody is filter.Exchange.Body of a request without one.
func emptyBody(int) (data []byte, whole bool, err error) { return nil, true, nil }

// peek reads the beginning of the request's body for a filter. The application
// reads it again, and the rest after it.
func (s *serving) peek(ctx context.Context, limit int) (data []byte, whole bool, err error) {
	body := s.request.Body
	if s.body != nil {
		body = s.body
	}
	if deadline, ok := ctx.Deadline(); ok {
		// A caller that sends nothing must not hold the request for longer than it
		// may take. Servers whose connections have no deadlines end with them.
		control := http.NewResponseController(s.recorder.ResponseWriter)
		if err := control.SetReadDeadline(deadline); err == nil {
			defer func() { _ = control.SetReadDeadline(time.Time{}) }() // it was set before
		} else if !errors.Is(err, http.ErrNotSupported) {
			return nil, false, err
		}
	}
	data, err = io.ReadAll(io.LimitReader(body, int64(limit)+1))
	s.body = &peekedBody{Reader: io.MultiReader(bytes.NewReader(data), body), Closer: body}
	if len(data) > limit {
		return data[:limit], false, nil
	}
	return data, true, err
}

// peekedBody is a body of which the beginning was read already.
type peekedBody struct {
	io.Reader
	io.Closer
}
