package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/internal/http1"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/tlstest"
)

// gathering sends what is written in one piece, when it is flushed.
type gathering struct {
	net.Conn
	holds bool
	held  bytes.Buffer
}

func (g *gathering) Write(p []byte) (int, error) {
	if g.holds {
		return g.held.Write(p)
	}
	return g.Conn.Write(p)
}

func (g *gathering) flush() error {
	g.holds = false
	if err := g.SetWriteDeadline(time.Time{}); err != nil { // the end of TLS has set one
		return err
	}
	_, err := g.held.WriteTo(g.Conn)
	return err
}

// A server's bytes behind its answer, in TLS records of their own, are read together with
// the answer. They must not be the beginning of the next one (as behind an answer to
// HEAD, or one without a body, whose server has sent a body all the same).
func TestWhatComesBehindAnAnswerOverTLSIsNoAnswer(t *testing.T) {
	t.Parallel()
	certificate := tlstest.NewCA(t).Workload(t, "spiffe://cluster.local/ns/shop/sa/payment")
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	long := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n%040000d", 0)
	longer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 12000\r\n\r\n%012000d", 0)
	for _, tt := range []struct {
		name, method string
		records      []string
		close        bool
		reused       bool
	}{
		{"an answer", http.MethodGet, []string{answer}, false, true},
		{"an answer in two records", http.MethodGet, []string{answer[:20], answer[20:]}, false, true},
		{"an answer of many records", http.MethodGet, []string{long}, false, true},
		{"another answer", http.MethodGet, []string{answer, answer}, false, false},
		{"another answer, behind one of many records", http.MethodGet, []string{long, answer}, false, false},
		{"another answer in the same record", http.MethodGet, []string{answer + answer}, false, false},
		{"another answer in the same record, behind a long one", http.MethodGet, []string{longer + answer}, false, false},
		{"a body of HEAD", http.MethodHead, []string{answer[:len(answer)-2], "ok"}, false, false},
		{"a body of 204", http.MethodGet, []string{"HTTP/1.1 204 No Content\r\n\r\n", "ok"}, false, false},
		{"an empty line", http.MethodGet, []string{answer, "\r\n"}, false, false},
		{"the end of TLS", http.MethodGet, []string{answer}, true, false},
	} {
		for name, below := range map[string]func(net.Conn) net.Conn{
			"that is followed":     func(raw net.Conn) net.Conn { return &recordsConn{Conn: raw} },
			"that is not followed": func(raw net.Conn) net.Conn { return raw },
		} {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				t.Run(fmt.Sprintf("%s over %s %s", tt.name, tls.VersionName(version), name), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						raw, end := memnet.Pipe()
						go func() {
							defer end.Close()
							g := &gathering{Conn: end}
							server := tls.Server(g, &tls.Config{Certificates: []tls.Certificate{certificate}, SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true})
							requests := bufio.NewReader(server)
							for first := true; ; first = false {
								if _, err := http.ReadRequest(requests); err != nil {
									return
								}
								g.holds = first
								records := []string{"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"}
								if first {
									records = tt.records
								}
								for _, record := range records {
									_, _ = io.WriteString(server, record) // what is read tells
								}
								if first && tt.close {
									_ = server.CloseWrite()
								}
								_ = g.flush()
							}
						}()
						secured := tls.Client(below(raw), &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
						if err := secured.HandshakeContext(t.Context()); err != nil {
							t.Fatal(err)
						}
						conn := http1.New(secured, &http1.Options{})
						defer conn.Close()
						answerTo(t, conn, tt.method)
						if err := conn.Reserve(); (err == nil) != tt.reused {
							t.Fatalf("reserved again: %v, want %t", err, tt.reused)
						}
						if !tt.reused {
							return
						}
						if body := answerTo(t, conn, http.MethodPost); body != "second" {
							t.Errorf("the second answer is %q", body)
						}
					})
				})
			}
		}
	}
}

// answerTo is the body of the answer to a request over a connection.
func answerTo(t *testing.T, conn *http1.Conn, method string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	resp, err := conn.RoundTrip(newRequest(ctx, t, method, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	// As io.Copy does: what is longer than the reader's buffer goes round it.
	body := make([]byte, 0, 64<<10)
	for {
		n, err := resp.Body.Read(body[len(body):min(len(body)+32<<10, cap(body))])
		body = body[:len(body)+n]
		if errors.Is(err, io.EOF) {
			return string(body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// However the bytes come, the ends of records are where they are.
func TestTheEndsOfRecordsAreFollowed(t *testing.T) {
	t.Parallel()
	stream := []byte{22, 3, 3, 0, 2, 1, 2, 20, 3, 3, 0, 0, 23, 3, 3, 1, 0}
	stream = append(stream, make([]byte, 256)...)
	for size := 1; size <= len(stream); size++ {
		c := &recordsConn{}
		total, rest := 0, true
		for piece := stream; len(piece) > 0; {
			n := min(size, len(piece))
			var ends int
			ends, rest = c.follow(piece[:n])
			total += ends
			piece = piece[n:]
		}
		if total != 3 || rest {
			t.Errorf("in pieces of %d: %d records, rest %t", size, total, rest)
		}
	}
}
