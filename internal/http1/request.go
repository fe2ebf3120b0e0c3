package http1

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// validate refuses what [http.Transport] refuses. The text is net/http's.
func validate(req *http.Request) error {
	switch {
	case req.URL == nil:
		return errors.New("http: nil Request.URL")
	case req.Header == nil:
		return errors.New("http: nil Request.Header")
	case req.Method != "" && !validToken(req.Method):
		return fmt.Errorf("net/http: invalid method %q", req.Method)
	case req.Host == "" && req.URL.Host == "":
		return errors.New("http: no Host in request URL")
	}
	if err := validateHeader(req.Header, "header"); err != nil {
		return err
	}
	return validateHeader(req.Trailer, "trailer")
}

func validateHeader(h http.Header, what string) error {
	for name, values := range h {
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("net/http: invalid %s field name %q", what, name)
		}
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				// The value may be a secret.
				return fmt.Errorf("net/http: invalid %s field value for %q", what, name)
			}
		}
	}
	return nil
}

func validToken(s string) bool {
	return len(s) > 0 && strings.IndexFunc(s, func(r rune) bool { return !httpguts.IsTokenRune(r) }) < 0
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close() // its owner learns of the request's failure
	}
}

// InMemory is a request body that can be read without waiting.
type InMemory interface {
	io.Reader
	// InMemory reports whether all of the body is in memory.
	InMemory() bool
}

// writesAtOnce reports whether a request can be written by the caller before it
// begins to read: it is small and nothing about it can wait.
func (c *Conn) writesAtOnce(req *http.Request) bool {
	if req.Body == nil || req.Body == http.NoBody {
		return true
	}
	if req.ContentLength <= 0 || req.ContentLength > int64(c.options.writeBuffer()) || expectsContinue(req) {
		return false
	}
	body, ok := req.Body.(InMemory)
	return ok && body.InMemory()
}

func expectsContinue(req *http.Request) bool {
	return httpguts.HeaderValuesContainsToken(req.Header["Expect"], "100-continue")
}

// wantsGzip reports whether the response may be compressed for the connection's
// own sake, by the rules of [http.Transport].
func (c *Conn) wantsGzip(req *http.Request) bool {
	return !c.options.DisableCompression && req.Method != http.MethodHead &&
		req.Header.Get("Accept-Encoding") == "" && req.Header.Get("Range") == ""
}

// isUpgrade reports whether headers ask for, or agree to, another protocol.
func isUpgrade(h http.Header) bool {
	return h.Get("Upgrade") != "" && httpguts.HeaderValuesContainsToken(h["Connection"], "Upgrade")
}
