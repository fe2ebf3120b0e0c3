package http1_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzServer lets a server say anything, in packets of any size, and compares
// what becomes of two requests on both roads.
func FuzzServer(f *testing.F) {
	for i, seed := range []string{
		ok2, chunked, ok2 + ok2, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok2,
		"HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nuntil the end",
		"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\n" + ok2, "\x16\x03\x01\x00\x05hello", "",
	} {
		f.Add([]byte(seed), uint8(i), uint8(i*7))
	}
	f.Fuzz(func(t *testing.T, answer []byte, kind, cut uint8) {
		c := call{timeout: time.Second}
		switch kind % 4 {
		case 1:
			c.method = http.MethodHead
		case 2:
			c.method, c.body, c.length = http.MethodPost, text("hello"), 5
		case 3:
			c.header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"echo"}}
		}
		n := min(int(cut), len(answer))
		sc := scenario{
			script: []step{head, body(int(c.length)), say(string(answer[:n])), pause(time.Millisecond), say(string(answer[n:]))},
			calls:  []call{c, {timeout: time.Second}},
		}
		if kind&4 != 0 {
			sc.script = append(sc.script, hangUp)
		} else {
			sc.script = append(sc.script, head, say(ok2))
		}
		want, wantGot := lead(t, roads[0], &sc)
		got, gotGot := lead(t, roads[1], &sc)
		if !slices.Equal(got, want) || normal(gotGot) != normal(wantGot) {
			t.Errorf("http1    %+v\nnet/http %+v\nhttp1 sent    %q\nnet/http sent %q", got, want, gotGot, wantGot)
		}
		if strings.Contains(gotGot, "\r\n\r\n\r\n") {
			t.Errorf("sent %q", gotGot)
		}
	})
}
