package inbound

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"golang.org/x/net/http2"
)

// recording is the end of a connection: what its peer has sent, and in which order things
// were done.
type recording struct {
	sink
	in   io.Reader
	said []string
}

func (r *recording) Read(p []byte) (int, error) { return r.in.Read(p) }

func (r *recording) Write(p []byte) (int, error) {
	r.said = append(r.said, "write")
	return len(p), nil
}

// calls is what a client sends that makes so many calls, each with a message.
func calls(tb testing.TB, n int) []byte {
	tb.Helper()
	var out bytes.Buffer
	out.WriteString(preface)
	f := http2.NewFramer(&out, nil)
	errs := []error{f.WriteSettings(), f.WriteWindowUpdate(0, 1000), f.WritePing(false, [8]byte{0, 0, 3, 1})}
	for i := range n {
		id := uint32(2*i + 1)
		errs = append(errs,
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x83, 0, 0, 1, 1}, EndHeaders: i%2 == 0}))
		if i%2 == 1 {
			errs = append(errs, f.WriteContinuation(id, true, []byte{0x84}))
		}
		errs = append(errs, f.WriteData(id, true, []byte{0, 0, 0, 1, 1, 0, 0, 0, 1, 1}))
	}
	for _, err := range errs {
		if err != nil {
			tb.Fatal(err)
		}
	}
	return out.Bytes()
}

// Requests that came together may all be answered before the next write, which then has
// their answers; what is ready is written first, and one that came alone yields to nobody.
func TestRequestsThatCameTogetherAreAnsweredTogether(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		arrived int
		sizes   []int
		want    []string
	}{
		{"two requests", 2, []int{1100}, []string{"write", "yield"}},
		{"once for all of them", 5, []int{1100, 3300}, []string{"write", "yield", "write"}},
		{"the least", 2, []int{gatherFrom}, []string{"write", "yield"}},
		{"less, for which gRPC has yielded itself", 2, []int{gatherFrom - 1, 1100}, []string{"write", "write", "yield"}},
		{"the most", 2, []int{gatherBelow - 1}, []string{"write", "yield"}},
		{"a whole record of TLS", 2, []int{gatherBelow}, []string{"write"}},
		{"a request that came alone", 1, []int{1100}, []string{"write"}},
		{"a connection without requests", 0, []int{1100}, []string{"write"}},
	}
	for _, test := range tests {
		for _, piece := range []int{1, 7, 24, 25, 1 << 10} {
			end := &recording{in: bytes.NewReader(calls(t, test.arrived))}
			c := Gathering(end)
			c.yield = func() { end.said = append(end.said, "yield") }
			if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{c}, make([]byte, piece)); err != nil {
				t.Fatal(err)
			}
			for _, size := range test.sizes {
				if n, err := c.Write(make([]byte, size)); n != size || err != nil {
					t.Errorf("wrote %d of %d: %v", n, size, err)
				}
			}
			if !slices.Equal(end.said, test.want) {
				t.Errorf("%s, read in pieces of %d: it did %v, want %v", test.name, piece, end.said, test.want)
			}
		}
	}
}
