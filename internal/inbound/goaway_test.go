package inbound

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/inboardmesh/inboard/internal/memnet"
)

// written is what a server might write: settings first.
func written(tb testing.TB, sizes ...int) []byte {
	tb.Helper()
	var out bytes.Buffer
	f := http2.NewFramer(&out, nil)
	if err := f.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20}); err != nil {
		tb.Fatal(err)
	}
	for i, n := range sizes {
		if err := f.WriteData(uint32(2*i+1), true, make([]byte, n)); err != nil {
			tb.Fatal(err)
		}
	}
	return out.Bytes()
}

// framesOf returns the kinds of the frames of a stream, and fails if it is damaged.
func framesOf(tb testing.TB, r io.Reader) (kinds []http2.FrameType, goAways int) {
	tb.Helper()
	f := http2.NewFramer(io.Discard, r)
	f.SetMaxReadFrameSize(1 << 20)
	for {
		frame, err := f.ReadFrame()
		if errors.Is(err, io.EOF) {
			return kinds, goAways
		}
		if err != nil {
			tb.Fatalf("after %v: %v", kinds, err)
		}
		if g, ok := frame.(*http2.GoAwayFrame); ok {
			goAways++
			if g.LastStreamID != math.MaxInt32 || g.ErrCode != http2.ErrCodeNo || g.StreamID != 0 {
				tb.Errorf("GOAWAY %+v", g)
			}
		}
		kinds = append(kinds, frame.Header().Type)
	}
}

// A GOAWAY stands between two frames, wherever the pieces end in which they are
// written, and never before the settings.
func TestBD3_AGoAwayStandsBetweenFrames(t *testing.T) {
	t.Parallel()
	data := written(t, 0, 1, 300, 2000)
	for _, piece := range []int{1, 2, 8, 9, 10, 17, 1000, len(data)} {
		for at := 0; at <= len(data); at += max(1, len(data)/97) {
			var sent sink
			c := &GoAwayConn{Conn: &sent}
			for done := 0; done < len(data); {
				if done <= at && at < min(done+piece, len(data)) {
					c.GoAway()
				}
				n := min(piece, len(data)-done)
				if _, err := c.Write(data[done : done+n]); err != nil {
					t.Fatal(err)
				}
				done += n
			}
			if at >= len(data) {
				c.GoAway()
			}
			kinds, n := framesOf(t, &sent.Buffer)
			if n != 1 || len(kinds) != 6 || kinds[0] != http2.FrameSettings {
				t.Fatalf("pieces of %d, asked at %d: %v", piece, at, kinds)
			}
		}
	}
}

type sink struct {
	net.Conn
	bytes.Buffer
	closed bool
}

func (s *sink) Write(p []byte) (int, error)       { return s.Buffer.Write(p) }
func (s *sink) Read(p []byte) (int, error)        { return s.Buffer.Read(p) }
func (s *sink) SetWriteDeadline(time.Time) error  { return nil }
func (s *sink) Close() error                      { s.closed = true; return nil }
func (s *sink) ReadFrom(io.Reader) (int64, error) { return 0, errors.ErrUnsupported }

func TestAGoAwayIsNotMissedBesideWrites(t *testing.T) {
	t.Parallel()
	for range 300 {
		var sent sink
		c := &GoAwayConn{Conn: &sent}
		if _, err := c.Write(written(t)); err != nil {
			t.Fatal(err)
		}
		one := written(t, 100)[len(written(t)):]
		var both sync.WaitGroup
		both.Go(func() {
			for range 3 {
				_, _ = c.Write(one)
			}
		})
		both.Go(c.GoAway)
		both.Wait()
		if _, n := framesOf(t, &sent.Buffer); n != 1 {
			t.Fatalf("%d GOAWAYs", n)
		}
	}
}

// A peer that does not read holds nobody up.
func TestAGoAwayToAPeerThatDoesNotReadIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := memnet.Pipe()
		defer far.Close()
		c := &GoAwayConn{Conn: near}
		if _, err := c.Write(written(t)); err != nil {
			t.Fatal(err)
		}
		// The peer's buffer is filled below its back.
		_ = near.SetWriteDeadline(time.Now().Add(time.Millisecond))
		for {
			if _, err := near.Write(make([]byte, 1)); err != nil {
				break
			}
		}
		begun := time.Now()
		c.GoAway()
		if took := time.Since(begun); took != farewellTime {
			t.Errorf("it took %v", took)
		}
		if _, err := c.Write([]byte{0}); err == nil {
			t.Error("a connection with half a frame is still open")
		}
	})
}

func BenchmarkWriteBesideGoAway(b *testing.B) {
	data := written(b, 10, 1024, 10)[len(written(b)):]
	b.Run("without", func(b *testing.B) {
		b.ReportAllocs()
		c := net.Conn(&nowhere{})
		for b.Loop() {
			_, _ = c.Write(data)
		}
	})
	b.Run("with", func(b *testing.B) {
		b.ReportAllocs()
		c := &GoAwayConn{Conn: &nowhere{}}
		for b.Loop() {
			_, _ = c.Write(data)
		}
	})
}

type nowhere struct{ net.Conn }

func (*nowhere) Write(p []byte) (int, error) { return len(p), nil }
