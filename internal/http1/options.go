package http1

import (
	"net/http"
	"time"
)

// Options are the settings of [http.Transport] that concern a connection, with
// the same names, defaults and meaning. The zero value is that of a zero
// http.Transport.
type Options struct {
	ReadBufferSize, WriteBufferSize              int
	MaxResponseHeaderBytes                       int64
	ResponseHeaderTimeout, ExpectContinueTimeout time.Duration
	DisableCompression, DisableKeepAlives        bool
}

// OptionsOf are those of a transport; nil is the zero value.
func OptionsOf(t *http.Transport) Options {
	if t == nil {
		return Options{}
	}
	return Options{
		ReadBufferSize: t.ReadBufferSize, WriteBufferSize: t.WriteBufferSize,
		MaxResponseHeaderBytes: t.MaxResponseHeaderBytes,
		ResponseHeaderTimeout:  t.ResponseHeaderTimeout, ExpectContinueTimeout: t.ExpectContinueTimeout,
		DisableCompression: t.DisableCompression, DisableKeepAlives: t.DisableKeepAlives,
	}
}

func (o *Options) readBuffer() int {
	if o.ReadBufferSize > 0 {
		return o.ReadBufferSize
	}
	return 4 << 10
}

func (o *Options) writeBuffer() int {
	if o.WriteBufferSize > 0 {
		return o.WriteBufferSize
	}
	return 4 << 10
}

func (o *Options) maxHeader() int64 {
	if o.MaxResponseHeaderBytes > 0 {
		return o.MaxResponseHeaderBytes
	}
	return 10 << 20
}
