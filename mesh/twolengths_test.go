package mesh_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestV44_AnUpstreamNeverGetsTwoLengths, whatever the application has set: one of the
// headers that say where a request ends, once, and the right one.
func TestV44_AnUpstreamNeverGetsTwoLengths(t *testing.T) {
	t.Parallel()
	x := newRawXDS(t)
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	heads := make(chan textproto.MIMEHeader, 1)
	var serving sync.WaitGroup
	serving.Go(func() { // until the listener is closed
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			reader := textproto.NewReader(bufio.NewReader(conn))
			if _, err := reader.ReadLine(); err == nil {
				head, err := reader.ReadMIMEHeader()
				if err != nil {
					t.Error(err)
				}
				heads <- head
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			}
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		serving.Wait()
	})
	x.set(rawDestination(t, "bank.shop:80", "bank"), rawCluster(t, "bank", ln.Addr().String(), ""))
	customer := x.join()
	for _, tt := range []struct {
		name string
		edit func(r *http.Request)
	}{
		{"nothing", func(*http.Request) {}},
		{"chunked beside a length", func(r *http.Request) { r.Header.Set("Transfer-Encoding", "chunked") }},
		{"chunked in lower case", func(r *http.Request) { r.Header["transfer-encoding"] = []string{"chunked"} }},
		{"another length", func(r *http.Request) { r.Header.Set("Content-Length", "1") }},
		{"another length in lower case", func(r *http.Request) { r.Header["content-length"] = []string{"1"} }},
		{"two lengths", func(r *http.Request) { r.Header["Content-Length"] = []string{"1", "3"} }},
		{"a length of what has none", func(r *http.Request) { r.ContentLength = -1; r.Header.Set("Content-Length", "1") }},
		{"chunked of what has none", func(r *http.Request) { r.ContentLength = -1; r.Header.Set("Transfer-Encoding", "chunked") }},
		{"both of what has none", func(r *http.Request) {
			r.ContentLength = -1
			r.Header["Transfer-Encoding"], r.Header["Content-Length"] = []string{"identity", "chunked"}, []string{"1"}
		}},
		{"the field chunked beside a length", func(r *http.Request) { r.TransferEncoding = []string{"chunked"} }},
		{"the field identity without a length", func(r *http.Request) { r.ContentLength, r.TransferEncoding = -1, []string{"identity"} }},
		{"no body and both", func(r *http.Request) {
			r.Method, r.Body, r.GetBody, r.ContentLength = http.MethodGet, nil, nil, 0
			r.Header.Set("Transfer-Encoding", "chunked")
			r.Header.Set("Content-Length", "3")
		}},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://bank.shop:80/", strings.NewReader("abc"))
		if err != nil {
			t.Fatal(err)
		}
		tt.edit(req)
		resp, err := customer.Transport().RoundTrip(req)
		if err != nil {
			t.Logf("%s: %v", tt.name, err)
			continue
		}
		_ = resp.Body.Close()
		head := <-heads
		lengths, codings := head.Values("Content-Length"), head.Values("Transfer-Encoding")
		switch {
		case len(lengths)+len(codings) > 1, len(codings) == 1 && codings[0] != "chunked", len(lengths) == 1 && lengths[0] != "3" && lengths[0] != "0":
			t.Errorf("%s: Content-Length %q, Transfer-Encoding %q", tt.name, lengths, codings)
		}
	}
}
