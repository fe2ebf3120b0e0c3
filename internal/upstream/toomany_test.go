package upstream

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
)

// TestBN3_AStreamTooManyIsItsOwnFailure. A server that lowers its limit while a request is
// on its way to it refuses the stream: with REFUSED_STREAM, which says that nothing was
// processed, or with PROTOCOL_ERROR, which does not (RFC 9113, section 5.1.2). Either is an
// error of that stream only; the others end well. A server that makes an error of the
// connection of it ends all of them, of which it has processed those that it names.
func TestBN3_AStreamTooManyIsItsOwnFailure(t *testing.T) {
	t.Parallel()
	const answered, reset, refused = outcome.Response, outcome.Reset, outcome.RefusedStream
	for name, tt := range map[string]struct {
		// say refuses the second of two streams, 1 and 3.
		say           func(f *http2.Framer) error
		first, second outcome.Kind // [outcome.Response] is an answer
		connections   int          // with the next call
	}{
		"REFUSED_STREAM": {func(f *http2.Framer) error { return f.WriteRSTStream(3, http2.ErrCodeRefusedStream) }, answered, refused, 1},
		"PROTOCOL_ERROR": {func(f *http2.Framer) error { return f.WriteRSTStream(3, http2.ErrCodeProtocol) }, answered, reset, 2},
		"PROTOCOL_ERROR of the connection, behind the first": {func(f *http2.Framer) error {
			return f.WriteGoAway(1, http2.ErrCodeProtocol, nil)
		}, reset, refused, 2},
		"PROTOCOL_ERROR of the connection, behind both": {func(f *http2.Framer) error {
			return f.WriteGoAway(3, http2.ErrCodeProtocol, nil)
		}, reset, reset, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				connections := 0
				w.rawServer(paymentAddress, func(conn net.Conn) {
					connections++
					again := connections > 1
					if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
						return
					}
					f := http2.NewFramer(conn, conn)
					_ = f.WriteSettings()
					_ = f.WriteSettingsAck()
					for {
						frame, err := f.ReadFrame()
						if err != nil {
							return
						}
						headers, ok := frame.(*http2.HeadersFrame)
						switch {
						case !ok:
						case headers.StreamID == 3 && !again:
							_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
							_ = tt.say(f)
							if tt.first != answered {
								return
							}
							time.Sleep(time.Second)
							_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true}) // :status 200
						case headers.StreamID > 3 || again:
							_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: headers.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
						}
					}
				})
				_, e := w.one(speakHTTP2)
				failures := make([]chan *Failure, 2)
				for i := range failures {
					failures[i] = make(chan *Failure, 1)
					go func() {
						req := newRequest(t.Context(), t, http.MethodPost, io.MultiReader(strings.NewReader("42")))
						resp, failure := e.RoundTrip(req, discovery.PriorityDefault)
						if failure == nil {
							read(t, resp)
						}
						failures[i] <- failure
					}()
					synctest.Wait()
				}
				for i, want := range []outcome.Kind{tt.first, tt.second} {
					failure := <-failures[i]
					switch {
					case want == answered && failure != nil:
						t.Errorf("stream %d: %v (sent: %t): %v", 2*i+1, failure.Kind, failure.Sent, failure.Err)
					case want != answered && (failure == nil || failure.Kind != want || !failure.Sent):
						t.Errorf("stream %d: got %+v, want %v", 2*i+1, failure, want)
					}
				}
				synctest.Wait() // the streams' places are free
				get(t, e)
				synctest.Wait()
				if opened, _ := w.connections(); opened != tt.connections {
					t.Errorf("%d connections, want %d", opened, tt.connections)
				}
			})
		})
	}
}
