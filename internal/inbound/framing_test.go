package inbound

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// pieces hands out a text in pieces of the given length.
type pieces struct {
	text string
	size int
}

func (p *pieces) Read(to []byte) (int, error) {
	if p.text == "" {
		return 0, io.EOF
	}
	n := copy(to[:min(len(to), p.size)], p.text)
	p.text = p.text[n:]
	return n, nil
}

// followed reads what a followed connection hands on.
type followed struct {
	reader framedReader
	inner  io.Reader
	handed bytes.Buffer
}

func newFollowed(text string, size int) *followed {
	return &followed{reader: framedReader{tracked: &trackedConn{}}, inner: &pieces{text, size}}
}

func (f *followed) Read(p []byte) (int, error) {
	n, err := f.reader.read(f.inner, p)
	f.handed.Write(p[:n])
	return n, err
}

// requests are the requests of a connection as net/http reads them, with their heads
// as they came, and why there are no more.
func requests(f *followed) (read []*http.Request, heads []string, err error) {
	in := bufio.NewReader(f)
	for {
		begin := f.handed.Len() - in.Buffered()
		r, err := http.ReadRequest(in)
		if err != nil {
			return read, heads, err
		}
		heads = append(heads, f.handed.String()[begin:f.handed.Len()-in.Buffered()])
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return read, heads, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		read = append(read, r)
	}
}

// TestV44_WhatFollowsARequestIsFoundWhereNetHTTPFindsIt: what net/http reads as one
// request is followed as one, however the bytes are cut, and reaches it unchanged.
func TestV44_WhatFollowsARequestIsFoundWhereNetHTTPFindsIt(t *testing.T) {
	t.Parallel()
	const (
		get  = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
		both = "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
	)
	for _, tt := range []struct {
		name, text string
		// want is how many requests net/http reads before the one with two lengths.
		want int
	}{
		{"nothing", "", 0},
		{"a request without a body", get, 1},
		{"a length", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 1},
		{"a length twice", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 1},
		{"a length of nothing", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 1},
		{"a body that looks like a request", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: " + strconv.Itoa(len(both)) + "\r\n\r\n" + both, 1},
		{"chunks", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\nA;x=\"y\" \r\n0123456789\r\n0\r\n\r\n", 1},
		{"a chunk that looks like a request", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + strconv.FormatInt(int64(len(both)), 16) + "\r\n" + both + "\r\n0\r\n\r\n", 1},
		{"chunks with trailers", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n3\r\nabc\r\n0\r\nX-A: b\r\n\r\n", 1},
		{"line ends of one byte", "POST /a HTTP/1.1\nHost: a\nContent-Length: 3\n\nabc", 1},
		{"a folded header", "POST /a HTTP/1.1\r\nHost: a\r\nX-A: b\r\n Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", 1},
		{"a long header", "POST /a HTTP/1.1\r\nHost: a\r\nX-A: " + strings.Repeat("content-length: 3", 1000) + "\r\nContent-Length: 3\r\n\r\nabc", 1},
		{"HTTP/1.0", "POST /a HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", 1},
		{"an upgrade to HTTP/2 that nobody answers", "GET /a HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n", 1},
		{"a preface that is none", "PRI * HTTP/2.0\r\n\r\n" + get, 2},
	} {
		for _, size := range []int{1, 2, 3, 7, 4096} {
			read, heads, err := requests(newFollowed(tt.text, size))
			if len(read) != tt.want || !errors.Is(err, io.EOF) {
				t.Errorf("%s, in pieces of %d: %d requests, want %d: %v", tt.name, size, len(read), tt.want, err)
			}
			follow := newFollowed(tt.text+get+both+get, size)
			more, longer, err := requests(follow)
			if len(more) != tt.want+1 || err == nil || errors.Is(err, io.EOF) || !slices.Equal(heads, longer[:len(heads)]) {
				t.Errorf("%s, in pieces of %d: %d requests before one that has two lengths, want %d: %v", tt.name, size, len(more), tt.want+1, err)
			}
			if n, err := follow.Read(make([]byte, 100)); n != 0 || !errors.Is(err, errFraming) {
				t.Errorf("%s, in pieces of %d: %d bytes are read behind it: %v", tt.name, size, n, err)
			}
		}
	}
}

// TestV44_BehindAnUpgradeBytesAreLeftAlone: what is no HTTP/1.1 passes as it is.
func TestV44_BehindAnUpgradeBytesAreLeftAlone(t *testing.T) {
	t.Parallel()
	const rest = "\x00\x01\nPOST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n\xff"
	for _, head := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nupgrade:\r\n websocket\r\n\r\n",
		"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		for _, size := range []int{1, 5, 4096} {
			got, err := io.ReadAll(newFollowed(head+rest, size))
			if err != nil || string(got) != head+rest {
				t.Errorf("%q, in pieces of %d: %q, %v", head, size, got, err)
			}
		}
	}
	taken := newFollowed(rest, 7)
	taken.reader.tracked.upgraded.Store(true)
	if got, err := io.ReadAll(taken); err != nil || string(got) != rest {
		t.Errorf("a connection that the application has taken over: %q, %v", got, err)
	}
}

// FuzzFraming: whatever the bytes and however they are cut, no request that net/http
// reads from them has two lengths; and if none has, nothing is changed.
func FuzzFraming(f *testing.F) {
	for _, text := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n content-length: 3\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		f.Add([]byte(text), 1)
		f.Add([]byte(text), 100)
	}
	f.Fuzz(func(t *testing.T, text []byte, size int) {
		size = max(1, min(size, 4096))
		read, heads, _ := requests(newFollowed(string(text), size))
		for i, head := range heads {
			if i < len(read) && doubleLength(head) {
				t.Fatalf("a request with two lengths was read: %q", head)
			}
			if strings.Contains(strings.ToLower(head), "upgrade") || strings.HasPrefix(head, "CONNECT") || strings.HasPrefix(head, "PRI") {
				return // the rest is nobody's business
			}
		}
		plain := &followed{reader: framedReader{tracked: &trackedConn{}}, inner: &pieces{string(text), size}}
		plain.reader.tracked.upgraded.Store(true) // not followed
		all, rawHeads, _ := requests(plain)
		for i, head := range rawHeads {
			if doubleLength(head) || folded(head) {
				all, rawHeads = all[:min(i, len(all))], rawHeads[:i]
				break
			}
		}
		if len(read) < len(all) {
			t.Fatalf("%d of %d requests were read: %q", len(read), len(all), rawHeads)
		}
		for i := range all {
			want, _ := io.ReadAll(all[i].Body)
			if got, _ := io.ReadAll(read[i].Body); heads[i] != rawHeads[i] || !bytes.Equal(got, want) {
				t.Fatalf("%q with %q was read as %q with %q", rawHeads[i], want, heads[i], got)
			}
		}
	})
}

// doubleLength reports whether a head that net/http has read tells two lengths, or one
// that HTTP/1.0 does not know.
func doubleLength(head string) bool {
	first, rest, _ := strings.Cut(strings.ReplaceAll(head, "\r\n", "\n"), "\n")
	var length, coding bool
	for line := range strings.SplitSeq(rest, "\n") {
		name, _, _ := strings.Cut(strings.ToLower(line), ":")
		length, coding = length || name == "content-length", coding || name == "transfer-encoding"
	}
	return coding && (length || !strings.HasSuffix(first, "HTTP/1.1"))
}

// folded reports whether a head has a header in several lines, which is refused if it
// is one that tells of a length.
func folded(head string) bool {
	return strings.Contains(head, "\n ") || strings.Contains(head, "\n\t")
}
