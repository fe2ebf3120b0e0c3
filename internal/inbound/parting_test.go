package inbound

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/inboardmesh/inboard/internal/memnet"
)

// The server reads what the peer has written, and a GOAWAY behind the answer to the PING,
// in pieces of every length; before that, and behind another answer, none.
func TestBD3_TheServerReadsAGoAwayBehindTheAnswer(t *testing.T) {
	t.Parallel()
	for size := 1; size <= 40; size++ {
		var said bytes.Buffer
		f := http2.NewFramer(&said, nil)
		c := &partingConn{}
		c.ping = 0x0102030405060708
		var answer, other [8]byte
		binary.BigEndian.PutUint64(answer[:], c.ping)
		fakes := append([]byte{0, 0, pingLength, pingType, ackFlag, 0, 0, 0, 0}, answer[:]...) // in a body
		for _, write := range []func() error{
			func() error { return f.WriteSettings() },
			func() error { return f.WritePing(true, other) },
			func() error { return f.WritePing(false, answer) },
			func() error { return f.WriteData(1, false, fakes) },
			func() error { return f.WritePing(true, answer) },
		} {
			if err := write(); err != nil {
				t.Fatal(err)
			}
		}
		c.Conn = &sink{Buffer: said}
		c.asked.Store(1)
		var got []http2.FrameType
		reader := http2.NewFramer(io.Discard, readsPieces{c, size})
		for {
			frame, err := reader.ReadFrame()
			if err != nil {
				break
			}
			got = append(got, frame.Header().Type)
		}
		want := []http2.FrameType{http2.FrameSettings, http2.FramePing, http2.FramePing, http2.FrameData, http2.FramePing, http2.FrameGoAway}
		if len(got) != len(want) {
			t.Fatalf("pieces of %d: %v", size, got)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("pieces of %d: %v", size, got)
			}
		}
	}
}

type readsPieces struct {
	io.Reader
	size int
}

func (r readsPieces) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), r.size)]) }

// A peer is pinged a while after it was asked to go, and is not waited for forever.
func TestBD3_APeerThatDoesNotAnswerIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := memnet.Pipe()
		defer near.Close()
		defer far.Close()
		c := partingOf(near)
		if _, err := c.Write(written(t)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		c.leave(300 * time.Millisecond)
		peer := http2.NewFramer(io.Discard, far)
		for _, want := range []struct {
			kind http2.FrameType
			at   time.Duration
		}{{http2.FrameSettings, 0}, {http2.FrameGoAway, 300 * time.Millisecond}, {http2.FramePing, 300*time.Millisecond + partingPause}} {
			frame, err := peer.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if at := time.Since(began); frame.Header().Type != want.kind || at != want.at {
				t.Errorf("%v after %v", frame, at)
			}
		}
		time.Sleep(partingTime - partingPause - 1)
		if c.overdue() {
			t.Error("it is not waited for")
		}
		time.Sleep(time.Nanosecond)
		if !c.overdue() {
			t.Error("it is waited for still")
		}
	})
}

// A GOAWAY of the server's own is not followed by one that excludes less.
func TestBD3_AServerThatHasSaidItsGoAwaySaysNoOther(t *testing.T) {
	t.Parallel()
	var sent sink
	c := &GoAwayConn{Conn: &sent}
	var own bytes.Buffer
	if err := http2.NewFramer(&own, nil).WriteGoAway(1<<31-1, http2.ErrCodeNo, nil); err != nil {
		t.Fatal(err)
	}
	for _, p := range [][]byte{written(t), own.Bytes()} {
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	c.GoAway()
	if kinds, n := framesOf(t, &sent.Buffer); n != 1 {
		t.Errorf("%v", kinds)
	}
}
